"""Log-mel features of a stream of audio, normalised with fixed statistics and, where asked for, less their
mean in the stream so far, so that less is left of how a speaker or a microphone sounds.

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

from asr.errors import UserError

LOWEST_HZ = 20.0  # where the first band begins; the last ends at half of the rate
LOG_FLOOR = 1e-6  # added to the power: digital silence becomes -13.8, well under any room
# The running mean stands still while nothing was heard for HANGOVER frames, nothing that is HEARD nats, in
# the mean over bands, above the quietest frame so far; that level rises by RISE a frame, as noise can.
HANGOVER, HEARD, RISE = 100.0, 1.0, 0.02
PRIOR = 100.0  # frames as which the mean of the training speech counts at first
HIGHEST = 1e4  # the floor before the first frame
_BLOCK = 4096  # frames whose sums are taken together: e^(_BLOCK / PRIOR) has to be a number


@dataclass(frozen=True)
class FrontEndConfig:
    """Lengths in samples: 400 and 160 are 25 and 10 ms at 16 kHz. mean_frames: of speech, that the running
    mean of each band looks back on, exponentially; 0: features without it."""

    rate: int = 16000
    mels: int = 80
    window: int = 400
    hop: int = 160
    mean_frames: int = 0


class FrontEndState(NamedTuple):
    """Without a running mean all but the tail are (B, 0)."""

    tail: Tensor  # (B, window - hop), the samples that the next frame still needs
    floor: Tensor  # (B, 1), the quietest frame, in nats
    since: Tensor  # (B, 1), frames since something was heard
    frames: Tensor  # (B, 1), that the mean is of
    mean: Tensor  # (B, M), of normalised features


class LogMel(nn.Module):
    mean: Tensor
    std: Tensor
    taper: Tensor
    filters: Tensor

    def __init__(self, config: FrontEndConfig) -> None:
        super().__init__()
        if 0 < config.mean_frames < PRIOR:
            raise UserError(f"frontend.mean_frames: {config.mean_frames}; give {PRIOR:.0f} or more, or 0")
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
        config, adapts = self.config, self.config.mean_frames > 0
        sizes = (config.window - config.hop, *(adapts * size for size in (1, 1, 1, config.mels)))
        values = (0.0, HIGHEST, 0.0, PRIOR, 0.0)
        return FrontEndState(
            *(
                self.taper.new_full((batch_size, size), value)
                for size, value in zip(sizes, values, strict=True)
            )
        )

    def log_mel(self, audio: Tensor, state: FrontEndState) -> tuple[Tensor, FrontEndState]:
        """Un-normalised features: audio (B, S) in [-1, 1], S a multiple of `hop` -> (B, S / hop, M)."""
        audio = torch.cat([state.tail, audio], 1)
        # rfft in float32: bf16 autocast has no FFT, and power spans more than its mantissa
        frames = audio.float().unfold(1, self.config.window, self.config.hop)  # (B, T, window)
        spectrum = torch.fft.rfft(frames * self.taper, n=self.fft)
        power = spectrum.real.square() + spectrum.imag.square()  # (B, T, fft / 2 + 1)
        tail = audio[:, audio.size(1) - state.tail.size(1) :]
        return (power @ self.filters + LOG_FLOOR).log(), state._replace(tail=tail)

    def forward(self, audio: Tensor, state: FrontEndState) -> tuple[Tensor, FrontEndState]:
        """Normalised features: audio (B, S) -> (B, S / hop, M)."""
        log_mel, state = self.log_mel(audio, state)
        features = (log_mel - self.mean) / self.std
        return self.adapt(features, state) if self.config.mean_frames else (features, state)

    def adapt(self, features: Tensor, state: FrontEndState) -> tuple[Tensor, FrontEndState]:
        """Normalised features (B, T, M) less their running mean."""
        adapted = []
        for part in features.split(_BLOCK, 1):
            mean, state = self._running_mean(part, state)
            adapted.append(part - mean)
        return torch.cat(adapted, 1), state

    def _running_mean(self, features: Tensor, state: FrontEndState) -> tuple[Tensor, FrontEndState]:
        """(B, T, M), T at most _BLOCK -> the mean up to each frame, itself included.

        loudness[t] = mean over bands of the log-mel
        floor[t] = min(loudness[t], floor[t - 1] + RISE)
        since[t] = 0 if loudness[t] > floor[t] + HEARD else since[t - 1] + 1
        w[t] = 1 if since[t] <= HANGOVER else 0
        frames[t] = min(mean_frames, frames[t - 1] + w[t])
        mean[t] = mean[t - 1] + w[t] / frames[t] (features[t] - mean[t - 1])
        """
        loudness = (features * self.std + self.mean).mean(2)
        time = torch.arange(1.0, loudness.size(1) + 1, device=loudness.device)
        floor = torch.minimum((loudness - RISE * time).cummin(1).values, state.floor) + RISE * time
        since = time - torch.where(loudness > floor + HEARD, time, -state.since).cummax(1).values
        weights = (since <= HANGOVER).double()
        frames = (state.frames + weights.cumsum(1)).clamp(max=self.config.mean_frames)
        shares = (weights / frames).unsqueeze(2)
        kept = (-shares).log1p().cumsum(1).exp()  # of what was before the first
        mean = kept * (state.mean.double().unsqueeze(1) + (features * shares / kept).cumsum(1))
        mean, frames = mean.float(), frames.float()
        since = since.clamp(max=HANGOVER + 1)  # a float counts no further than 2^24
        return mean, state._replace(
            floor=floor[:, -1:], since=since[:, -1:], frames=frames[:, -1:], mean=mean[:, -1]
        )
