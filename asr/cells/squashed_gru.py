"""The GRU as surveys of the family also write it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from asr.cells import initial


class SquashedGRU(nn.Module):
    """
        r  = sigmoid(W_ir x + b_ir + W_hr h)
        z  = sigmoid(W_iz x + b_iz + W_hz h)
        n  = tanh(W_in x + b_in + W_hn (r * h))
        c' = (1 - z) * n + z * c
        h' = tanh(c')

    z keeps the old c, which is the state; h = tanh(c) is what is put out. The reset comes before the product,
    as in Cho et al. 2014 (arXiv 1406.1078), so a step is two products, one after the other.
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.weight_ih = initial.inputs(3 * hidden, inputs)
        self.weight_hh = initial.recurrent(3, hidden)
        self.bias = initial.bias(3, hidden, keeps=1)

    def initial_state(self, batch_size: int) -> Tensor:
        return self.weight_hh.new_zeros(batch_size, self.hidden)

    def forward(self, inputs: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """inputs (B, T, D), c (B, H) -> outputs (B, T, H), final c (B, H)."""
        size = self.hidden
        projection = linear(inputs, self.weight_ih, self.bias).to(cell.dtype)
        gates, candidates = projection.transpose(0, 1).split([2 * size, size], -1)
        weight_gates, weight_n = self.weight_hh.T.split([2 * size, size], 1)
        hidden, outputs = cell.tanh(), []
        for gate, candidate in zip(gates.unbind(0), candidates.unbind(0), strict=True):
            r, z = torch.addmm(gate, hidden, weight_gates).sigmoid().chunk(2, -1)
            n = torch.addmm(candidate, r * hidden, weight_n).tanh()
            cell = torch.lerp(n, cell, z)
            hidden = cell.tanh()
            outputs.append(hidden)
        return torch.stack(outputs, 1), cell
