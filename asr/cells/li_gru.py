"""The light GRU."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, linear

from asr.cells import initial
from asr.cells.scan import scan


class LiGRU(nn.Module):
    """
        z  = sigmoid(norm(W_iz x) + W_hz h)
        n  = max(norm(W_in x) + W_hn h, 0)
        h' = (1 - z) * n + z * h

    z keeps the old state. Source: Ravanelli et al. 2018 (arXiv 1803.10225). There norm is batch
    normalisation, with which an utterance in training depends on its neighbours and their padding. Here it
    is layer normalisation of each frame's H values (arXiv 1607.06450), with gain and bias: a frame needs no
    other, so that a stream gives what the whole recording does, in training too. As in the source, only the
    inputs are normalised; that W_h is orthogonal at first keeps the state from growing without bound.
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.weight_ih = initial.inputs(2 * hidden, inputs)
        self.gain = nn.Parameter(torch.ones(2 * hidden))
        self.weight_hh = initial.recurrent(2, hidden)
        self.bias = initial.bias(2, hidden, keeps=0)

    def initial_state(self, batch_size: int) -> Tensor:
        return self.weight_hh.new_zeros(batch_size, self.hidden)

    def forward(self, inputs: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """inputs (B, T, D), hidden (B, H) -> outputs (B, T, H), final hidden (B, H)."""
        projection = linear(inputs, self.weight_ih).unflatten(-1, (2, self.hidden))
        normal = layer_norm(projection, (self.hidden,)).flatten(-2) * self.gain
        outputs, (final,) = scan(_step, normal, (hidden,), self.weight_hh, self.bias)
        return outputs, final


def _step(inputs: Tensor, product: Tensor, hidden: Tensor) -> tuple[Tensor]:
    z, n = (inputs + product).chunk(2, -1)
    return (torch.lerp(n.relu(), hidden, z.sigmoid()),)
