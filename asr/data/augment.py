"""Augmentation: speed and gain on the waveform, SpecAugment on normalised features.

Every function is handed its random generator, so that a resumed training draws what an uninterrupted one
would have drawn. B batch, S samples, T feature frames, M mel bands.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from numpy.typing import NDArray
from torch import Tensor

from asr.data.manifest import load_audio, load_cuts

MP3_KBPS = (8, 160)  # of MPEG-2 layer III: rates of 16 to 24 kHz
MP3_DELAY = 1105  # samples: 576 of LAME's, 529 of any decoder's


@dataclass(frozen=True)
class Augmentation:
    """speeds: one is drawn for each utterance; pitch follows speed, as on a tape (Ko et al. 2015).
    gain_db: the range from which a gain in dB is drawn.
    noises, noise_share, noise_snr_db: to such a share of utterances, a stretch of a sound of these manifests
    is added, at a ratio of powers drawn from the range.
    rooms, room_share: such a share is heard through one of these manifests' impulse responses.
    cutoff_hz, cutoff_share: such a share loses all above a frequency drawn from the range, as MP3 and
    telephones take it away.
    codec_kbps, codec_share: such a share has been an MP3 of a bit rate drawn from the range, in kbit/s. It
    takes a second of computing for 150 of speech.
    equaliser_db, equaliser_share: such a share goes through a microphone whose gain at each octave is drawn
    from this many dB down to this many up (FilterAugment, arXiv 2110.03282, on the waveform).
    hiss_snr_db, hiss_share: to such a share is added what amplifiers make: noise whose power falls by 0 to
    6 dB an octave, from white to brown, at a ratio of powers drawn from the range.
    telephone_share: such a share comes out of a telephone.
    cut, cut_share: such a share loses up to this part of its duration at each end, as what was recorded too
    late or stopped too early; silence stands there.
    splice_share: such a share of the utterances of which it is known when phones were said is heard with its
    words in another order (asr/data/splice.py).
    """

    speeds: tuple[float, ...] = (0.9, 1.0, 1.1)
    gain_db: tuple[float, float] = (-6.0, 6.0)
    noises: tuple[Path, ...] = ()
    noise_share: float = 0.0
    noise_snr_db: tuple[float, float] = (5.0, 25.0)
    rooms: tuple[Path, ...] = ()
    room_share: float = 0.0
    cutoff_hz: tuple[float, float] = (3500.0, 7500.0)
    cutoff_share: float = 0.0
    codec_kbps: tuple[float, float] = (16.0, 48.0)
    codec_share: float = 0.0
    equaliser_db: float = 10.0
    equaliser_share: float = 0.0
    hiss_snr_db: tuple[float, float] = (5.0, 30.0)
    hiss_share: float = 0.0
    telephone_share: float = 0.0
    cut: float = 0.25
    cut_share: float = 0.0
    splice_share: float = 0.0


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
) -> tuple[NDArray[np.float32], float]:
    """Speed, gain, room, noise and bandwidth drawn from `rng` for one utterance (S,).

    Returns the samples at `target_rate`, float32, and the speed.
    """
    speed = config.speeds[rng.integers(len(config.speeds))]
    gain = 10 ** (rng.uniform(*config.gain_db) / 20)
    samples = resample(samples, source_rate, target_rate, speed)
    if config.rooms and rng.random() < config.room_share:
        rooms = _sounds(config.rooms, target_rate)
        samples = reverberate(samples, rooms[rng.integers(len(rooms))])
    if config.noises and rng.random() < config.noise_share:
        noises = _sounds(config.noises, target_rate)
        samples = add_noise(
            samples, noises[rng.integers(len(noises))], rng.uniform(*config.noise_snr_db), rng
        )
    if config.hiss_share and rng.random() < config.hiss_share:
        noise = hiss(len(samples), rng.uniform(0.0, 6.0), rng)
        samples = add_noise(samples, noise, rng.uniform(*config.hiss_snr_db), rng)
    if config.cutoff_share and rng.random() < config.cutoff_share:
        samples = low_pass(samples, target_rate, rng.uniform(*config.cutoff_hz))
    if config.equaliser_share and rng.random() < config.equaliser_share:
        gains = rng.uniform(-config.equaliser_db, config.equaliser_db, len(octaves(target_rate)))
        samples = equalise(samples, target_rate, gains)
    if config.telephone_share and rng.random() < config.telephone_share:
        samples = telephone(samples, target_rate)
    if config.codec_share and rng.random() < config.codec_share:
        samples = compress(samples, target_rate, rng.uniform(*config.codec_kbps))
    if config.cut_share and rng.random() < config.cut_share:
        samples = cut_ends(samples, *rng.uniform(0.0, config.cut, 2))
    return samples * np.float32(gain), speed


@cache
def _sounds(manifests: tuple[Path, ...], rate: int) -> list[NDArray[np.float32]]:
    """The recordings of manifests at `rate`, kept in memory by each process that loads data."""
    return [resample(load_audio(cut), cut.sampling_rate, rate, 1.0) for cut in load_cuts(manifests)]


def reverberate(samples: NDArray[np.float32], response: NDArray[np.float32]) -> NDArray[np.float32]:
    """(S,) -> (S,) through a room's impulse response, its direct sound at time 0, at the same power."""
    tail = response[int(np.abs(response).argmax()) :]
    size = 1 << (len(samples) + len(tail) - 1).bit_length()
    wet = np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(tail, size), size)[: len(samples)]
    scale = np.sqrt(np.square(samples).mean() / max(np.square(wet).mean(), 1e-12))
    return (wet * scale).astype(np.float32)


def low_pass(samples: NDArray[np.float32], rate: int, cutoff_hz: float) -> NDArray[np.float32]:
    """(S,) -> (S,) through a channel of that bandwidth."""
    narrow = soxr.resample(samples, rate, 2 * cutoff_hz, quality="HQ")
    wide = soxr.resample(narrow, 2 * cutoff_hz, rate, quality="HQ")
    return np.resize(np.pad(wide, (0, max(0, len(samples) - len(wide)))), len(samples))


def compress(samples: NDArray[np.float32], rate: int, kbps: float) -> NDArray[np.float32]:
    """(S,) -> (S,) as it comes out of an MP3 of about `kbps` kbit/s, which hold for rates of 16 to 24 kHz;
    without its delay."""
    file = io.BytesIO()
    level = (MP3_KBPS[1] - kbps) / (MP3_KBPS[1] - MP3_KBPS[0])  # so libsndfile understands it
    soundfile.write(
        file, samples, rate, "MPEG_LAYER_III", format="MP3", bitrate_mode="CONSTANT", compression_level=level
    )
    file.seek(0)
    heard = soundfile.read(file, dtype="float32")[0]
    # up to 24 kbit/s frames have no room for the tag by which decoders know the delay
    if len(heard) != len(samples):
        heard = heard[MP3_DELAY:]
    return np.pad(heard[: len(samples)], (0, max(0, len(samples) - len(heard))))


def telephone(samples: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    """(S,) -> (S,) from 300 to 3400 Hz, as loud as a call should be, in 8 bits at 8 kHz (G.711, mu-law)."""
    wide = soxr.resample(samples, rate, 8000, quality="HQ")
    spectrum, frequencies = np.fft.rfft(wide), np.fft.rfftfreq(len(wide), 1 / 8000)
    spectrum[(frequencies < 300) | (frequencies > 3400)] = 0
    narrow = np.fft.irfft(spectrum, len(wide))
    narrow = (narrow * 0.1 / max(float(narrow.std()), 1e-6)).clip(-1, 1)
    levels = np.rint(127 * np.sign(narrow) * np.log1p(255 * np.abs(narrow)) / np.log(256)) / 127
    decoded = np.sign(levels) * (256 ** np.abs(levels) - 1) / 255
    heard = soxr.resample(decoded.astype(np.float32), 8000, rate, quality="HQ")[: len(samples)]
    return np.pad(heard, (0, len(samples) - len(heard)))


def octaves(rate: int) -> NDArray[np.float64]:
    """Frequencies in Hz, each twice the one before: the highest is half of `rate`, the lowest about 60."""
    halvings = int(np.log2(rate / 120))
    return rate / 2 * np.logspace(-halvings, 0, halvings + 1, base=2)


def equalise(samples: NDArray[np.float32], rate: int, gains_db: NDArray[np.float64]) -> NDArray[np.float32]:
    """(S,) -> (S,) with a gain in dB at each of the `octaves`, and in between over the logarithm of the
    frequency; without delay."""
    size = 1 << (len(samples) - 1).bit_length() + 1
    frequencies = np.fft.rfftfreq(size, 1 / rate)
    gains = np.interp(np.log(frequencies.clip(min=1)), np.log(octaves(rate)), gains_db)
    heard = np.fft.irfft(np.fft.rfft(samples, size) * 10 ** (gains / 20), size)
    return heard[: len(samples)].astype(np.float32)


def hiss(count: int, slope: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Noise (count,) whose power falls by `slope` dB an octave: 0 is white, 3 pink, 6 brown."""
    white = np.fft.rfft(rng.standard_normal(count, dtype=np.float32))
    frequencies = np.arange(len(white)).clip(min=1)
    shaped = white * frequencies ** (-slope / (20 * np.log10(2)))
    shaped[0] = 0
    return np.fft.irfft(shaped, count).astype(np.float32)


def cut_ends(samples: NDArray[np.float32], start: float, end: float) -> NDArray[np.float32]:
    """(S,) -> (S,) with silence for these parts of it, up to 1, at the start and at the end."""
    kept = np.zeros_like(samples)
    inside = slice(round(start * len(samples)), len(samples) - round(end * len(samples)))
    kept[inside] = samples[inside]
    return kept


def add_noise(
    samples: NDArray[np.float32], noise: NDArray[np.float32], snr_db: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """(S,) with a stretch of `noise`, repeated where it is shorter, `snr_db` below the speech."""
    noise = np.resize(np.roll(noise, rng.integers(len(noise))), len(samples))
    power = np.square(samples).mean() / max(float(np.square(noise).mean()), 1e-12)
    return samples + noise * np.float32(np.sqrt(power * 10 ** (-snr_db / 10)))


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
