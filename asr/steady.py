"""Layers whose sizes come in steps while training on a CPU.

oneDNN compiles a program for every size that it meets and keeps the last thousand. Hardly two batches of
utterances have the same size, so that a training would compile all the while, and its memory would come to be
littered with old programs: tensors of 10 MB have to find a hole between them. After 1200 steps of en-small in
bfloat16 a ninth of the time went into looking for one. N rows, C channels, T time.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import pad

ROWS = 64  # of a product's inputs, a hundredth of a batch on average; frames that a convolution puts out


class Linear(nn.Linear):
    def forward(self, inputs: Tensor) -> Tensor:
        """inputs (..., C) -> (..., C')."""
        if not _steps(self, inputs):
            return super().forward(inputs)
        rows = inputs.flatten(0, -2)  # (N, C)
        more = -len(rows) % ROWS
        return super().forward(pad(rows, [0, 0, 0, more]))[: len(rows)].view(*inputs.shape[:-1], -1)


class Conv1d(nn.Conv1d):
    """Without padding and dilation.

    Its windows use up all of the inputs: of others oneDNN reads past the end for the weight's gradient in
    bfloat16, and what it finds there, times zero, can be NaN (torch 2.11, AMX).
    """

    def forward(self, inputs: Tensor) -> Tensor:
        """inputs (B, C, T) -> (B, C', T')."""
        if not _steps(self, inputs):
            return super().forward(inputs)
        kernel, stride = self.kernel_size[0], self.stride[0]
        length = (inputs.size(-1) - kernel) // stride + 1
        used = (length + -length % ROWS - 1) * stride + kernel
        return super().forward(pad(inputs, [0, used - inputs.size(-1)]))[..., :length]


def _steps(layer: nn.Module, inputs: Tensor) -> bool:
    return layer.training and inputs.device.type == "cpu"
