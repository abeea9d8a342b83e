from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from asr.training.muon import Muon, is_matrix, orthogonal


def with_singular_values(rows: int, columns: int, low: float, high: float) -> Tensor:
    left, right = (nn.init.orthogonal_(torch.empty(size, min(rows, columns))) for size in (rows, columns))
    return left * torch.linspace(low, high, min(rows, columns)) @ right.T


@pytest.mark.parametrize("shape", [(32, 64), (64, 32), (48, 48)])
def test_singular_values_that_differ_by_a_factor_of_ten_come_near_to_one(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    matrix = with_singular_values(*shape, 1.0, 10.0)
    made = orthogonal(matrix[None])[0].float()
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    inside = left.T @ made @ right.T  # the same singular vectors: what is off the diagonal is rounding
    values = inside.diagonal()
    assert 0.5 < values.min() <= values.max() < 1.3
    assert (inside - values.diag()).abs().max() < 0.05


def test_matrices_are_turned_one_by_one_whatever_their_scale() -> None:
    torch.manual_seed(0)
    both = torch.randn(2, 24, 40) * torch.tensor([1e-4, 1e4])[:, None, None]
    torch.testing.assert_close(orthogonal(both)[0], orthogonal(both[:1])[0])
    torch.testing.assert_close(orthogonal(both)[1], orthogonal(both[1:])[0])
    assert not orthogonal(torch.zeros(1, 24, 40)).any()


def test_kernels_of_convolutions_are_matrices_and_a_few_filters_are_not() -> None:
    assert is_matrix(nn.Linear(20, 30).weight)
    assert is_matrix(nn.Conv1d(8, 32, 5).weight)
    assert not is_matrix(nn.Linear(20, 30).bias)
    assert not is_matrix(torch.zeros(2, 384))


def test_a_step_of_a_matrix_has_the_size_of_adamws_whatever_the_gradient() -> None:
    torch.manual_seed(0)
    for scale in (1e-6, 1.0, 1e6):
        weight = nn.Parameter(torch.zeros(64, 64))
        weight.grad = scale * torch.randn(64, 64)
        Muon([weight], rate=0.01, weight_decay=0.0).step()
        assert weight.detach().square().mean().sqrt() == pytest.approx(0.2 * 0.01, rel=0.2)


@pytest.mark.parametrize("shape", [(7,), (40, 24)])
def test_vectors_and_tables_move_as_with_adamw(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    start, gradients = torch.randn(shape), torch.randn(5, *shape)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    betas = (0.9, 0.98)
    muon = Muon([ours], rate=0.01, betas=betas, tables=[ours] if len(shape) == 2 else ())
    adamw = torch.optim.AdamW([theirs], lr=0.01, betas=betas, weight_decay=0.0)
    for gradient in gradients:
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        muon.step()
        adamw.step()
    torch.testing.assert_close(ours, theirs)


def test_parameters_without_gradient_stay_and_weight_decay_shrinks_matrices() -> None:
    matrix, still, vector = (nn.Parameter(torch.ones(size)) for size in ((16, 16), (16, 16), (16,)))
    matrix.grad, vector.grad = torch.zeros(16, 16), torch.zeros(16)
    Muon([matrix, still, vector], rate=0.1, weight_decay=0.5).step()
    torch.testing.assert_close(matrix.detach(), torch.full((16, 16), 0.95))
    assert still.equal(torch.ones(16, 16))
    assert vector.equal(torch.ones(16))


def test_its_state_is_saved_and_restored() -> None:
    torch.manual_seed(0)
    gradients = [(torch.randn(20, 20), torch.randn(20)) for _ in range(4)]

    def advance(muon: Muon, parameters: list[nn.Parameter], steps: slice) -> None:
        for given in gradients[steps]:
            for parameter, gradient in zip(parameters, given, strict=True):
                parameter.grad = gradient.clone()
            muon.step()

    whole, resumed = ([nn.Parameter(torch.zeros(20, 20)), nn.Parameter(torch.zeros(20))] for _ in range(2))
    make = partial(Muon, rate=0.1)
    advance(make(whole), whole, slice(None))
    first = make(resumed)
    advance(first, resumed, slice(2))
    second = make(resumed)
    second.load_state_dict(first.state_dict())
    advance(second, resumed, slice(2, None))
    for one, other in zip(whole, resumed, strict=True):
        assert one.equal(other)
