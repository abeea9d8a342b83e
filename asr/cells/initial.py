"""How a layer's weights begin: as the MGU's do."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def inputs(rows: int, features: int) -> nn.Parameter:
    """(rows, features), Lecun-normal."""
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(rows, features), std=1 / math.sqrt(features)))


def recurrent(gates: int, hidden: int) -> nn.Parameter:
    """(gates * H, H), orthogonal gate by gate."""
    return nn.Parameter(torch.cat([nn.init.orthogonal_(torch.empty(hidden, hidden)) for _ in range(gates)]))


def bias(gates: int, hidden: int, keeps: int) -> nn.Parameter:
    """(gates * H,): one for the gate `keeps`, which keeps the old state, zero for the others."""
    values: Tensor = torch.zeros(gates, hidden)
    values[keeps] = 1.0
    return nn.Parameter(values.flatten())


@torch.no_grad()
def of_torch(layer: nn.GRU | nn.LSTM, keeps: int) -> None:
    """Begin torch's own layer so; of its two biases the second is zero."""
    weight_ih, weight_hh, bias_ih, bias_hh = layer.all_weights[0]
    gates = len(weight_ih) // layer.hidden_size
    weight_ih.copy_(inputs(*weight_ih.shape))
    weight_hh.copy_(recurrent(gates, layer.hidden_size))
    bias_ih.copy_(bias(gates, layer.hidden_size, keeps))
    bias_hh.zero_()
