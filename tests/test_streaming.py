"""The words of a live stream are those of the recording as a whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from asr.decoding.greedy import GreedyDecoder
from asr.decoding.types import Transcript
from asr.model import CtcModel
from asr.streaming import StreamingRecognizer
from asr.text import Tokenizer

FRESH = settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])


def offline_text(model: CtcModel, tokenizer: Tokenizer, audio: NDArray[np.float32]) -> str:
    with torch.inference_mode():
        log_probs, frames = model.offline(torch.from_numpy(audio)[None], torch.tensor([len(audio)]))
    decoder = GreedyDecoder()
    decoder.accept(log_probs[0, : frames[0]].numpy())
    return " ".join(tokenizer.decode([token.id for token in decoder.best().tokens]).split())


def stream(recognizer: StreamingRecognizer, audio: NDArray[np.float32], sizes: list[int]) -> list[Transcript]:
    transcripts, start, turn = [], 0, 0
    while start < len(audio):
        size = sizes[turn % len(sizes)]
        transcripts.append(recognizer.accept(audio[start : start + size]))
        start, turn = start + size, turn + 1
    return [*transcripts, recognizer.finish()]


@FRESH
@given(
    sizes=st.lists(st.integers(1, 20000), min_size=1, max_size=6),
    chunk_ms=st.sampled_from([0, 40, 100, 320, 1000]),
)
def test_any_pieces_give_the_offline_text(
    model: CtcModel, tokenizer: Tokenizer, audio: NDArray[np.float32], sizes: list[int], chunk_ms: float
) -> None:
    expected = offline_text(model, tokenizer, audio)
    assert expected  # the sharpened model says something
    final = stream(StreamingRecognizer(model, tokenizer, chunk_ms), audio, sizes)[-1]
    assert (final.text, final.tentative) == (expected, "")


@FRESH
@given(sizes=st.lists(st.integers(1, 5000), min_size=1, max_size=4))
@example(sizes=[1])
def test_any_pieces_give_the_offline_log_probs(
    model: CtcModel, tokenizer: Tokenizer, audio: NDArray[np.float32], sizes: list[int]
) -> None:
    audio = audio[:12345]
    with torch.inference_mode():
        offline, _ = model.offline(torch.from_numpy(audio)[None], torch.tensor([len(audio)]))
    recognizer = StreamingRecognizer(model, tokenizer, chunk_ms=0)
    decoder = Recorder()
    recognizer._decoder = decoder
    stream(recognizer, audio, sizes)
    np.testing.assert_allclose(np.concatenate(decoder.heard), offline[0].numpy(), atol=1e-4, rtol=0)


class Recorder(GreedyDecoder):
    """Keeps the log-probabilities it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[NDArray[np.float32]] = []

    def accept(self, log_probs: NDArray[np.float32]) -> None:
        self.heard.append(log_probs)
        super().accept(log_probs)


def test_one_sample_at_a_time_gives_the_offline_text(
    model: CtcModel, tokenizer: Tokenizer, audio: NDArray[np.float32]
) -> None:
    audio = audio[:9000]
    final = stream(StreamingRecognizer(model, tokenizer), audio, [1])[-1]
    assert final.text == offline_text(model, tokenizer, audio)


def test_committed_text_only_grows(model: CtcModel, tokenizer: Tokenizer, audio: NDArray[np.float32]) -> None:
    committed = ""
    partials = stream(StreamingRecognizer(model, tokenizer, 40), np.tile(audio, 3), [640])
    for transcript in partials:
        assert transcript.committed.startswith(committed)
        committed = transcript.committed
    assert len({transcript.text for transcript in partials}) > 3  # there were partials to speak of


def test_word_times_are_in_order_and_inside_the_recording(
    model: CtcModel, tokenizer: Tokenizer, audio: NDArray[np.float32]
) -> None:
    words = stream(StreamingRecognizer(model, tokenizer), audio, [5000])[-1].words
    times = [time for word in words for time in (word.start, word.end)]
    assert words and times == sorted(times)
    assert times[0] >= 0 and times[-1] <= len(audio) / 16000 + model.frame_seconds
    assert all(0 < word.confidence <= 1 for word in words)


def test_words_join_to_the_text(model: CtcModel, tokenizer: Tokenizer, audio: NDArray[np.float32]) -> None:
    for transcript in stream(StreamingRecognizer(model, tokenizer, 80), audio, [3000]):
        assert " ".join(word.text for word in transcript.words) == transcript.text


def test_an_empty_stream_finishes_once_and_for_all(model: CtcModel, tokenizer: Tokenizer) -> None:
    recognizer = StreamingRecognizer(model, tokenizer)
    assert recognizer.accept(np.zeros(0, np.float32)).words == ()
    first = recognizer.finish()
    assert first.tentative == ""
    assert recognizer.finish() == first


def test_reset_begins_a_new_stream(model: CtcModel, tokenizer: Tokenizer, audio: NDArray[np.float32]) -> None:
    recognizer = StreamingRecognizer(model, tokenizer)
    first = stream(recognizer, audio, [4000])[-1]
    with pytest.raises(RuntimeError, match="reset"):
        recognizer.accept(audio)
    recognizer.reset()
    assert stream(recognizer, audio, [7000])[-1].text == first.text


def test_two_streams_of_one_model_do_not_meet(
    model: CtcModel, tokenizer: Tokenizer, audio: NDArray[np.float32]
) -> None:
    one, other = StreamingRecognizer(model, tokenizer, 40), StreamingRecognizer(model, tokenizer, 40)
    reversed_audio = audio[::-1].copy()
    for start in range(0, len(audio), 1000):
        one.accept(audio[start : start + 1000])
        other.accept(reversed_audio[start : start + 1000])
    assert one.finish().text == offline_text(model, tokenizer, audio)
    assert other.finish().text == offline_text(model, tokenizer, reversed_audio)


@pytest.mark.parametrize("samples", [np.array([0.1, np.nan]), np.array([np.inf]), np.zeros((2, 100))])
def test_samples_that_are_not_audio_are_refused(
    model: CtcModel, tokenizer: Tokenizer, samples: NDArray[np.float64]
) -> None:
    with pytest.raises(ValueError, match=r"NaN|shape"):
        StreamingRecognizer(model, tokenizer).accept(samples.astype(np.float32))
