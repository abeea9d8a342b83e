"""A noisy state, which the loss pays to make quieter: variational noise and variational dropout."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout

from asr.cells.elementwise import elementwise
from asr.cells.gru import GRU
from asr.cells.scan import scan
from asr.mgu import MGU


class Variational(nn.Module):
    """
        h' = layer(a * x, h) + exp(s) * e       the layer's products with b * h in the place of h

    e is standard normal noise, drawn for each unit in each step; s (H,) is learned. a (D,) and b (H,) are
    dropout masks, divided by their mean, drawn once for each sequence: variational dropout (Gal & Ghahramani
    2015, arXiv 1512.05287). In evaluation there is neither noise nor dropout.

    With the noise a state is drawn from q = N(layer, exp(2 s)), and the loss pays `weight` times
    KL(q || N(0, 1)) in nats, the mean over units and frames (`penalty`), as the variational information
    bottleneck does (Alemi et al. 2016, arXiv 1612.00410): else s would fall until there is no noise.
    """

    def __init__(
        self, layer: MGU | GRU, rate: float = 0.1, weight: float = 0.01, deviation: float = 0.1
    ) -> None:
        super().__init__()
        self.layer, self.rate, self.weight = layer, rate, weight
        units = layer.initial_state(1).size(1)
        self.log_deviation = nn.Parameter(torch.full((units,), math.log(deviation)))

    def initial_state(self, batch_size: int) -> Tensor:
        return self.layer.initial_state(batch_size)

    def forward(self, inputs: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """inputs (B, T, D), hidden (B, H) -> outputs (B, T, H), final hidden (B, H)."""
        if not self.training:
            return self.layer(inputs, hidden)
        masks = inputs.new_ones(len(inputs), 1, inputs.size(-1))
        cell = elementwise(self.layer, inputs * dropout(masks, self.rate))
        noise = self.log_deviation.exp() * hidden.new_empty(*inputs.shape[:2], hidden.size(1)).normal_()

        def step(inputs: Tensor, product: Tensor, hidden: Tensor) -> tuple[Tensor]:
            own, noise = inputs.tensor_split([-hidden.size(-1)], -1)
            (mean,) = cell.step(own, product, hidden)
            return (mean + noise,)

        together = torch.cat([cell.inputs.to(noise.dtype), noise], -1)
        visible = dropout(torch.ones_like(hidden), self.rate)
        outputs, (final,) = scan(step, together, (hidden,), cell.weight, cell.bias, visible)
        return outputs, final

    def penalty(self, outputs: Tensor) -> Tensor:
        """Of the outputs (B, T, H) of a call in training, nats to be added to the loss of each frame (B, T).

        KL(N(m, d^2) || N(0, 1)) = (m^2 + d^2 - 1) / 2 - ln d, and the mean of m^2 + d^2 is that of outputs^2.
        """
        divergence = (outputs.square() - 1) / 2 - self.log_deviation
        return self.weight * divergence.mean(-1)

    def extra_repr(self) -> str:
        return f"rate={self.rate}, weight={self.weight}"
