"""Long short-term memory, torch's own, and its hybrid with the GRU."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from asr.cells import initial
from asr.cells.scan import scan


class LSTMState(NamedTuple):
    hidden: Tensor  # (B, H)
    cell: Tensor  # (B, H)


class LSTM(nn.Module):
    """
        i  = sigmoid(W_ii x + b_ii + W_hi h + b_hi)
        f  = sigmoid(W_if x + b_if + W_hf h + b_hf)
        n  = tanh(W_in x + b_in + W_hn h + b_hn)
        o  = sigmoid(W_io x + b_io + W_ho h + b_ho)
        c' = f * c + i * n
        h' = o * tanh(c')

    f keeps the old cell. Source: Hochreiter & Schmidhuber 1997 with the forget gate of Gers et al. 2000, in
    the form of `torch.nn.LSTM`.
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.rnn = nn.LSTM(inputs, hidden, batch_first=True)
        initial.of_torch(self.rnn, keeps=1)

    def initial_state(self, batch_size: int) -> LSTMState:
        zeros = self.rnn.all_weights[0][0].new_zeros(batch_size, self.rnn.hidden_size)
        return LSTMState(zeros, zeros.clone())

    def forward(self, inputs: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        """inputs (B, T, D) -> outputs (B, T, H), final state."""
        outputs, (hidden, cell) = self.rnn(inputs, (state.hidden.unsqueeze(0), state.cell.unsqueeze(0)))
        return outputs, LSTMState(hidden.squeeze(0), cell.squeeze(0))


class CoupledLSTM(nn.Module):
    """The hybrid: an LSTM that, as a GRU, has one gate for what to keep and what to take in.

        f  = sigmoid(W_if x + b_if + W_hf h)
        n  = tanh(W_in x + b_in + W_hn h)
        o  = sigmoid(W_io x + b_io + W_ho h)
        c' = f * c + (1 - f) * n
        h' = o * tanh(c')

    f keeps the old cell. Source: Greff et al. 2015 (arXiv 1503.04069), the variant with coupled input and
    forget gates, without peepholes.
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.weight_ih = initial.inputs(3 * hidden, inputs)
        self.weight_hh = initial.recurrent(3, hidden)
        self.bias = initial.bias(3, hidden, keeps=0)

    def initial_state(self, batch_size: int) -> LSTMState:
        zeros = self.weight_hh.new_zeros(batch_size, self.hidden)
        return LSTMState(zeros, zeros.clone())

    def forward(self, inputs: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        """inputs (B, T, D) -> outputs (B, T, H), final state."""
        projection = linear(inputs, self.weight_ih)
        outputs, final = scan(_step, projection, state, self.weight_hh, self.bias)
        return outputs, LSTMState(*final)


def _step(inputs: Tensor, product: Tensor, _: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    f, n, o = (inputs + product).chunk(3, -1)
    cell = torch.lerp(n.tanh(), cell, f.sigmoid())
    return o.sigmoid() * cell.tanh(), cell
