"""The GRU whose products are convolutions over frequency."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from asr.cells import initial
from asr.errors import UserError

BANDS = 8
KERNEL = 3


class ConvGRU(nn.Module):
    """
        r  = sigmoid(W_ir * x + b_ir + W_hr * h)
        z  = sigmoid(W_iz * x + b_iz + W_hz * h)
        n  = tanh(W_in * x + b_in + W_hn * (r . h))
        h' = (1 - z) . n + z . h

    * is a convolution over 3 of 8 bands of frequency, . the product of elements; z keeps the old state. D
    inputs are D / 8 channels a band, H units H / 8; what a band of the inputs is, the layers before learn.
    Source: Ballas et al. 2015 (arXiv 1511.06432), there over the two dimensions of a picture.
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        if inputs % BANDS or hidden % BANDS:
            raise UserError(
                f"encoder.width, hidden: conv_gru needs multiples of {BANDS}, not {inputs} and {hidden}"
            )
        channels, self.channels = inputs // BANDS, hidden // BANDS
        self.weight_ih = initial.inputs(
            3 * self.channels, KERNEL * channels
        )  # columns: a band's taps, low to high
        self.weight_hh = initial.inputs(3 * self.channels, KERNEL * self.channels)
        self.bias = initial.bias(3, self.channels, keeps=1)

    def initial_state(self, batch_size: int) -> Tensor:
        return self.weight_hh.new_zeros(batch_size, BANDS, self.channels)

    def forward(self, inputs: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """inputs (B, T, D), hidden (B, 8, H / 8) -> outputs (B, T, H), final hidden."""
        windows = _windows(inputs.transpose(0, 1).unflatten(-1, (BANDS, -1)))
        projection = linear(windows, self.weight_ih, self.bias).to(hidden.dtype)  # (T, B, 8, 3 * H / 8)
        gates, candidates = projection.split([2 * self.channels, self.channels], -1)
        weight_gates, weight_n = self.weight_hh.split([2 * self.channels, self.channels])
        outputs = []
        for gate, candidate in zip(gates.unbind(0), candidates.unbind(0), strict=True):
            r, z = (gate + linear(_windows(hidden), weight_gates)).sigmoid().chunk(2, -1)
            n = (candidate + linear(_windows(r * hidden), weight_n)).tanh()
            hidden = torch.lerp(n, hidden, z)
            outputs.append(hidden.flatten(1))
        return torch.stack(outputs, 1), hidden


def _windows(values: Tensor) -> Tensor:
    """(..., bands, C) -> (..., bands, 3 * C): each band between its neighbours, zeros beyond the ends."""
    padded = pad(values, (0, 0, 1, 1))
    return torch.cat([padded[..., :-2, :], values, padded[..., 2:, :]], -1)
