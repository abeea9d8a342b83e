"""Zoneout: units that at random stay as they are."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from asr.cells.elementwise import elementwise
from asr.cells.gru import GRU
from asr.cells.scan import scan
from asr.mgu import MGU


class Zoneout(nn.Module):
    """
        h' = m * h + (1 - m) * layer(x, h)

    In training each m is 1 with probability `rate`, else 0, drawn for each unit in each step; in evaluation
    m is `rate`, its mean. Source: Krueger et al. 2016 (arXiv 1606.01305).
    """

    def __init__(self, layer: MGU | GRU, rate: float = 0.1) -> None:
        super().__init__()
        self.layer, self.rate = layer, rate

    def initial_state(self, batch_size: int) -> Tensor:
        return self.layer.initial_state(batch_size)

    def forward(self, inputs: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """inputs (B, T, D), hidden (B, H) -> outputs (B, T, H), final hidden (B, H)."""
        cell = elementwise(self.layer, inputs)
        kept = hidden.new_full((*inputs.shape[:2], hidden.size(1)), self.rate)
        if self.training:
            kept = kept.bernoulli()

        def step(inputs: Tensor, product: Tensor, hidden: Tensor) -> tuple[Tensor]:
            own, kept = inputs.tensor_split([-hidden.size(-1)], -1)
            (changed,) = cell.step(own, product, hidden)
            return (torch.lerp(changed, hidden, kept),)

        together = torch.cat([cell.inputs.to(kept.dtype), kept], -1)
        outputs, (final,) = scan(step, together, (hidden,), cell.weight, cell.bias)
        return outputs, final

    def extra_repr(self) -> str:
        return f"rate={self.rate}"
