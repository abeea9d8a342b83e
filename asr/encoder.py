"""The encoder: gated strided convolutions, then residual blocks of minimal gated units with lookahead.

B batch, T time, M mel bands, C channels, H hidden units. Every layer takes its carried left context,
computes, and returns the new one: offline is one long chunk from the zero state. Lookahead is a delay: a
layer that sees r frames ahead puts out, at step t, what belongs to frame t - r.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from asr import ops, steady
from asr.errors import UserError
from asr.mgu import MGU

Gate = Literal["glu", "gtu", "tanh", "relu"]


@dataclass(frozen=True)
class EncoderConfig:
    """channels: one causal stride-2 convolution each, so 2 entries are 4x subsampling and 3 are 8x.
    gate: what each channel is made with: gated by another (glu, gtu), or without a gate (tanh, relu).
    width: of the residual stream. hidden: of each MGU; where it differs from width, a projection follows.
    lookahead: frames that each block sees ahead; its length is the number of blocks.
    cell: another recurrent layer than the MGU, one of `asr.cells`.
    """

    channels: tuple[int, ...] = (192, 256)
    kernel: int = 5
    gate: Gate = "glu"
    width: int = 384
    hidden: int = 384
    lookahead: tuple[int, ...] = (0, 0, 2, 2, 2)
    reset_gate: bool = True
    dropout: float = 0.1
    cell: str = "mgu"


class BlockState(NamedTuple):
    lookahead: Tensor  # (B, r, C), the frames whose future has not been seen yet
    hidden: Any  # of the recurrent layer; of the MGU (B, H)


class EncoderState(NamedTuple):
    convolutions: tuple[Tensor, ...]  # (B, kernel - 2, C) each, the left context
    blocks: tuple[BlockState, ...]


class GatedConvolution(nn.Module):
    """Causal convolution of stride 2, and a unit (arXiv 1612.08083) that makes its C channels of U or V:

    glu   U * sigmoid(V)            gated linear unit
    gtu   tanh(U) * sigmoid(V)      gated tanh unit
    tanh  tanh(U)                   no gate, and half of the convolution
    relu  max(U, 0)
    """

    def __init__(self, inputs: int, channels: int, kernel: int, gate: Gate) -> None:
        super().__init__()
        self.inputs, self.context, self.gate = inputs, kernel - 2, gate
        parts = 2 if gate in ("glu", "gtu") else 1
        self.convolution = steady.Conv1d(inputs, parts * channels, kernel, stride=2)
        self.norm = nn.RMSNorm(channels)

    def initial_state(self, batch_size: int) -> Tensor:
        return self.convolution.weight.new_zeros(batch_size, self.context, self.inputs)

    def forward(self, frames: Tensor, tail: Tensor) -> tuple[Tensor, Tensor]:
        """frames (B, T, C), T even -> (B, T / 2, C'), new tail."""
        frames = torch.cat([tail, frames], 1)
        channels = self._unit(self.convolution(frames.transpose(1, 2)).transpose(1, 2))
        return self.norm(channels), frames[:, frames.size(1) - self.context :]

    def _unit(self, parts: Tensor) -> Tensor:
        if self.gate == "relu":
            return parts.relu()
        if self.gate == "tanh":
            return parts.tanh()
        value, gate = parts.chunk(2, -1)
        return (value.tanh() if self.gate == "gtu" else value) * gate.sigmoid()


class Lookahead(nn.Module):
    """y[t - r] = x[t - r] + sum_j w[j] * x[t - r + j], j = 1..r: a delay of r frames, in which each channel
    takes from its own future (the context of mGRUIP-Ctx, arXiv 1805.07024, as a depthwise convolution).

    The weights do not begin at zero: nothing is waiting before the first frame, so that y[0..r - 1] would be
    exactly zero in every block, and an RMSNorm's gradient there is a thousandfold, a block.
    """

    def __init__(self, channels: int, frames: int) -> None:
        super().__init__()
        self.frames = frames
        self.weight = nn.Parameter(torch.full((frames, channels), 0.1))

    def forward(self, frames: Tensor, waiting: Tensor) -> tuple[Tensor, Tensor]:
        """frames (B, T, C), waiting (B, r, C) -> (B, T, C) delayed by r, new waiting."""
        if self.frames == 0:
            return frames, waiting
        length = frames.size(1)
        frames = torch.cat([waiting, frames], 1)
        output = frames[:, :length]
        for ahead, weight in enumerate(self.weight, start=1):
            output = output + weight * frames[:, ahead : ahead + length]
        return output, frames[:, length:]


def recurrent_layer(config: EncoderConfig, backend: ops.Backend) -> Any:
    """A module: inputs (B, T, D), state -> outputs (B, T, H), state; and `initial_state(batch_size)`."""
    if config.cell == "mgu":
        return MGU(config.width, config.hidden, config.reset_gate, backend)
    from asr.cells import make  # studied beside the MGU; who uses that does not load them

    if not config.reset_gate:
        raise UserError(f"encoder.reset_gate: is an option of the MGU, not of cell {config.cell}")
    return make(config.cell, config.width, config.hidden)


class Block(nn.Module):
    """x + dropout(project(MGU(RMSNorm(x)))), after the block's lookahead."""

    def __init__(self, config: EncoderConfig, lookahead: int, backend: ops.Backend) -> None:
        super().__init__()
        self.lookahead = Lookahead(config.width, lookahead)
        self.norm = nn.RMSNorm(config.width)
        self.mgu = recurrent_layer(config, backend)  # so it is called in bundles, whatever the cell
        same = config.hidden == config.width
        self.projection = nn.Identity() if same else steady.Linear(config.hidden, config.width)
        self.dropout = nn.Dropout1d(config.dropout)

    def initial_state(self, batch_size: int) -> BlockState:
        waiting = self.norm.weight.new_zeros(batch_size, *self.lookahead.weight.shape)
        return BlockState(waiting, self.mgu.initial_state(batch_size))

    def forward(self, frames: Tensor, state: BlockState) -> tuple[Tensor, BlockState]:
        """frames (B, T, C) -> (B, T, C) delayed by the block's lookahead."""
        frames, waiting = self.lookahead(frames, state.lookahead)
        outputs, hidden = self.mgu(self.norm(frames), state.hidden)
        kept = self.dropout(self.projection(outputs).mT).mT  # a channel is dropped for the whole utterance
        return frames + kept, BlockState(waiting, hidden)


class Encoder(nn.Module):
    """Features (B, T, M) -> (B, T / subsampling, width), delayed by `lookahead` frames of these."""

    convolutions: Sequence[GatedConvolution]
    blocks: Sequence[Block]

    def __init__(self, config: EncoderConfig, mels: int, backend: ops.Backend = "auto") -> None:
        super().__init__()
        self.config = config
        self.subsampling = 2 ** len(config.channels)
        self.lookahead = sum(config.lookahead)
        inputs = [mels, *config.channels[:-1]]
        self.convolutions = nn.ModuleList(  # type: ignore[assignment]
            GatedConvolution(size, channels, config.kernel, config.gate)
            for size, channels in zip(inputs, config.channels, strict=True)
        )
        self.input = steady.Linear(config.channels[-1], config.width)
        self.blocks = nn.ModuleList(  # type: ignore[assignment]
            Block(config, frames, backend) for frames in config.lookahead
        )
        self.norm = nn.RMSNorm(config.width)

    def initial_state(self, batch_size: int) -> EncoderState:
        return EncoderState(
            tuple(layer.initial_state(batch_size) for layer in self.convolutions),
            tuple(block.initial_state(batch_size) for block in self.blocks),
        )

    def forward(self, features: Tensor, state: EncoderState) -> tuple[Tensor, EncoderState]:
        """T must be a multiple of `subsampling`."""
        convolutions, blocks = [], []
        for layer, tail in zip(self.convolutions, state.convolutions, strict=True):
            features, tail = layer(features, tail)
            convolutions.append(tail)
        frames = self.input(features)
        for block, carried in zip(self.blocks, state.blocks, strict=True):
            frames, carried = block(frames, carried)
            blocks.append(carried)
        return self.norm(frames), EncoderState(tuple(convolutions), tuple(blocks))
