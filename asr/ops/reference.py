"""The MGU recurrence as a plain loop: the specification that every other back-end has to match.

Legend: `B` batch, `T` time, `D` input features, `H` hidden units. Knows nothing about layers or streams.
"""

import torch
from torch import Tensor


def mgu(
    inputs: Tensor,  # (B, T, D)
    hidden: Tensor,  # (B, H)
    weight_ih: Tensor,  # (2H, D), rows 0..H are f, rows H..2H are n
    weight_hh: Tensor,  # (2H, H)
    bias: Tensor,  # (2H,)
    bias_hn: Tensor | None,  # (H,); None: no reset gate
) -> tuple[Tensor, Tensor]:
    """All hidden states (B, T, H) and the last one (B, H), `hidden` itself when T is 0.

        f  = sigmoid(W_if x + b_if + W_hf h)
        n  = tanh(W_in x + b_in + f * (W_hn h + b_hn))      with the reset gate
        n  = tanh(W_in x + b_in + W_hn h)                   without it
        h' = (1 - f) * n + f * h

    The semantics of Flax's `MGUCell` (flax/linen/recurrent.py).
    """
    projection = inputs @ weight_ih.T + bias  # (B, T, 2H), one product for all T
    outputs = []
    # unbind, and not projection[:, t]: the backward of indexing writes a zero (B, T, 2H) tensor every step.
    for step in projection.unbind(1):
        input_f, input_n = step.chunk(2, -1)
        recurrent_f, recurrent_n = (hidden @ weight_hh.T).chunk(2, -1)
        f = torch.sigmoid(input_f + recurrent_f)
        if bias_hn is not None:
            recurrent_n = f * (recurrent_n + bias_hn)
        n = torch.tanh(input_n + recurrent_n)
        hidden = (1 - f) * n + f * hidden
        outputs.append(hidden)
    if not outputs:
        return inputs.new_zeros(inputs.shape[0], 0, hidden.shape[1]), hidden
    return torch.stack(outputs, 1), hidden
