"""The minimal GRU whose gate does not see the state: a scan in parallel over time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

from asr.cells import initial


class MinGRU(nn.Module):
    """
        z  = sigmoid(W_z x + b_z)
        n  = W_n x + b_n
        h' = (1 - z) * n + z * h

    z keeps the old state (in the source 1 - z does). Source: Feng et al. 2024 (arXiv 2410.01201). Nothing
    but the sum needs the old state, so that all T are computed by operations on whole sequences, a few for
    each doubling of T; a step of a stream is the scan of one frame.
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.weight = initial.inputs(2 * hidden, inputs)
        self.bias = initial.bias(2, hidden, keeps=0)

    def initial_state(self, batch_size: int) -> Tensor:
        return self.weight.new_zeros(batch_size, self.hidden)

    def forward(self, inputs: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """inputs (B, T, D), hidden (B, H) -> outputs (B, T, H), final hidden (B, H)."""
        z, n = linear(inputs, self.weight, self.bias).to(hidden.dtype).transpose(0, 1).chunk(2, -1)
        z = z.sigmoid()
        outputs = _LinearScan.apply(z, n - z * n, hidden)
        return outputs.transpose(0, 1), outputs[-1]


class _LinearScan(torch.autograd.Function):
    """h_t = factors_t * h_{t-1} + terms_t: (T, B, H) both, first (B, H) -> all h (T, B, H)."""

    @staticmethod
    def forward(ctx: Any, factors: Tensor, terms: Tensor, first: Tensor) -> Tensor:
        terms = torch.cat([torch.addcmul(terms[:1], factors[:1], first), terms[1:]])
        states = _scan(factors, terms)
        ctx.save_for_backward(factors, states, first)
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        factors, states, first = ctx.saved_tensors
        # what reaches h_t: its own gradient, and by the next factor what reaches h_{t+1}; a scan from the end
        grad = _scan(factors.roll(-1, 0).flip(0), grad_states.flip(0)).flip(0)
        before = torch.cat([first.unsqueeze(0), states[:-1]])
        return grad * before, grad, grad[0] * factors[0]


def _scan(factors: Tensor, terms: Tensor) -> Tensor:
    """From the zero state. Two steps are a step; the scan of these pairs gives every second state, and these
    give the others."""
    time = len(terms)
    if time < 2:
        return terms
    paired = time // 2 * 2
    second = factors[1:paired:2]
    pairs = _scan(second * factors[:paired:2], torch.addcmul(terms[1:paired:2], second, terms[:paired:2]))
    states = torch.empty_like(terms)
    states[:1] = terms[:1]
    states[1::2] = pairs
    states[2::2] = torch.addcmul(terms[2::2], factors[2::2], pairs[: (time - 1) // 2])
    return states
