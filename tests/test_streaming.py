"""The words of a live stream are those of the recording as a whole."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from asr.bundle import Bundle
from asr.decoding.beam import BeamDecoder
from asr.decoding.config import DecodingConfig
from asr.decoding.greedy import GreedyDecoder
from asr.decoding.hotwords import Hotword
from asr.endpoint import EndpointConfig
from asr.errors import UserError
from asr.model import CtcModel
from asr.streaming import StreamingRecognizer, WordStream, new_decoder
from asr.text import Tokenizer
from asr.transcript import Transcript
from asr.vad import VadConfig
from tests.conftest import PIECES, scripted, signal

FRESH = settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
EAGER = VadConfig(threshold=0.02, hysteresis=0.01, onset=0, hangover=0.1)  # takes some of `signal` for speech
BABBLING = EndpointConfig(silence=0.12, no_speech=0.2, max_length=1.0)  # rules that the tiny models meet


@pytest.fixture(params=[1, 4], ids=["greedy", "beam"])
def babbler(request: pytest.FixtureRequest, model: CtcModel, tokenizer: Tokenizer) -> Bundle:
    return Bundle(model, tokenizer, DecodingConfig(beam=request.param))


def plain(bundle: Bundle, chunk_ms: float = 320) -> StreamingRecognizer:
    """Without VAD, which takes the tests' signal for what it is, and without endpoints."""
    return StreamingRecognizer(bundle, chunk_ms, endpointing=None, vad=None)


def offline_text(bundle: Bundle, audio: NDArray[np.float32]) -> str:
    with torch.inference_mode():
        log_probs, frames = bundle.model.offline(torch.from_numpy(audio)[None], torch.tensor([len(audio)]))
    decoder = new_decoder(bundle)
    decoder.accept(log_probs[0, : frames[0]].numpy())
    decoder.flush()
    return " ".join(word.text for word in decoder.take())


def stream(recognizer: StreamingRecognizer, audio: NDArray[np.float32], sizes: list[int]) -> list[Transcript]:
    transcripts, start, turn = [], 0, 0
    while start < len(audio):
        size = sizes[turn % len(sizes)]
        transcripts.append(recognizer.accept(audio[start : start + size]))
        start, turn = start + size, turn + 1
    return [*transcripts, recognizer.finish()]


# Any pieces


@FRESH
@given(
    sizes=st.lists(st.integers(1, 20000), min_size=1, max_size=6),
    chunk_ms=st.sampled_from([0, 40, 100, 320, 1000]),
)
def test_any_pieces_give_the_offline_text(
    babbler: Bundle, audio: NDArray[np.float32], sizes: list[int], chunk_ms: float
) -> None:
    expected = offline_text(babbler, audio)
    assert expected  # the sharpened model says something
    final = stream(plain(babbler, chunk_ms), audio, sizes)[-1]
    assert (final.text, final.tentative) == (expected, "")


@settings(FRESH, max_examples=4)
@given(
    sizes=st.lists(st.integers(1, 30000), min_size=1, max_size=6),
    chunk_ms=st.sampled_from([0, 100, 320]),
)
def test_any_pieces_give_the_same_words_times_and_endpoints(
    babbler: Bundle, sizes: list[int], chunk_ms: float
) -> None:
    """With VAD and endpoints; confidences to rounding."""
    quiet = np.zeros(8000, np.float32)
    audio = np.concatenate([quiet, signal(2.0, 3), quiet, signal(2.5, 4), quiet])
    whole = stream(StreamingRecognizer(babbler, 320, (), BABBLING, EAGER), audio, [len(audio)])[-1]
    assert len(whole.segments) > 1
    pieces = stream(StreamingRecognizer(babbler, chunk_ms, (), BABBLING, EAGER), audio, sizes)[-1]
    assert pieces.endpoints == whole.endpoints
    times = [[(word.text, word.start, word.end) for word in each.words] for each in (pieces, whole)]
    assert times[0] == times[1]
    confidences = [[word.confidence for word in each.words] for each in (pieces, whole)]
    assert confidences[0] == pytest.approx(confidences[1], abs=1e-3)


@FRESH
@given(sizes=st.lists(st.integers(1, 5000), min_size=1, max_size=4))
@example(sizes=[1])
def test_any_pieces_give_the_offline_log_probs(
    model: CtcModel, tokenizer: Tokenizer, audio: NDArray[np.float32], sizes: list[int]
) -> None:
    audio = audio[:12345]
    with torch.inference_mode():
        offline, _ = model.offline(torch.from_numpy(audio)[None], torch.tensor([len(audio)]))
    recognizer = plain(Bundle(model, tokenizer, DecodingConfig(beam=1)), chunk_ms=0)
    recorder = Recorder(tokenizer.pieces)
    recognizer._words.decoder = recorder
    stream(recognizer, audio, sizes)
    np.testing.assert_allclose(np.concatenate(recorder.heard), offline[0].numpy(), atol=1e-4, rtol=0)


class Recorder(GreedyDecoder):
    """Keeps the log-probabilities it is given."""

    def __init__(self, pieces: list[str]) -> None:
        super().__init__(pieces)
        self.heard: list[NDArray[np.float32]] = []

    def accept(self, log_probs: NDArray[np.float32]) -> None:
        self.heard.append(log_probs)
        super().accept(log_probs)


def test_one_sample_at_a_time_gives_the_offline_text(babbler: Bundle, audio: NDArray[np.float32]) -> None:
    audio = audio[:9000]
    final = stream(plain(babbler), audio, [1])[-1]
    assert final.text == offline_text(babbler, audio)


# Committed and tentative


def test_committed_text_only_grows(babbler: Bundle, audio: NDArray[np.float32]) -> None:
    committed = ""
    partials = stream(plain(babbler, 40), np.tile(audio, 3), [640])
    for transcript in partials:
        assert transcript.committed.startswith(committed)
        committed = transcript.committed
    assert len({transcript.text for transcript in partials}) > 3  # there were partials to speak of


def test_what_is_new_adds_up_to_the_whole(babbler: Bundle, audio: NDArray[np.float32]) -> None:
    """What a server sends: every committed word and endpoint once."""
    recognizer = StreamingRecognizer(babbler, 40, (), BABBLING, EAGER)
    partials = stream(recognizer, np.tile(audio, 3), [1500])
    assert tuple(word for each in partials for word in each.new_words) == partials[-1].words
    assert tuple(end for each in partials for end in each.new_endpoints) == partials[-1].endpoints != ()


def test_a_transcript_stays_what_it_was(babbler: Bundle, audio: NDArray[np.float32]) -> None:
    recognizer = plain(babbler, 40)
    kept = [
        (transcript, transcript.text, transcript.words, transcript.segments)
        for start in range(0, 3 * len(audio), 1000)
        for transcript in [recognizer.accept(np.tile(audio, 3)[start : start + 1000])]
    ]
    recognizer.finish()
    for transcript, *before in kept:
        again = replace(transcript)  # with nothing cached
        assert [again.text, again.words, again.segments] == before


def test_a_tentative_word_is_shown_once_it_was_stable() -> None:
    def shown(stable_frames: int) -> list[str]:
        words = WordStream(GreedyDecoder(PIECES), DecodingConfig(beam=1, stable_frames=stable_frames), 0.04)
        partials = []
        for frame in scripted("a....bc...."):
            words.accept(frame[None])
            partials.append(words.transcript().text)
        return partials

    assert shown(0)[0] == "a" and shown(0)[5:7] == ["a b", "a bc"]
    assert shown(3)[:3] == ["", "", "a"]
    assert shown(3)[5:9] == ["a", "a", "a", "a bc"]


def test_at_the_end_every_word_is_shown() -> None:
    words = WordStream(GreedyDecoder(PIECES), DecodingConfig(beam=1, stable_frames=99), 0.04)
    words.accept(scripted("a..b"))
    assert words.transcript().text == "a"
    words.finish()
    assert words.transcript().committed == "a b"


def test_words_join_to_the_text(babbler: Bundle, audio: NDArray[np.float32]) -> None:
    for transcript in stream(plain(babbler, 80), audio, [3000]):
        assert " ".join(word.text for word in transcript.words) == transcript.text


# Times


def test_word_times_are_in_order_and_inside_the_recording(
    babbler: Bundle, audio: NDArray[np.float32]
) -> None:
    words = stream(plain(babbler), audio, [5000])[-1].words
    times = [time for word in words for time in (word.start, word.end)]
    assert words and times == sorted(times)
    assert times[0] >= 0 and times[-1] <= len(audio) / 16000
    assert all(0 <= word.confidence <= 1 for word in words)


@given(
    path=st.text("ab.", max_size=40),
    start_offset=st.floats(-1, 1),
    end_offset=st.floats(-1, 1),
    lookahead=st.integers(0, 7),
)
def test_times_never_overlap_whatever_the_offsets(
    path: str, start_offset: float, end_offset: float, lookahead: int
) -> None:
    config = DecodingConfig(beam=1, start_offset=start_offset, end_offset=end_offset, stable_frames=0)
    words = WordStream(GreedyDecoder(PIECES), config, 0.04, lookahead)
    log_probs, live = scripted(path), max(0, len(path) - 1 - lookahead)
    for frame in range(live):
        words.accept(log_probs[frame : frame + 1])
        spoken = words.transcript().words
        heard = (frame + 1 + lookahead) * 0.04
        assert all(0 <= word.start < word.end <= heard + 1e-9 for word in spoken)
        assert all(one.end <= other.start for one, other in pairwise(spoken))
    words.length = seconds = len(path) * 0.04 - 0.01
    words.accept(log_probs[live:])
    words.finish()
    spoken = words.transcript().words
    assert len(spoken) == len(path_words(path))
    assert all(0 <= word.start <= word.end <= seconds for word in spoken)
    assert all(one.end <= other.start for one, other in pairwise(spoken))


def path_words(path: str) -> list[str]:
    """The words of a path of one-letter words."""
    return [letter for last, letter in zip("." + path, path, strict=False) if letter not in (".", last)]


def test_times_are_emission_frames_with_the_calibrated_offsets() -> None:
    config = DecodingConfig(beam=1, start_offset=-0.1, end_offset=-0.02)
    words = WordStream(GreedyDecoder(PIECES), config, 0.04, lookahead=7)
    words.accept(scripted("." * 25 + "acc" + "." * 22 + "b"))
    words.finish()
    first, second = words.transcript().words
    assert (first.text, first.start, first.end) == ("ac", pytest.approx(0.9), pytest.approx(1.1))
    assert (second.text, second.start) == ("b", pytest.approx(1.9))


def test_the_first_word_is_where_it_was_said_not_at_0(babbler: Bundle, audio: NDArray[np.float32]) -> None:
    """What the encoder says while its lookahead fills is no frame of the recording; none is added."""
    first = stream(plain(babbler), audio, [4000])[-1].words[0]
    with torch.inference_mode():
        log_probs, _ = babbler.model.offline(torch.from_numpy(audio)[None], torch.tensor([len(audio)]))
    decoder = new_decoder(babbler)
    decoder.accept(log_probs[0].numpy())
    decoder.flush()
    assert first.start == decoder.take()[0].start * babbler.model.frame_seconds
    words = WordStream(GreedyDecoder(PIECES), DecodingConfig(beam=1), 0.04, lookahead=7)
    words.accept(scripted("." * 10 + "a"))
    words.finish()
    assert words.transcript().words[0].start == pytest.approx(0.4)


# Speech and silence


@pytest.mark.parametrize("hertz", [0, 50, 100])
def test_silence_and_hum_give_no_words(babbler: Bundle, hertz: int) -> None:
    time = np.arange(16000 * 10) / 16000
    hum = sum(0.05 / k * np.sin(2 * np.pi * hertz * k * time) for k in range(1, 9)) * (1 + 0.5 * np.sin(time))
    noise = 1e-3 * np.random.default_rng(1).standard_normal(len(time))
    sound = (hum + noise).astype(np.float32)
    assert stream(plain(babbler), sound, [5120])[-1].text  # these models babble
    assert stream(StreamingRecognizer(babbler), sound, [5120])[-1].text == ""


# Streams


def test_an_empty_stream_finishes_once_and_for_all(babbler: Bundle) -> None:
    recognizer = StreamingRecognizer(babbler)
    assert recognizer.accept(np.zeros(0, np.float32)).words == ()
    first = recognizer.finish()
    assert first.tentative == ""
    assert recognizer.finish() == first


def test_reset_begins_a_new_stream(babbler: Bundle, audio: NDArray[np.float32]) -> None:
    recognizer = StreamingRecognizer(babbler, 320, (), BABBLING, EAGER)
    first = stream(recognizer, audio, [4000])[-1]
    with pytest.raises(RuntimeError, match="reset"):
        recognizer.accept(audio)
    recognizer.reset()
    again = stream(recognizer, audio, [4000])[-1]
    assert again.words == first.words != () and again.endpoints == first.endpoints


def test_two_streams_of_one_model_do_not_meet(babbler: Bundle, audio: NDArray[np.float32]) -> None:
    one, other = plain(babbler, 40), plain(babbler, 40)
    reversed_audio = audio[::-1].copy()
    for start in range(0, len(audio), 1000):
        one.accept(audio[start : start + 1000])
        other.accept(reversed_audio[start : start + 1000])
    assert one.finish().text == offline_text(babbler, audio)
    assert other.finish().text == offline_text(babbler, reversed_audio)


def test_hotwords_need_a_beam(model: CtcModel, tokenizer: Tokenizer) -> None:
    greedy = Bundle(model, tokenizer, DecodingConfig(beam=1))
    with pytest.raises(UserError, match="--beam 8"):
        StreamingRecognizer(greedy, hotwords=(Hotword("fox"),))
    with pytest.raises(UserError, match="--beam 8"):
        StreamingRecognizer(greedy).set_hotwords((Hotword("fox"),))


def test_hotwords_can_change_while_a_stream_runs() -> None:
    decoder = BeamDecoder(PIECES, DecodingConfig(beam=8))
    words = WordStream(decoder, DecodingConfig(beam=8), 0.04)
    path, other = scripted("ac..ac..ac.."), scripted("ad..ad..ad..")
    close = np.logaddexp(path + np.log(0.6), other + np.log(0.4)).astype(np.float32)
    for hotwords in ([], [Hotword("ad", 2.0)], []):
        decoder.set_hotwords(hotwords)
        words.accept(close)
        decoder.flush()
    assert words.transcript().committed == "ac ac ac ad ad ad ac ac ac"


def test_a_recogniser_takes_hotwords_while_it_runs(
    model: CtcModel, tokenizer: Tokenizer, audio: NDArray[np.float32]
) -> None:
    recognizer = plain(Bundle(model, tokenizer, DecodingConfig(beam=8)))
    before = recognizer.accept(audio).committed
    recognizer.set_hotwords((Hotword("fox"),))
    assert recognizer.accept(audio).committed.startswith(before)
    with pytest.raises(UserError, match="no piece"):
        recognizer.set_hotwords((Hotword("\u0436"),))


@pytest.mark.parametrize("beam", [1, 8])
def test_three_hours_keep_memory_flat_and_times_in_order(beam: int) -> None:
    """Speech-like log-probabilities: a decoder, its endpoints, and a server that sends what is new."""
    code = f"""
import resource, sys
import numpy as np
from asr.decoding.config import DecodingConfig
from asr.endpoint import EndpointConfig
from asr.streaming import WordStream
from asr.decoding.beam import BeamDecoder
from asr.decoding.greedy import GreedyDecoder
from tests.conftest import PIECES, scripted
random = np.random.default_rng(1)
config = DecodingConfig(beam={beam})
decoder = BeamDecoder(PIECES, config) if config.beam > 1 else GreedyDecoder(PIECES)
words = WordStream(decoder, config, 0.04, 7, EndpointConfig())
minute = scripted("".join(random.choice(list("abcd......"), 1400)) + "." * 100, 0.3, random)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
said, last, ends = 0, 0.0, 0
for elapsed in range(180):
    for start in range(0, len(minute), 8):
        words.accept(minute[start : start + 8])
        new = words.transcript()
        ends += len(new.new_endpoints)
        for word in new.new_words:
            assert last <= word.start < word.end <= 60 * elapsed + (start + 15) * 0.04 + 1e-6
            last, said = word.end, said + 1
    if elapsed == 20:
        before = peak()
print(peak() - before, said, ends, last)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    growth, said, ends, last = map(float, done.stdout.split())
    assert said > 30000 and ends > 180 and last > 10700
    assert growth < 32  # MiB; the words themselves are most of it


@pytest.mark.parametrize("samples", [np.array([0.1, np.nan]), np.array([np.inf]), np.zeros((2, 100))])
def test_samples_that_are_not_audio_are_refused(babbler: Bundle, samples: NDArray[np.float64]) -> None:
    with pytest.raises(ValueError, match=r"NaN|shape"):
        StreamingRecognizer(babbler).accept(samples.astype(np.float32))
