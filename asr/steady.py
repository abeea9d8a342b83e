"""Layers whose sizes come in steps while training on a CPU.

oneDNN compiles a program for every size that it meets and keeps the last thousand. Hardly two batches of
utterances have the same size, so that a training would compile all the while, and its memory would come to be
littered with old programs: tensors of 10 MB have to find a hole between them. After 1200 steps of en-small in
bfloat16 a ninth of the time went into looking for one. N rows, C channels, T time.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import pad

ROWS = 64  # a hundredth of a batch on average
TIME = 128  # of convolutions, which compute little


def whole_steps(tensor: Tensor, dim: int, step: int) -> Tensor:
    """With zeros behind, up to a multiple of `step` along `dim`, which counts from the last."""
    return pad(tensor, [0, 0] * (-1 - dim) + [0, -tensor.size(dim) % step])


class Linear(nn.Linear):
    def forward(self, inputs: Tensor) -> Tensor:
        """inputs (..., C) -> (..., C')."""
        if not _steps(self, inputs):
            return super().forward(inputs)
        rows = inputs.flatten(0, -2)  # (N, C)
        return super().forward(whole_steps(rows, -2, ROWS))[: len(rows)].view(*inputs.shape[:-1], -1)


class Conv1d(nn.Conv1d):
    """Without padding and dilation."""

    def forward(self, inputs: Tensor) -> Tensor:
        """inputs (B, C, T) -> (B, C', T')."""
        if not _steps(self, inputs):
            return super().forward(inputs)
        length = (inputs.size(-1) - self.kernel_size[0]) // self.stride[0] + 1
        return super().forward(whole_steps(inputs, -1, TIME))[..., :length]


def _steps(layer: nn.Module, inputs: Tensor) -> bool:
    return layer.training and inputs.device.type == "cpu"
