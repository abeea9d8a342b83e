"""The gated recurrent unit, torch's own."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from asr.cells import initial


class GRU(nn.Module):
    """
        r  = sigmoid(W_ir x + b_ir + W_hr h + b_hr)
        z  = sigmoid(W_iz x + b_iz + W_hz h + b_hz)
        n  = tanh(W_in x + b_in + r * (W_hn h + b_hn))
        h' = (1 - z) * n + z * h

    z keeps the old state. Source: Cho et al. 2014 (arXiv 1406.1078), in the form of cuDNN and `torch.nn.GRU`,
    whose reset comes after the product.
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.rnn = nn.GRU(inputs, hidden, batch_first=True)
        initial.of_torch(self.rnn, keeps=1)

    def initial_state(self, batch_size: int) -> Tensor:
        return self.rnn.all_weights[0][0].new_zeros(batch_size, self.rnn.hidden_size)

    def forward(self, inputs: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """inputs (B, T, D), hidden (B, H) -> outputs (B, T, H), final hidden (B, H)."""
        outputs, final = self.rnn(inputs, hidden.unsqueeze(0))
        return outputs, final.squeeze(0)

    def gates(self, inputs: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """inputs (B, T, D), the states before each (B, T, H) -> r and z, (B, T, H) both."""
        rows = 2 * self.rnn.hidden_size
        weight_ih, weight_hh, bias_ih, bias_hh = (each[:rows] for each in self.rnn.all_weights[0])
        by_inputs, by_states = linear(inputs, weight_ih, bias_ih), linear(before, weight_hh, bias_hh)
        r, z = (by_inputs + by_states).sigmoid().chunk(2, -1)
        return r, z


def step(inputs: Tensor, product: Tensor, hidden: Tensor) -> tuple[Tensor]:
    """The equation of `GRU`, for `asr.cells.scan`."""
    input_r, input_z, input_n = inputs.chunk(3, -1)
    product_r, product_z, product_n = product.chunk(3, -1)
    n = torch.tanh(input_n + torch.sigmoid(input_r + product_r) * product_n)
    return (torch.lerp(n, hidden, torch.sigmoid(input_z + product_z)),)
