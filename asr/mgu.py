"""The minimal gated unit as a layer: its parameters and its equation. The recurrence itself is in `asr.ops`.

B batch, T time, D input features, H hidden units.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from asr import ops


class MGU(nn.Module):
    """One layer of minimal gated units, with the semantics of Flax's `MGUCell`.

        f  = sigmoid(W_if x + b_if + W_hf h)
        n  = tanh(W_in x + b_in + f * (W_hn h + b_hn))      reset_gate=True
        n  = tanh(W_in x + b_in + W_hn h)                   reset_gate=False (no b_hn)
        h' = (1 - f) * n + f * h

    f keeps the old state. Source: Zhou et al. 2016 (arXiv 1603.09420), in the form of flax.linen.MGUCell,
    which gates after the recurrent product and so needs one product a step.
    """

    def __init__(
        self, inputs: int, hidden: int, reset_gate: bool = True, backend: ops.Backend = "auto"
    ) -> None:
        super().__init__()
        self.inputs, self.hidden, self.backend = inputs, hidden, backend
        self.weight_ih = nn.Parameter(torch.empty(2 * hidden, inputs))  # rows: f, then n
        self.weight_hh = nn.Parameter(torch.empty(2 * hidden, hidden))
        self.bias = nn.Parameter(torch.empty(2 * hidden))
        self.bias_hn = nn.Parameter(torch.empty(hidden)) if reset_gate else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Lecun-normal input weights, orthogonal recurrent weights, forget bias one, other biases zero."""
        if self.weight_hh.is_meta:  # where there are no numbers, orthogonal_ takes a second to do nothing
            return
        nn.init.trunc_normal_(self.weight_ih, std=1 / math.sqrt(self.inputs))
        for gate in self.weight_hh.chunk(2):
            nn.init.orthogonal_(gate)
        nn.init.zeros_(self.bias)
        nn.init.ones_(self.bias[: self.hidden])
        if self.bias_hn is not None:
            nn.init.zeros_(self.bias_hn)

    def initial_state(self, batch_size: int) -> Tensor:
        return self.weight_hh.new_zeros(batch_size, self.hidden)

    def forward(self, inputs: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """inputs (B, T, D), hidden (B, H) -> outputs (B, T, H), final hidden (B, H)."""
        return ops.mgu(
            inputs, hidden, self.weight_ih, self.weight_hh, self.bias, self.bias_hn, backend=self.backend
        )

    def extra_repr(self) -> str:
        return (
            f"{self.inputs}, {self.hidden}, reset_gate={self.bias_hn is not None}, backend={self.backend!r}"
        )
