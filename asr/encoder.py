"""The encoder: gated strided convolutions, then residual blocks of minimal gated units with lookahead.

B batch, T time, M mel bands, C channels, H hidden units. Every layer takes its carried left context,
computes, and returns the new one: offline is one long chunk from the zero state. Lookahead is a delay: a
layer that sees r frames ahead puts out, at step t, what belongs to frame t - r.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from asr import ops
from asr.mgu import MGU


@dataclass(frozen=True)
class EncoderConfig:
    """channels: one causal stride-2 convolution each, so 2 entries are 4x subsampling and 3 are 8x.
    width: of the residual stream. hidden: of each MGU; where it differs from width, a projection follows.
    lookahead: frames that each block sees ahead; its length is the number of blocks.
    """

    channels: tuple[int, ...] = (192, 256)
    kernel: int = 5
    gate: Literal["glu", "gtu"] = "glu"
    width: int = 384
    hidden: int = 384
    lookahead: tuple[int, ...] = (0, 0, 2, 2, 2)
    reset_gate: bool = True
    dropout: float = 0.1


class BlockState(NamedTuple):
    lookahead: Tensor  # (B, r, C), the frames whose future has not been seen yet
    hidden: Tensor  # (B, H)


class EncoderState(NamedTuple):
    convolutions: tuple[Tensor, ...]  # (B, kernel - 2, C) each, the left context
    blocks: tuple[BlockState, ...]


class GatedConvolution(nn.Module):
    """Causal convolution of stride 2 with a gated linear or gated tanh unit (arXiv 1612.08083)."""

    def __init__(self, inputs: int, channels: int, kernel: int, gate: str) -> None:
        super().__init__()
        self.inputs, self.context, self.gate = inputs, kernel - 2, gate
        self.convolution = nn.Conv1d(inputs, 2 * channels, kernel, stride=2)
        self.norm = nn.RMSNorm(channels)

    def initial_state(self, batch_size: int) -> Tensor:
        return self.convolution.weight.new_zeros(batch_size, self.context, self.inputs)

    def forward(self, frames: Tensor, tail: Tensor) -> tuple[Tensor, Tensor]:
        """frames (B, T, C), T even -> (B, T / 2, C'), new tail."""
        frames = torch.cat([tail, frames], 1)
        value, gate = self.convolution(frames.transpose(1, 2)).transpose(1, 2).chunk(2, -1)
        value = value.tanh() if self.gate == "gtu" else value
        return self.norm(value * gate.sigmoid()), frames[:, frames.size(1) - self.context :]


class Lookahead(nn.Module):
    """y[t - r] = x[t - r] + sum_j w[j] * x[t - r + j], j = 1..r: a delay of r frames, in which each channel
    takes from its own future (the context of mGRUIP-Ctx, arXiv 1805.07024, as a depthwise convolution)."""

    def __init__(self, channels: int, frames: int) -> None:
        super().__init__()
        self.frames = frames
        self.weight = nn.Parameter(torch.zeros(frames, channels))

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


class Block(nn.Module):
    """x + dropout(project(MGU(RMSNorm(x)))), after the block's lookahead."""

    def __init__(self, config: EncoderConfig, lookahead: int, backend: ops.Backend) -> None:
        super().__init__()
        self.lookahead = Lookahead(config.width, lookahead)
        self.norm = nn.RMSNorm(config.width)
        self.mgu = MGU(config.width, config.hidden, config.reset_gate, backend)
        same = config.hidden == config.width
        self.projection = nn.Identity() if same else nn.Linear(config.hidden, config.width)
        self.dropout = nn.Dropout(config.dropout)

    def initial_state(self, batch_size: int) -> BlockState:
        zeros = self.norm.weight.new_zeros
        return BlockState(
            zeros(batch_size, self.lookahead.frames, self.mgu.inputs), zeros(batch_size, self.mgu.hidden)
        )

    def forward(self, frames: Tensor, state: BlockState) -> tuple[Tensor, BlockState]:
        """frames (B, T, C) -> (B, T, C) delayed by the block's lookahead."""
        frames, waiting = self.lookahead(frames, state.lookahead)
        outputs, hidden = self.mgu(self.norm(frames), state.hidden)
        return frames + self.dropout(self.projection(outputs)), BlockState(waiting, hidden)


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
        self.input = nn.Linear(config.channels[-1], config.width)
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
