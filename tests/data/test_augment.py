from __future__ import annotations

import numpy as np
import pytest
import torch

from asr.data.augment import (
    Augmentation,
    SpecAugment,
    add_noise,
    compress,
    cut_ends,
    equalise,
    hiss,
    low_pass,
    octaves,
    perturb,
    resample,
    reverberate,
    spec_augment,
    telephone,
)


def tone(seconds: float, hertz: float, rate: int) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate).astype(np.float32)


def loudest(samples: np.ndarray, rate: int) -> float:
    return float(np.abs(np.fft.rfft(samples)).argmax() * rate / len(samples))


@pytest.mark.parametrize("speed", [0.9, 1.0, 1.1])
@pytest.mark.parametrize("rate", [8000, 16000, 48000])
def test_speed_changes_duration_and_pitch_together_from_any_rate(rate: int, speed: float) -> None:
    faster = resample(tone(2.0, 440, rate), rate, 16000, speed)
    assert len(faster) == pytest.approx(2.0 / speed * 16000, abs=2)
    assert loudest(faster, 16000) == pytest.approx(440 * speed, abs=1)


def test_the_same_generator_state_gives_the_same_perturbation_and_another_gives_another() -> None:
    samples, config = tone(0.5, 300, 16000), Augmentation()
    rngs = [np.random.default_rng(seed) for seed in (1, 1, 2)]
    first, again, other = (perturb(samples, 16000, 16000, config, rng)[0] for rng in rngs)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.dtype == np.float32


def test_gain_stays_in_its_range_of_decibels() -> None:
    samples, config = np.ones(100, dtype=np.float32), Augmentation(speeds=(1.0,), gain_db=(-6.0, 3.0))
    rng = np.random.default_rng(0)
    decibels = [20 * np.log10(perturb(samples, 16000, 16000, config, rng)[0][0]) for _ in range(200)]
    assert -6 <= min(decibels) < -5
    assert 2 < max(decibels) <= 3


def masked(lengths: list[int], config: SpecAugment, seed: int = 0) -> torch.Tensor:
    """Which of (B, 100, 40) features of ones are masked."""
    features = torch.ones(len(lengths), 100, 40)
    generator = torch.Generator().manual_seed(seed)
    return spec_augment(features, torch.tensor(lengths), config, generator) == 0


def test_every_utterance_has_its_own_masks() -> None:
    mask = masked([100, 100], SpecAugment(time_masks=2, frequency_masks=2))
    assert not torch.equal(mask[0], mask[1])


def test_time_masks_scale_with_the_length_of_the_utterance_and_lie_inside_it() -> None:
    config = SpecAugment(time_masks=1, time_ratio=0.2, frequency_masks=0)
    masks = torch.stack([masked([100, 30], config, seed)[:, :, 0] for seed in range(300)])  # (seeds, B, T)
    assert masks[:, 0].sum(1).max() == 20
    assert masks[:, 1].sum(1).max() == 6
    assert not masks[:, 1, 30:].any()
    assert masks[:, 1, :30].any(0).all()


def test_frequency_masks_cover_all_time_and_at_most_their_width() -> None:
    config = SpecAugment(time_masks=0, frequency_masks=1, frequency_width=5)
    masks = torch.stack([masked([100], config, seed)[0] for seed in range(200)])  # (seeds, T, M)
    assert (masks.all(1) == masks.any(1)).all()
    assert masks[:, 0].sum(1).max() == 5
    assert masks[:, 0].any(0).all()


def test_features_that_are_not_masked_are_untouched() -> None:
    features = torch.randn(3, 50, 40)
    generator = torch.Generator().manual_seed(1)
    augmented = spec_augment(features, torch.tensor([50, 40, 3]), SpecAugment(), generator)
    assert torch.equal(augmented[augmented != 0], features[augmented != 0])
    assert (augmented == 0).any()


@pytest.mark.parametrize("snr", [0.0, 10.0])
@pytest.mark.parametrize("seconds", [0.3, 5.0])
def test_noise_is_as_far_below_the_speech_as_asked_however_long_it_is(snr: float, seconds: float) -> None:
    rng = np.random.default_rng(0)
    speech, noise = tone(2.0, 440, 16000), rng.standard_normal(int(seconds * 16000)).astype(np.float32)
    added = add_noise(speech, noise, snr, rng) - speech
    ratio = 10 * np.log10(np.square(speech).mean() / np.square(added).mean())
    assert ratio == pytest.approx(snr, abs=0.3)


def test_a_room_keeps_time_and_power_and_adds_its_echo() -> None:
    click = np.zeros(8000, dtype=np.float32)
    click[1000] = 1.0
    response = np.zeros(500, dtype=np.float32)
    response[20], response[320] = 1.0, 0.5  # the direct sound comes 20 samples late
    heard = reverberate(click, response)
    assert np.abs(heard).argmax() == 1000
    assert heard[1300] == pytest.approx(0.5 * heard[1000], rel=1e-3)
    assert np.square(heard).sum() == pytest.approx(1.0, rel=1e-3)


@pytest.mark.parametrize("cutoff", [3500.0, 5512.5, 7321.0])
def test_a_narrow_channel_keeps_what_is_below_and_takes_what_is_above(cutoff: float) -> None:
    low, high = tone(1.0, 0.8 * cutoff, 16000), tone(1.0, min(1.2 * cutoff, 7900), 16000)
    heard = low_pass(low, 16000, cutoff)
    assert len(heard) == len(low) and heard.dtype == np.float32
    assert np.abs(heard - low)[200:-200].max() < 0.02
    assert np.square(low_pass(high, 16000, cutoff)[200:-200]).mean() < 1e-4


@pytest.mark.parametrize("kbps", [16.0, 21.0, 24.0, 32.0, 40.0, 48.0])
@pytest.mark.parametrize("seconds", [0.05, 0.73, 4.0])
def test_an_mp3_keeps_time_and_words_and_loses_what_its_bit_rate_has_no_room_for(
    kbps: float, seconds: float
) -> None:
    noise = np.random.default_rng(0).standard_normal(int(16000 * seconds))
    speech = (0.1 * np.convolve(noise, np.hanning(12) / 4, "same")).astype(np.float32)
    heard = compress(speech, 16000, kbps)
    assert heard.dtype == np.float32
    assert heard.shape == speech.shape
    spectra = np.fft.rfft(heard, 1 << 17), np.fft.rfft(speech, 1 << 17)
    correlation = np.fft.irfft(spectra[0] * np.conj(spectra[1]))
    assert np.argmax(correlation) == 0
    lost = np.square(heard - speech).sum() / np.square(speech).sum()
    assert 1e-4 < lost < 0.5


def test_a_lower_bit_rate_loses_more() -> None:
    noise = np.random.default_rng(0).standard_normal(32000)
    speech = (0.1 * np.convolve(noise, np.hanning(12) / 4, "same")).astype(np.float32)
    lost = [np.square(compress(speech, 16000, kbps) - speech).sum() for kbps in (48.0, 32.0, 24.0, 16.0)]
    assert lost == sorted(lost)


@pytest.mark.parametrize("hertz", [100, 250, 500, 3000, 3700, 5000])
def test_a_telephone_keeps_time_and_what_lies_in_its_band_as_loud_as_a_call(hertz: float) -> None:
    speech = tone(1.0, 1000, 16000) + tone(1.0, hertz, 16000)
    heard = telephone(0.01 * speech, 16000)
    assert heard.shape == speech.shape and heard.dtype == np.float32
    assert heard.std() == pytest.approx(0.1, rel=0.02)
    spectrum = np.abs(np.fft.rfft(heard))
    assert (spectrum[int(hertz)] > 0.5 * spectrum[1000]) == (300 <= hertz <= 3400)
    expected = tone(1.0, 1000, 16000) + (tone(1.0, hertz, 16000) if 300 <= hertz <= 3400 else 0)
    middle = slice(1600, -1600)
    np.testing.assert_allclose(heard[middle], 0.1 * expected[middle] / expected.std(), atol=0.02)


@pytest.mark.parametrize("count", [1, 2, 401])
def test_a_telephone_takes_any_length_and_silence(count: int) -> None:
    assert not telephone(np.zeros(count, np.float32), 16000).any()
    assert telephone(np.ones(count, np.float32), 16000).shape == (count,)


def test_as_many_utterances_as_asked_for_come_out_of_a_telephone() -> None:
    config = Augmentation(speeds=(1.0,), gain_db=(0.0, 0.0), telephone_share=0.25)
    rng, speech = np.random.default_rng(0), tone(0.1, 1000, 16000)
    kept = [np.array_equal(perturb(speech, 16000, 16000, config, rng)[0], speech) for _ in range(400)]
    assert 270 < sum(kept) < 330


def test_an_equaliser_gives_each_octave_its_gain_without_delay() -> None:
    rate, gains = 16000, np.array([0.0, 0, 0, 0, 6, -20, 10, 0])
    assert octaves(rate).tolist() == [62.5, 125, 250, 500, 1000, 2000, 4000, 8000]
    middle = slice(rate // 4, -rate // 4)
    for frequency, gain in zip(octaves(rate)[1:-1], gains[1:-1], strict=True):
        played = tone(1.0, frequency, rate)
        heard = equalise(played, rate, gains)
        assert heard.shape == played.shape and heard.dtype == np.float32
        np.testing.assert_allclose(heard[middle], played[middle] * 10 ** (gain / 20), atol=0.02)


def test_hiss_falls_by_as_many_decibels_an_octave_as_are_asked_for() -> None:
    for slope in (0.0, 3.0, 6.0):
        power = np.square(np.abs(np.fft.rfft(hiss(1 << 16, slope, np.random.default_rng(0)))))
        octaves_of_power = 10 * np.log10([power[1 << k : 2 << k].mean() for k in range(8, 15)])
        assert np.diff(octaves_of_power) == pytest.approx([-slope] * 6, abs=0.5)


@pytest.mark.parametrize("count", [1, 2, 3, 1001])
def test_hiss_has_any_length(count: int) -> None:
    noise = hiss(count, 6.0, np.random.default_rng(0))
    assert noise.dtype == np.float32 and noise.shape == (count,) and np.isfinite(noise).all()


def test_hiss_lies_below_the_speech_by_the_ratio_drawn() -> None:
    speech = tone(1.0, 300, 16000)
    config = Augmentation(speeds=(1.0,), gain_db=(0.0, 0.0), hiss_share=1.0, hiss_snr_db=(10.0, 10.0))
    noise = perturb(speech, 16000, 16000, config, np.random.default_rng(0))[0] - speech
    assert 10 * np.log10(np.square(speech).mean() / np.square(noise).mean()) == pytest.approx(10.0, abs=1e-3)


def test_cut_ends_are_silent_and_the_rest_is_as_it_was() -> None:
    speech = np.arange(1, 101, dtype=np.float32)
    heard = cut_ends(speech, 0.1, 0.25)
    assert not heard[:10].any() and not heard[75:].any()
    assert np.array_equal(heard[10:75], speech[10:75])


def test_no_more_is_cut_than_the_configuration_allows() -> None:
    config = Augmentation(speeds=(1.0,), gain_db=(0.0, 0.0), cut=0.2, cut_share=0.5)
    rng, speech = np.random.default_rng(0), np.ones(1000, dtype=np.float32)
    kept = [int(perturb(speech, 16000, 16000, config, rng)[0].sum()) for _ in range(400)]
    assert 600 <= min(kept) < 700
    assert 160 < kept.count(1000) < 240
