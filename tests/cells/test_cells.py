"""The promises of the MGU, kept by every cell of `asr.cells`, as a layer and inside of a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d

from asr import ops
from asr.bundle import Bundle, load_bundle, save_bundle
from asr.cells import CELLS, make
from asr.cells.gru import GRU
from asr.cells.li_gru import LiGRU
from asr.cells.lstm import CoupledLSTM, LSTMState
from asr.cells.min_gru import MinGRU
from asr.cells.squashed_gru import SquashedGRU
from asr.cells.variational import Variational
from asr.cells.zoneout import Zoneout
from asr.decoding_options import recogniser_options
from asr.encoder import EncoderConfig
from asr.errors import UserError
from asr.mgu import MGU
from asr.model import CtcModel
from asr.packed import Packed
from asr.state import leaves, map_state, with_leaves
from asr.streaming import StreamingRecognizer
from asr.text import Tokenizer
from asr.transcribe import parse
from tests.conftest import signal, tiny_model
from tests.test_model import batch, in_chunks

SIZE = 8  # inputs and units


@pytest.fixture(params=CELLS)
def cell(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def layer(cell: str) -> nn.Module:
    return random_layer(make(cell, SIZE, SIZE))


@pytest.fixture
def model(cell: str, tokenizer: Tokenizer) -> CtcModel:
    encoder = EncoderConfig((8, 12), width=16, hidden=24, lookahead=(1, 0, 2), cell=cell)
    return tiny_model(encoder, tokenizer.vocabulary, outputs=2)


def random_layer(layer: nn.Module) -> nn.Module:
    """In float64 and evaluation; its biases and gains are random too."""
    torch.manual_seed(0)
    layer = layer.double().eval()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return layer


def random_arguments(layer: nn.Module, count: int = 3, time: int = 11) -> tuple[Tensor, object]:
    torch.manual_seed(1)
    inputs = torch.randn(count, time, SIZE, dtype=torch.float64)
    return inputs, map_state(torch.randn_like, layer.initial_state(count))


def assert_same(got: object, expected: object) -> None:
    torch.testing.assert_close(leaves(got), leaves(expected), atol=1e-12, rtol=1e-9)


# As a layer


def test_a_stream_in_pieces_equals_the_stream_at_once(layer: nn.Module) -> None:
    inputs, state = random_arguments(layer)
    outputs, final = layer(inputs, state)
    pieces = []
    for piece in inputs.split([1, 3, 1, 6], 1):
        out, state = layer(piece, state)
        pieces.append(out)
    assert_same((torch.cat(pieces, 1), state), (outputs, final))


def test_padding_and_neighbours_change_neither_outputs_nor_gradients(cell: str, layer: nn.Module) -> None:
    layer.train("zoneout" not in cell and "variational" not in cell)  # these two draw, in the order of rows
    inputs, state = random_arguments(layer)
    lengths, weights = [11, 4, 7], list(layer.parameters())
    outputs, _ = layer(inputs, state)
    together = torch.autograd.grad(
        sum(outputs[row, :n].square().sum() for row, n in enumerate(lengths)), weights, allow_unused=True
    )
    alone = [torch.zeros_like(weight) for weight in weights]
    for row, length in enumerate(lengths):
        own = map_state(lambda leaf, row=row: leaf[row : row + 1], state)
        single, _ = layer(inputs[row : row + 1, :length], own)
        assert_same(single[0], outputs[row, :length])
        gradients = torch.autograd.grad(single.square().sum(), weights, allow_unused=True)
        for total, gradient in zip(alone, gradients, strict=True):
            total += 0 if gradient is None else gradient
    for got, expected in zip(together, alone, strict=True):
        assert_same(torch.zeros_like(expected) if got is None else got, expected)


@pytest.mark.parametrize("training", [False, True])
def test_gradients_are_those_of_finite_differences_in_float64(layer: nn.Module, training: bool) -> None:
    layer.train(training)
    inputs, state = random_arguments(layer, count=2, time=4)
    names, weights = zip(*layer.named_parameters(), strict=True)
    states = len(leaves(state))

    def results(inputs: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        torch.manual_seed(2)  # the same masks and noise at every call
        own = dict(zip(names, rest[states:], strict=True))
        carried = with_leaves(state, rest[:states])
        return tuple(leaves(torch.func.functional_call(layer, own, (inputs, carried))))

    arguments = [inputs, *leaves(state), *weights]
    assert torch.autograd.gradcheck(
        results, [each.detach().requires_grad_() for each in arguments], fast_mode=True
    )


# Their equations, a step at a time


def gru(layer: GRU, x: Tensor, h: Tensor) -> Tensor:
    weight_ih, weight_hh, bias_ih, bias_hh = layer.rnn.all_weights[0]
    xr, xz, xn = (x @ weight_ih.T + bias_ih).chunk(3, -1)
    hr, hz, hn = (h @ weight_hh.T + bias_hh).chunk(3, -1)
    r, z = torch.sigmoid(xr + hr), torch.sigmoid(xz + hz)
    return (1 - z) * torch.tanh(xn + r * hn) + z * h


def mgu(layer: MGU, x: Tensor, h: Tensor) -> Tensor:
    weights = layer.weight_ih, layer.weight_hh, layer.bias, layer.bias_hn
    return ops.mgu(x[:, None], h, *weights, backend="reference")[1]


def li_gru(layer: LiGRU, x: Tensor, h: Tensor) -> Tensor:
    gates = []
    for weight, gain, bias, recurrent in zip(
        *(each.chunk(2) for each in (layer.weight_ih, layer.gain, layer.bias, layer.weight_hh)), strict=True
    ):
        a = x @ weight.T
        a = (a - a.mean(-1, keepdim=True)) / (a.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
        gates.append(gain * a + bias + h @ recurrent.T)
    z = torch.sigmoid(gates[0])
    return (1 - z) * gates[1].clamp(min=0) + z * h


def min_gru(layer: MinGRU, x: Tensor, h: Tensor) -> Tensor:
    z, n = (x @ layer.weight.T + layer.bias).chunk(2, -1)
    return (1 - z.sigmoid()) * n + z.sigmoid() * h


def squashed_gru(layer: SquashedGRU, x: Tensor, c: Tensor) -> Tensor:
    xr, xz, xn = (x @ layer.weight_ih.T + layer.bias).chunk(3, -1)
    wr, wz, wn = layer.weight_hh.chunk(3)
    h = c.tanh()
    r, z = torch.sigmoid(xr + h @ wr.T), torch.sigmoid(xz + h @ wz.T)
    return (1 - z) * torch.tanh(xn + (r * h) @ wn.T) + z * c


def coupled_lstm(layer: CoupledLSTM, x: Tensor, state: LSTMState) -> LSTMState:
    f, n, o = (x @ layer.weight_ih.T + state.hidden @ layer.weight_hh.T + layer.bias).chunk(3, -1)
    c = f.sigmoid() * state.cell + (1 - f.sigmoid()) * n.tanh()
    return LSTMState(o.sigmoid() * c.tanh(), c)


def zoneout(layer: Zoneout, x: Tensor, h: Tensor) -> Tensor:
    inner = gru if isinstance(layer.layer, GRU) else mgu
    return 0.1 * h + 0.9 * inner(layer.layer, x, h)


def variational(layer: Variational, x: Tensor, h: Tensor) -> Tensor:
    return gru(layer.layer, x, h) if isinstance(layer.layer, GRU) else mgu(layer.layer, x, h)


def lstm(layer: nn.Module, x: Tensor, state: LSTMState) -> LSTMState:
    weight_ih, weight_hh, bias_ih, bias_hh = layer.rnn.all_weights[0]
    i, f, n, o = (x @ weight_ih.T + bias_ih + state.hidden @ weight_hh.T + bias_hh).chunk(4, -1)
    c = f.sigmoid() * state.cell + i.sigmoid() * n.tanh()
    return LSTMState(o.sigmoid() * c.tanh(), c)


def conv_gru(layer: nn.Module, x: Tensor, h: Tensor) -> Tensor:
    """With torch's convolutions, which have channels before bands."""

    def over_bands(weight: Tensor, values: Tensor) -> Tensor:
        kernels = weight.unflatten(1, (3, -1)).transpose(1, 2)  # (channels out, in, 3)
        return conv1d(values.transpose(1, 2), kernels, padding="same").transpose(1, 2)

    xr, xz, xn = (over_bands(layer.weight_ih, x.unflatten(1, (8, -1))) + layer.bias).chunk(3, -1)
    wr, wz, wn = layer.weight_hh.chunk(3)
    r, z = torch.sigmoid(xr + over_bands(wr, h)), torch.sigmoid(xz + over_bands(wz, h))
    return (1 - z) * torch.tanh(xn + over_bands(wn, r * h)) + z * h


EQUATIONS: dict[str, Callable] = {
    "gru": gru,
    "lstm": lstm,
    "li_gru": li_gru,
    "min_gru": min_gru,
    "squashed_gru": squashed_gru,
    "coupled_lstm": coupled_lstm,
    "conv_gru": conv_gru,
    "zoneout_gru": zoneout,
    "zoneout_mgu": zoneout,
    "variational_gru": variational,
    "variational_mgu": variational,
}


def test_a_layer_computes_its_equation(cell: str) -> None:
    layer = random_layer(make(cell, 2 * SIZE, 3 * SIZE))
    torch.manual_seed(1)
    inputs = torch.randn(2, 6, 2 * SIZE, dtype=torch.float64)
    state = map_state(torch.randn_like, layer.initial_state(2))
    outputs, final = layer(inputs, state)
    for t, x in enumerate(inputs.unbind(1)):
        state = EQUATIONS[cell](layer, x, state)
        put_out = leaves(state)[0].tanh() if cell == "squashed_gru" else leaves(state)[0]
        assert_same(outputs[:, t], put_out.flatten(1))
    assert_same(final, state)


# What is drawn in training


def test_zoneout_keeps_as_many_units_as_its_rate_and_changes_the_others() -> None:
    torch.manual_seed(0)
    layer = Zoneout(GRU(SIZE, 500), rate=0.3).double().train()
    inputs, hidden = torch.randn(4, 1, SIZE).double(), torch.randn(4, 500).double()
    outputs, _ = layer(inputs, hidden)
    kept = outputs[:, 0] == hidden
    assert 0.25 < kept.double().mean() < 0.35
    assert_same(outputs[:, 0][~kept], layer.layer(inputs, hidden)[0][:, 0][~kept])


def test_variational_noise_is_around_the_layer_and_as_wide_as_it_says() -> None:
    torch.manual_seed(0)
    layer = Variational(MGU(SIZE, 20), rate=0.0, deviation=0.2).double().train()
    inputs, hidden = torch.randn(1, 1, SIZE).double(), torch.randn(1, 20).double()
    outputs, _ = layer(inputs.expand(4000, -1, -1), hidden.expand(4000, -1))
    mean, _ = layer.layer(inputs, hidden)
    torch.testing.assert_close(outputs.mean(0), mean[0], atol=0.02, rtol=0)
    torch.testing.assert_close(outputs.std(0), torch.full_like(mean[0], 0.2), atol=0.02, rtol=0)


def test_the_penalty_is_the_divergence_from_a_standard_normal() -> None:
    torch.manual_seed(0)
    layer = Variational(MGU(SIZE, 5), weight=1.0, deviation=0.5)
    mean, deviation = torch.tensor([0.0, 0.5, -0.8, 0.2, 1.0]), 0.5
    penalty = layer.penalty(mean + deviation * torch.randn(20000, 1, 5))
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mean, deviation), normal(0.0, 1.0)).mean()
    torch.testing.assert_close(penalty.mean(), expected, atol=0.01, rtol=0)


def test_variational_dropout_is_the_same_in_all_steps() -> None:
    """With gates and candidates that see the inputs alone, a dropped input is missing from every step."""
    layer = Variational(GRU(SIZE, 6), rate=0.5, deviation=1e-9).double().train()
    with torch.no_grad():
        layer.layer.rnn.all_weights[0][1].zero_()
    inputs = torch.randn(1, 30, SIZE).double().requires_grad_()
    layer(inputs, layer.initial_state(1))[0].sum().backward()
    seen = inputs.grad[0] != 0  # (T, D)
    assert (seen == seen[0]).all() and 0 < seen[0].sum() < SIZE


# Inside of a model


@torch.inference_mode()
@pytest.mark.parametrize("steps", [[1], [2, 5, 1], [9]])
def test_any_chunking_gives_the_offline_log_probs(model: CtcModel, steps: list[int]) -> None:
    audio, lengths = batch(signal(1.31, 1), signal(0.9, 2))
    offline, _ = model.offline(audio, lengths)
    torch.testing.assert_close(in_chunks(model, audio, steps), offline, atol=1e-4, rtol=0)


@torch.inference_mode()
def test_a_stream_is_unaffected_by_its_neighbours_and_its_padding(model: CtcModel) -> None:
    signals = [signal(1.2, 4), signal(0.4, 5), signal(0.8, 6)]
    together, frames = model.offline(*batch(*signals))
    for row, samples in enumerate(signals):
        alone, _ = model.offline(*batch(samples))
        torch.testing.assert_close(together[row, : frames[row]], alone[0], atol=1e-4, rtol=0)


def test_a_model_trains_in_every_parameter(model: CtcModel) -> None:
    model.train()
    log_probs, frames = model.offline(*batch(signal(1.0, 12), signal(0.8, 13)))
    targets, two = torch.tensor([[2, 3], [4, 5]]), torch.tensor([2, 2])
    torch.nn.functional.ctc_loss(log_probs.transpose(0, 1), targets, frames, two).backward()
    for name, parameter in ((n, p) for n, p in model.named_parameters() if p.numel()):
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_a_bundle_comes_back_and_streams_with_torch(
    model: CtcModel, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    save_bundle(tmp_path, Bundle(model, tokenizer))
    whole, pieces = (StreamingRecognizer(load_bundle(tmp_path), vad=None) for _ in range(2))
    samples = signal(1.0, 3)
    whole.accept(samples)
    for start in range(0, len(samples), 1777):
        pieces.accept(samples[start : start + 1777])
    assert whole.finish().text == pieces.finish().text
    args = parse(["--model", str(tmp_path), "-"])
    assert recogniser_options(args, load_bundle(tmp_path)).bundle.model.packed is None
    with pytest.raises(UserError, match=f"not for {model.config.encoder.cell} behind glu; .*--packing torch"):
        Packed(model, "f32")


# What is refused


def test_a_cell_that_there_is_not_is_refused_by_name(tokenizer: Tokenizer) -> None:
    encoder = EncoderConfig((8, 12), width=16, hidden=16, lookahead=(0,), cell="gnu")
    with pytest.raises(UserError, match=r"encoder\.cell: 'gnu'.*mgu, gru, lstm"):
        tiny_model(encoder, 7)
    with pytest.raises(UserError, match="reset_gate"):
        tiny_model(replace(encoder, cell="gru", reset_gate=False), 7)
    with pytest.raises(UserError, match="multiples of 8, not 16 and 20"):
        tiny_model(replace(encoder, cell="conv_gru", hidden=20), 7)
