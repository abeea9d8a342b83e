"""Augmentation: speed and gain on the waveform, SpecAugment on normalised features.

Every function is handed its random generator, so that a resumed training draws what an uninterrupted one
would have drawn. B batch, S samples, T feature frames, M mel bands.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import soxr
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Augmentation:
    """speeds: one is drawn for each utterance; pitch follows speed, as on a tape (Ko et al. 2015).
    gain_db: the range from which a gain in dB is drawn.
    """

    speeds: tuple[float, ...] = (0.9, 1.0, 1.1)
    gain_db: tuple[float, float] = (-6.0, 6.0)


@dataclass(frozen=True)
class SpecAugment:
    """Masks of zeros, the features' mean (arXiv 1904.08779), no time warp.

    Each utterance draws `time_masks` masks of up to `time_ratio` of its own length, and `frequency_masks`
    masks of up to `frequency_width` mel bands.
    """

    time_masks: int = 10
    time_ratio: float = 0.05
    frequency_masks: int = 2
    frequency_width: int = 27


NO_AUGMENTATION = Augmentation(speeds=(1.0,), gain_db=(0.0, 0.0))


def resample(
    samples: NDArray[np.float32], source_rate: int, target_rate: int, speed: float
) -> NDArray[np.float32]:
    """(S,) at `source_rate` -> (S',) at `target_rate`, `speed` times as fast: one resampling for both."""
    if source_rate * speed == target_rate:
        return samples
    # soxr's lowest qualities are hardly faster on speech-length input: LQ 1.1 ms, HQ 1.2 ms for 12 s
    return soxr.resample(samples, source_rate * speed, target_rate, quality="HQ")


def perturb(
    samples: NDArray[np.float32],
    source_rate: int,
    target_rate: int,
    config: Augmentation,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Speed and gain drawn from `rng` for one utterance (S,); the result is at `target_rate`, in float32."""
    speed = config.speeds[rng.integers(len(config.speeds))]
    gain = 10 ** (rng.uniform(*config.gain_db) / 20)
    return resample(samples, source_rate, target_rate, speed) * np.float32(gain)


def spec_augment(
    features: Tensor, lengths: Tensor, config: SpecAugment, generator: torch.Generator
) -> Tensor:
    """Mask features (B, T, M) of the given lengths (B,) in frames; `generator` is a CPU generator."""
    length = lengths.cpu().float()
    times = _masks(config.time_masks, config.time_ratio * length, length, features.size(1), generator)
    batch, bands = features.size(0), features.size(2)
    widths = torch.full((batch,), float(min(config.frequency_width, bands)))
    frequencies = _masks(config.frequency_masks, widths, torch.full((batch,), float(bands)), bands, generator)
    masked = times[:, :, None] | frequencies[:, None, :]
    return features.masked_fill(masked.to(features.device), 0.0)


def _masks(count: int, widest: Tensor, extent: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Whether a position is under one of `count` masks, (B, size).

    Widths are drawn up to `widest` (B,), and each mask lies inside the first `extent` (B,) positions.
    """
    draws = torch.rand(2, extent.size(0), count, generator=generator)
    width = (draws[0] * (widest[:, None] + 1)).floor()
    start = (draws[1] * (extent[:, None] - width + 1)).floor()
    position = torch.arange(size)
    inside = (position >= start[..., None]) & (position < (start + width)[..., None])  # (B, count, size)
    return inside.any(1)
