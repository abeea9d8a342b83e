"""Log-mel features of a stream of audio, normalised with fixed statistics.

B batch, S samples, T feature frames, M mel bands. A frame is computed as soon as its last sample is there:
frame t covers the `window` samples that end at sample (t + 1) * hop, and what lies before the first sample
is silence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchaudio.functional import melscale_fbanks

LOWEST_HZ = 20.0  # where the first band begins; the last ends at half of the rate
LOG_FLOOR = 1e-6  # added to the power: digital silence becomes -13.8, well under any room


@dataclass(frozen=True)
class FrontEndConfig:
    """Lengths in samples: 400 and 160 are 25 and 10 ms at 16 kHz."""

    rate: int = 16000
    mels: int = 80
    window: int = 400
    hop: int = 160


class FrontEndState(NamedTuple):
    tail: Tensor  # (B, window - hop), the samples that the next frame still needs


class LogMel(nn.Module):
    mean: Tensor
    std: Tensor
    taper: Tensor
    filters: Tensor

    def __init__(self, config: FrontEndConfig) -> None:
        super().__init__()
        self.config = config
        self.fft = 1 << (config.window - 1).bit_length()
        with torch.device("cpu"):  # numbers, even in a model of sizes alone (`asr.bundle.load_bundle`)
            filters = melscale_fbanks(self.fft // 2 + 1, LOWEST_HZ, config.rate / 2, config.mels, config.rate)
            self.register_buffer("filters", filters, persistent=False)
            self.register_buffer("taper", torch.hann_window(config.window), persistent=False)
            self.register_buffer("mean", torch.zeros(config.mels))
            self.register_buffer("std", torch.ones(config.mels))

    @property
    def has_statistics(self) -> bool:
        """Whether the normalisation was measured: before that, features leave un-normalised."""
        return bool(self.mean.any())

    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Fix the normalisation: mean and standard deviation a band, both (M,), over the training speech."""
        self.mean.copy_(mean)
        self.std.copy_(std)

    def initial_state(self, batch_size: int) -> FrontEndState:
        return FrontEndState(self.taper.new_zeros(batch_size, self.config.window - self.config.hop))

    def log_mel(self, audio: Tensor, state: FrontEndState) -> tuple[Tensor, FrontEndState]:
        """Un-normalised features: audio (B, S) in [-1, 1], S a multiple of `hop` -> (B, S / hop, M)."""
        audio = torch.cat([state.tail, audio], 1)
        # rfft in float32: bf16 autocast has no FFT, and power spans more than its mantissa
        frames = audio.float().unfold(1, self.config.window, self.config.hop)  # (B, T, window)
        spectrum = torch.fft.rfft(frames * self.taper, n=self.fft)
        power = spectrum.real.square() + spectrum.imag.square()  # (B, T, fft / 2 + 1)
        tail = audio[:, audio.size(1) - state.tail.size(1) :]
        return (power @ self.filters + LOG_FLOOR).log(), FrontEndState(tail)

    def forward(self, audio: Tensor, state: FrontEndState) -> tuple[Tensor, FrontEndState]:
        """Normalised features: audio (B, S) -> (B, S / hop, M)."""
        features, state = self.log_mel(audio, state)
        return (features - self.mean) / self.std, state
