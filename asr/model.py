"""The CTC model: audio in, log-probabilities over tokens out, one forward path for offline and streaming.

A step is what the encoder makes one frame of, the smallest piece of a stream; each gives `outputs` frames of
log-probabilities, evenly over its duration. Outside of the encoder, a frame is one of these.

B batch, S samples, T frames of log-probabilities, V vocabulary with the CTC blank at 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from torch import Tensor, nn
from torch.nn.functional import pad

from asr import ops, steady
from asr.encoder import Encoder, EncoderConfig, EncoderState
from asr.errors import UserError
from asr.frontend import FrontEndConfig, FrontEndState, LogMel
from asr.state import pack, unpack

if TYPE_CHECKING:
    from asr.packed import Packed

Lengths = TypeVar("Lengths", int, Tensor)


@dataclass(frozen=True)
class ModelConfig:
    """outputs: distributions over the vocabulary a frame of the encoder, which phones can be shorter than."""

    vocabulary: int
    frontend: FrontEndConfig
    encoder: EncoderConfig
    outputs: int = 1


class ModelState(NamedTuple):
    frontend: FrontEndState
    encoder: EncoderState


class CtcModel(nn.Module):
    packed: Packed | None = None  # what computes it in inference on a CPU

    def __init__(self, config: ModelConfig, backend: ops.Backend = "auto") -> None:
        super().__init__()
        self.config = config
        self.frontend = LogMel(config.frontend)
        self.encoder = Encoder(config.encoder, config.frontend.mels, backend)
        self.head = steady.Linear(config.encoder.width, config.outputs * config.vocabulary)
        if config.outputs < 1 or self.step_samples % config.outputs:
            raise UserError(
                f"outputs: {config.outputs} do not divide a frame of the encoder, {self.step_samples} samples"
            )

    @property
    def step_samples(self) -> int:
        """Samples of audio a frame of the encoder: the smallest step of a stream."""
        return self.config.frontend.hop * self.encoder.subsampling

    @property
    def frame_samples(self) -> int:
        """Samples of audio a frame of log-probabilities."""
        return self.step_samples // self.config.outputs

    @property
    def frame_seconds(self) -> float:
        return self.frame_samples / self.config.frontend.rate

    @property
    def lookahead(self) -> int:
        """Frames by which the outputs lag: output t belongs to frame t - lookahead."""
        return self.encoder.lookahead * self.config.outputs

    @property
    def latency_ms(self) -> float:
        """Algorithmic latency: from the first sample of a step until its outputs can be computed."""
        return 1000 * self.step_samples * (1 + self.encoder.lookahead) / self.config.frontend.rate

    def initial_state(self, batch_size: int) -> ModelState:
        return ModelState(self.frontend.initial_state(batch_size), self.encoder.initial_state(batch_size))

    def forward(self, audio: Tensor, state: ModelState) -> tuple[Tensor, ModelState]:
        """audio (B, S) in [-1, 1], S a multiple of `step_samples` -> log-probabilities (B, T, V), state.

        The outputs are delayed by `lookahead` frames; the first ones of a stream are to be dropped.
        """
        if audio.size(1) % self.step_samples:
            raise ValueError(
                f"{audio.size(1)} samples are not a multiple of step_samples, {self.step_samples}"
            )
        if self.packed and self.packed.takes(audio) and not self.training:
            log_probs, rows = self.packed(audio, pack(state))
            return log_probs, unpack(rows, state)
        features, frontend = self.frontend(audio, state.frontend)
        encoded, encoder = self.encoder(features, state.encoder)
        return self.logits(encoded).log_softmax(-1), ModelState(frontend, encoder)

    def step(self, audio: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """`forward` of streams whose states are rows (B, D) of `asr.state.pack`, as a server keeps them."""
        if self.packed and self.packed.takes(audio) and not self.training:
            return self.packed(audio, rows)
        log_probs, state = self(audio, unpack(rows, self.initial_state(1)))
        return log_probs, pack(state)

    def logits(self, encoded: Tensor) -> Tensor:
        """Frames of the encoder (B, T / outputs, width) -> (B, T, V)."""
        return self.head(encoded).unflatten(-1, (self.config.outputs, -1)).flatten(1, 2)

    def pad_for_lookahead(self, audio: Tensor) -> Tensor:
        """(B, S) -> (B, S'): silence to the end of the step and for the lookahead more, to let all out."""
        lookahead = self.encoder.lookahead * self.step_samples
        return pad(audio, (0, -audio.size(1) % self.step_samples + lookahead))

    def drop_lookahead(self, outputs: Tensor) -> Tensor:
        """Outputs (B, T + lookahead, ...) of a stream from its start -> (B, T, ...), aligned with audio."""
        return outputs[:, self.lookahead :]

    def frames(self, lengths: Lengths) -> Lengths:
        """Lengths in samples -> in frames, the last one counted whole."""
        return -(-lengths // self.frame_samples)

    def offline(self, audio: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """audio (B, S) zero-padded, lengths (B,) -> log-probabilities (B, T, V) and frames (B,)."""
        log_probs, _ = self(self.pad_for_lookahead(audio), self.initial_state(audio.size(0)))
        # the last step can reach beyond the audio by more than a frame
        return self.drop_lookahead(log_probs)[:, : self.frames(audio.size(1))], self.frames(lengths)

    def describe(self) -> str:
        """One line for the commands that load a model."""
        millions = sum(parameter.numel() for parameter in self.parameters()) / 1e6
        return (
            f"{millions:.1f} M parameters, vocabulary {self.config.vocabulary},"
            f" frames of {1000 * self.frame_seconds:.0f} ms, lookahead {self.lookahead},"
            f" algorithmic latency {self.latency_ms:.0f} ms"
        )
