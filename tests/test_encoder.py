"""Units of the front-end's convolutions, and how training begins; the other promises are in test_model.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import pytest
import torch
from torch import Tensor

from asr.encoder import Encoder, EncoderConfig, Gate, GatedConvolution

UNITS: dict[Gate, Callable[[Tensor, Tensor], Tensor]] = {
    "glu": lambda u, v: u * torch.sigmoid(v),
    "gtu": lambda u, v: torch.tanh(u) * torch.sigmoid(v),
    "tanh": lambda u, _: torch.tanh(u),
    "relu": lambda u, _: u.clamp(min=0),
}


@pytest.mark.parametrize("gate", get_args(Gate))
def test_a_channel_is_its_unit_of_the_convolution_normalised(gate: Gate) -> None:
    torch.manual_seed(0)
    layer = GatedConvolution(inputs=5, channels=6, kernel=4, gate=gate)
    frames = torch.randn(2, 8, 5)
    outputs, tail = layer(frames, layer.initial_state(2))
    window = torch.cat([torch.zeros(2, 2, 5), frames], 1)[:, 4:8]  # of output 2
    weight = layer.convolution.weight
    parts = torch.einsum("oik,bki->bo", weight, window) + layer.convolution.bias
    assert weight.size(0) == (12 if gate in ("glu", "gtu") else 6)
    unit = UNITS[gate](parts[:, :6], parts[:, -6:])
    torch.testing.assert_close(outputs[:, 2], unit / unit.square().mean(-1, keepdim=True).sqrt())
    assert torch.equal(tail, frames[:, -2:])


def test_gradients_of_random_weights_do_not_grow_from_block_to_block() -> None:
    """Before the first frame nothing is waiting, of which a norm makes a thousandfold of any difference."""
    torch.manual_seed(0)
    config = EncoderConfig(channels=(16, 32), width=64, hidden=64, lookahead=(1, 1, 0, 0, 2) * 3)
    encoder = Encoder(config, mels=20)
    outputs, _ = encoder(torch.randn(2, 160, 20), encoder.initial_state(2))
    (outputs[:, encoder.lookahead :] * torch.randn(64)).mean().backward()
    first, last = (encoder.blocks[block].mgu.bias.grad.norm() for block in (0, -1))
    assert 0 < last < first < 30 * last
