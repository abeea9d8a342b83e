"""Silence is known as silence, speech as speech, and no chunking changes where one begins."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from asr import audio
from asr.ops import cpu
from asr.state import map_state, pack
from asr.vad import MASKED, WINDOW, PackedVad, SpeechGate, VadConfig, VadStream, load_vad, mask
from data_prep.demo import Voices
from tests.conftest import signal

FRAME, LOOKAHEAD = 640, 7  # samples; frames


@pytest.fixture(scope="module")
def speech() -> NDArray[np.float32]:
    """Two seconds of silence, a sentence, two seconds of silence."""
    pytest.importorskip("espeakng_loader")
    espeak = Voices()
    said = espeak.say("please open the window in the kitchen and close the door", "en-us", 160, 50, 50)
    resampler = audio.Resampler(espeak.rate)
    said = np.concatenate([resampler.accept(said), resampler.finish()])
    silence = 1e-3 * np.random.default_rng(1).standard_normal(32000)
    return np.concatenate([silence, 0.3 * said / abs(said).max(), silence]).astype(np.float32)


def spoken_frames(samples: NDArray[np.float32]) -> tuple[int, int]:
    """The first and the last frame of what `speech` says, by its level."""
    loud = np.flatnonzero(abs(samples) > 0.02)
    return loud[0] // FRAME, loud[-1] // FRAME


def silence(samples: NDArray[np.float32], sizes: list[int], lookahead: int = LOOKAHEAD) -> NDArray[np.int64]:
    """Of each frame, when the audio comes in pieces of so many frames."""
    stream, found, heard, turn = VadStream(VadConfig(), FRAME, lookahead), [], 0, 0
    delayed = lookahead
    while heard < len(samples) // FRAME:
        size = min(sizes[turn % len(sizes)], len(samples) // FRAME - heard)
        frames, delayed = max(0, size - delayed), max(0, delayed - size)
        piece = samples[heard * FRAME : (heard + size) * FRAME]
        found.append(stream.accept(piece, frames))
        heard, turn = heard + size, turn + 1
    return np.concatenate(found)


def test_probabilities_are_those_of_the_library() -> None:
    package = importlib.util.find_spec("silero_vad")
    assert package and package.submodule_search_locations
    theirs = torch.jit.load(f"{package.submodule_search_locations[0]}/data/silero_vad.jit")
    sound = torch.from_numpy(signal(1.0, 1)[: 31 * WINDOW])[None]
    network = load_vad()
    with torch.inference_mode():
        found, _ = network(sound, network.initial_state(1))
        expected = torch.cat([theirs(window, 16000) for window in sound.split(WINDOW, 1)], 1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.skipif(not cpu.is_available(), reason="no C library")
@pytest.mark.parametrize("kind", [0, 1, 2])
def test_the_packed_network_gives_the_numbers_of_the_layers(kind: int) -> None:
    if kind > cpu.loaded().step_best():
        pytest.skip("this processor has no such instructions")
    network = load_vad()
    packed = PackedVad(network, kind)
    audio = torch.from_numpy(np.stack([signal(2.0, seed)[: 61 * WINDOW] for seed in range(5)]))
    for batch, sizes in ((1, [1] * 61), (1, [50, 11]), (5, [1, 7, 30, 23])):
        state = network.initial_state(batch)
        states = pack(state)
        for piece in audio[:batch].split([size * WINDOW for size in sizes], 1):
            with torch.inference_mode():
                speech, state = network(piece, state)
            found, states = packed(piece, states)
            torch.testing.assert_close(found, speech, atol=1e-5, rtol=0)
            torch.testing.assert_close(states, pack(state), atol=1e-4, rtol=0)


def test_streams_of_a_batch_are_as_alone() -> None:
    network = load_vad()
    sounds = [torch.from_numpy(signal(1.0, seed)[: 30 * WINDOW])[None] for seed in range(3)]
    with torch.inference_mode():
        alone = [network(sound, network.initial_state(1))[0] for sound in sounds]
        state = network.initial_state(3)
        first, state = network(torch.cat(sounds)[:, : 10 * WINDOW], state)
        second = map_state(lambda leaf: leaf[1:2], state)
        one, second = network(sounds[1][:, 10 * WINDOW : 20 * WINDOW], second)
        rest, _ = network(sounds[1][:, 20 * WINDOW :], second)
    torch.testing.assert_close(first, torch.cat(alone)[:, :10], atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.cat([one, rest], 1), alone[1][:, 10:], atol=1e-5, rtol=0)


@settings(max_examples=10)
@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=5), lookahead=st.sampled_from([0, 3, 7]))
def test_any_chunking_gives_the_same_silence(
    speech: NDArray[np.float32], sizes: list[int], lookahead: int
) -> None:
    whole = silence(speech, [10**6], lookahead)
    assert (whole == 0).any() and (whole > 0).any()
    np.testing.assert_array_equal(silence(speech, sizes, lookahead), whole)


def test_no_edge_of_a_word_is_masked(speech: NDArray[np.float32]) -> None:
    silent = silence(speech, [8]) > round(VadConfig().hangover * 16000 / FRAME)
    first, last = spoken_frames(speech)
    assert not silent[first : last + 1].any()
    assert silent[: first - 12].all() and silent[last + 25 :].all()


@pytest.mark.parametrize("level", [0.0, 1e-4, 1e-2, 0.3])
def test_silence_and_noise_are_no_speech(level: float) -> None:
    noise = level * np.random.default_rng(1).standard_normal(16000 * 20)
    assert (silence(noise.astype(np.float32), [8]) > 0).all()


@pytest.mark.parametrize("hertz", [50, 60, 100])
def test_hum_is_no_speech(hertz: int) -> None:
    time = np.arange(16000 * 20) / 16000
    swell = 1 + 0.5 * np.sin(2 * np.pi * 0.3 * time)
    hum = sum(0.1 / k * np.sin(2 * np.pi * hertz * k * time + k) for k in range(1, 9)) * swell
    silent = silence(hum.astype(np.float32), [8]) > round(VadConfig().hangover * 16000 / FRAME)
    assert silent.all()


def test_the_gate_does_not_flicker() -> None:
    gate = SpeechGate(VadConfig(threshold=0.5, hysteresis=0.2, onset=0), WINDOW, 0)
    gate.accept(np.array([0.1, 0.4, 0.6, 0.4, 0.31, 0.29, 0.4, 0.1], np.float32))
    found = gate.take(8)
    assert found[2:].tolist() == [0, 0, 0, 1, 2, 3] and (found[:2] > 1000).all()


def test_what_is_shorter_than_an_onset_is_no_speech() -> None:
    gate = SpeechGate(VadConfig(onset=3 * WINDOW / 16000), WINDOW, 0)
    gate.accept(np.array([1, 1, 0, 1, 1, 1, 1, 0], np.float32))
    assert (gate.take(8) == 0).tolist() == [False] * 5 + [True, True, False]


def test_speech_is_known_a_lookahead_before_it_begins() -> None:
    gate = SpeechGate(VadConfig(onset=0), WINDOW, 2)
    gate.accept(np.array([0, 0, 0, 0, 1, 0, 0, 0], np.float32))
    assert (gate.take(6) == 0).tolist() == [False, False, True, True, True, False]


def test_what_a_gate_keeps_does_not_grow() -> None:
    gate = SpeechGate(VadConfig(), FRAME, LOOKAHEAD)
    windows = 0
    for frame in range(1, 5000):
        new = (frame + LOOKAHEAD) * FRAME // WINDOW - windows
        gate.accept(np.zeros(new, np.float32))
        windows += new
        gate.take(1)
        assert len(gate._waiting) <= 1


def test_a_masked_frame_says_blank_and_others_are_as_before() -> None:
    log_probs = np.log(np.random.default_rng(1).dirichlet(np.ones(4), 3)).astype(np.float32)
    masked = mask(log_probs, np.array([False, True, False]))
    np.testing.assert_array_equal(masked[[0, 2]], log_probs[[0, 2]])
    assert masked[1].tolist() == [0.0, MASKED, MASKED, MASKED]
    assert mask(log_probs, np.zeros(3, bool)) is log_probs
