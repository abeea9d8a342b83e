"""The MGU recurrence as an exact tied GRU, which torch hands to cuDNN on a GPU.

A GRU (r, z, n; h' = (1 - z) n + z h) whose r and z share the MGU's f weights is the MGU with the reset gate.
With zero weights and a bias of +50 for r, whose sigmoid is then exactly 1.0, it is the MGU without. It costs
three recurrent products in the place of two.

Legend: `B` batch, `T` time, `D` input features, `H` hidden units.
"""

import torch
from torch import Tensor

OPEN = 50.0  # sigmoid(50) == 1.0, in float64 too


def mgu(
    inputs: Tensor, hidden: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor, bias_hn: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Same arguments and results as `asr.ops.reference.mgu`."""
    batch, time, _ = inputs.shape
    size = hidden.shape[1]
    if batch == 0 or time == 0:  # nn.GRU refuses both
        return inputs.new_zeros(batch, time, size), hidden
    weights = gru_weights(weight_ih, weight_hh, bias, bias_hn)
    outputs, final = torch.gru(
        inputs, hidden.unsqueeze(0).contiguous(), weights, True, 1, 0.0, torch.is_grad_enabled(), False, True
    )
    return outputs, final.squeeze(0)


def gru_weights(weight_ih: Tensor, weight_hh: Tensor, bias: Tensor, bias_hn: Tensor | None) -> list[Tensor]:
    """The parameters of `torch.nn.GRU`, in its order: (3H, D), (3H, H), (3H,), (3H,), gates r, z, n."""
    size = weight_hh.shape[1]
    zeros = bias.new_zeros(size)
    if bias_hn is None:
        parts_ih = [torch.zeros_like(weight_ih[:size]), weight_ih]
        parts_hh = [torch.zeros_like(weight_hh[:size]), weight_hh]
        parts_bias = [torch.full_like(zeros, OPEN), bias, zeros, zeros, zeros]
    else:
        parts_ih = [weight_ih[:size], weight_ih]
        parts_hh = [weight_hh[:size], weight_hh]
        parts_bias = [bias[:size], bias, zeros, zeros, bias_hn]
    # One buffer in cuDNN's order: scattered weights would be copied, with a warning, at every call.
    flat = torch.cat([part.reshape(-1) for part in parts_ih + parts_hh + parts_bias])
    shapes = [(3 * size, weight_ih.shape[1]), (3 * size, size), (3 * size,), (3 * size,)]
    pieces = flat.split([3 * size * weight_ih.shape[1], 3 * size * size, 3 * size, 3 * size])
    return [piece.view(shape) for piece, shape in zip(pieces, shapes, strict=True)]
