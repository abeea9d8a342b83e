"""Layers whose sizes come in steps give what others give, and oneDNN sees few sizes."""

from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn

from asr import ops, steady
from asr.ops import cpu

LAYERS = [
    (steady.Linear(6, 5), nn.Linear(6, 5), (3, 70, 6)),
    (steady.Linear(6, 5), nn.Linear(6, 5), (2, 32, 6)),
    (steady.Conv1d(4, 5, 5, stride=2), nn.Conv1d(4, 5, 5, stride=2), (3, 4, 133)),
    (steady.Conv1d(4, 5, 5, stride=2), nn.Conv1d(4, 5, 5, stride=2), (3, 4, 132)),
    (steady.Conv1d(4, 5, 5, stride=2), nn.Conv1d(4, 5, 5, stride=2), (3, 4, 131)),
    (steady.Conv1d(4, 5, 3), nn.Conv1d(4, 5, 3), (1, 4, 3)),
]


@pytest.mark.parametrize(("layer", "plain", "shape"), LAYERS, ids=str)
def test_outputs_and_gradients_are_those_of_the_plain_layer(
    layer: nn.Module, plain: nn.Module, shape: tuple[int, ...]
) -> None:
    plain.load_state_dict(layer.state_dict())
    inputs = torch.randn(shape)
    found = []
    for each in (layer.train(), plain):
        given = inputs.clone().requires_grad_()
        outputs = each(given)
        gradients = torch.autograd.grad(outputs.square().sum(), [given, *each.parameters()])
        found.append([outputs, *gradients])
    torch.testing.assert_close(*found)


@pytest.mark.parametrize(("layer", "shape"), [(each[0], each[2]) for each in LAYERS[:3]], ids=str)
def test_sizes_come_in_steps_in_training_alone(layer: nn.Module, shape: tuple[int, ...]) -> None:
    name = "linear" if isinstance(layer, nn.Linear) else "conv1d"
    seen: list[Tensor] = []
    real = getattr(torch.nn.functional, name)

    def watch(inputs: Tensor, *rest: object) -> Tensor:
        seen.append(inputs)
        return real(inputs, *rest)

    with patch(f"torch.nn.functional.{name}", watch):
        layer.train()(torch.randn(shape))
        layer.eval()(torch.randn(shape))
    training, evaluation = seen
    if name == "linear":
        assert training.size(-2) % steady.ROWS == 0
    else:  # outputs in whole steps, and no input is left over
        outputs, left_over = divmod(training.size(-1) - layer.kernel_size[0], layer.stride[0])
        assert ((outputs + 1) % steady.ROWS, left_over) == (0, 0)
    assert evaluation.shape == shape


def test_rows_of_bfloat16_come_in_steps_and_count_for_nothing() -> None:
    rows = torch.randn(steady.ROWS + 3, 5)
    rounded = cpu._rounded(rows)
    assert rounded.shape == (2 * steady.ROWS, 5)
    torch.testing.assert_close(rounded[: len(rows)], rows.bfloat16(), rtol=0, atol=0)
    assert not rounded[len(rows) :].any()


@pytest.mark.skipif(not cpu.is_available(), reason="no C operator")
def test_the_recurrence_under_autocast_multiplies_whole_steps_of_rows() -> None:
    batch, time, size = 3, 30, 8  # 90 rows
    weights = [torch.randn(2 * size, size), torch.randn(2 * size, size), torch.randn(2 * size)]
    weights = [weight.requires_grad_() for weight in weights]
    inputs, hidden = torch.randn(batch, time, size, requires_grad=True), torch.randn(batch, size)
    sizes = set()
    real = torch.Tensor.__matmul__

    def watch(left: Tensor, right: Tensor) -> Tensor:
        if left.dtype == torch.bfloat16:
            sizes.update([*left.shape, *right.shape])
        return real(left, right)

    with patch.object(torch.Tensor, "__matmul__", watch), torch.autocast("cpu", torch.bfloat16):
        outputs, _ = ops.mgu(inputs, hidden, *weights, None, backend="cpu")
        outputs.sum().backward()
    assert sizes == {size, 2 * size, 128}
