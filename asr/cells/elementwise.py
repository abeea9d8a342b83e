"""The MGU and the GRU in the form of `asr.cells.scan`, for what changes a step and not its products."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear

from asr.cells import gru
from asr.cells.gru import GRU
from asr.cells.scan import Step
from asr.mgu import MGU


class Elementwise(NamedTuple):
    inputs: Tensor  # (B, T, G * H)
    step: Step
    weight: Tensor  # (P * H, H)
    bias: Tensor  # (P * H,)


def elementwise(layer: MGU | GRU, inputs: Tensor) -> Elementwise:
    """A layer, an MGU with the reset gate, and inputs (B, T, D) -> its equation as `scan` takes it."""
    if isinstance(layer, GRU):
        weight_ih, weight_hh, bias_ih, bias_hh = layer.rnn.all_weights[0]
        return Elementwise(linear(inputs, weight_ih, bias_ih), gru.step, weight_hh, bias_hh)
    assert layer.bias_hn is not None
    projection = linear(inputs, layer.weight_ih, layer.bias)
    bias = torch.cat([torch.zeros_like(layer.bias_hn), layer.bias_hn])
    return Elementwise(projection, _mgu_step, layer.weight_hh, bias)


def _mgu_step(inputs: Tensor, product: Tensor, hidden: Tensor) -> tuple[Tensor]:
    input_f, input_n = inputs.chunk(2, -1)
    product_f, product_n = product.chunk(2, -1)
    f = torch.sigmoid(input_f + product_f)
    return (torch.lerp(torch.tanh(input_n + f * product_n), hidden, f),)
