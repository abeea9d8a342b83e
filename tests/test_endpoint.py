"""Endpoints come when their rule says, and cost nothing: no word is lost, cut or said twice."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from asr.decoding.beam import BeamDecoder
from asr.decoding.config import DecodingConfig
from asr.decoding.greedy import GreedyDecoder
from asr.decoding.types import Decoder
from asr.endpoint import EndpointConfig, Endpointer
from asr.streaming import WordStream
from asr.transcript import Transcript
from tests.conftest import PIECES, scripted

FRAME = 0.04
OFF = EndpointConfig(None, None, None)
SHORT = EndpointConfig(silence=5 * FRAME, no_speech=8 * FRAME, max_length=20 * FRAME)
words = st.builds(
    lambda letters, inside, after: (".".join(letters) if inside else letters) + "." * after,
    st.from_regex("[ab](cd){0,3}", fullmatch=True),
    st.booleans(),
    st.integers(1, 14),
)
paths = st.lists(words, max_size=12).map(lambda said: ("." * 3 + "".join(said))[:120])


def decoder(beam: int) -> Decoder:
    return GreedyDecoder(PIECES) if beam == 1 else BeamDecoder(PIECES, DecodingConfig(beam=beam))


def listen(
    path: str,
    rules: EndpointConfig | None,
    beam: int = 1,
    sizes: tuple[int, ...] = (8,),
    speech: NDArray[np.int64] | None = None,
) -> Transcript:
    """The whole stream's transcript; `speech` as `WordStream.accept` takes it."""
    stream = WordStream(decoder(beam), DecodingConfig(beam=beam), FRAME, 0, rules)
    log_probs, start, turn = scripted(path), 0, 0
    while start < len(path):
        end = start + sizes[turn % len(sizes)]
        stream.accept(log_probs[start:end], None if speech is None else speech[start:end])
        stream.transcript()
        start, turn = end, turn + 1
    stream.finish()
    return stream.transcript()


def found(transcript: Transcript) -> list[tuple[int, int, str]]:
    """(words before it, frames, reason) of each endpoint."""
    return [(end.words, round(end.time / FRAME), end.reason) for end in transcript.endpoints]


def test_a_segment_with_words_ends_after_silence() -> None:
    assert found(listen("..ac.b......", SHORT)) == [(2, 11, "silence")]
    assert found(listen("..ac.b....", SHORT)) == []
    assert found(listen("..ac....b....", SHORT)) == []


def test_silence_without_words_is_told_once() -> None:
    assert found(listen("." * 30, SHORT)) == [(0, 8, "no speech")]
    assert found(listen("." * 30 + "a" + "." * 30, SHORT)) == [
        (0, 8, "no speech"),
        (1, 36, "silence"),
        (1, 44, "no speech"),
    ]


def test_a_long_segment_ends_at_its_last_final_word() -> None:
    """The word that is being said when the time is over goes on in the next segment, whole."""
    transcript = listen("a.c." * 4 + "b.dcdcdcdc.." + "a.c.", SHORT)
    assert found(transcript) == [(4, 20, "length")]
    assert [[word.text for word in segment] for segment in transcript.segments] == [
        ["ac", "ac", "ac", "ac"],
        ["bdcdcdcdc", "ac"],
    ]


def test_one_endless_word_is_not_cut() -> None:
    transcript = listen("a" + "cd" * 40 + "..", SHORT)
    assert [word.text for word in transcript.words] == ["a" + "cd" * 40]
    assert found(transcript) == []


@pytest.mark.parametrize(
    ("rules", "reasons"),
    [
        (EndpointConfig(None, 8 * FRAME, 20 * FRAME), {"no speech", "length"}),
        (EndpointConfig(5 * FRAME, None, 20 * FRAME), {"silence", "length"}),
        (EndpointConfig(5 * FRAME, 8 * FRAME, None), {"silence", "no speech"}),
        (OFF, set()),
    ],
)
def test_each_rule_can_be_off(rules: EndpointConfig, reasons: set[str]) -> None:
    path = "." * 10 + "a.b." * 10 + "." * 20 + "a"
    assert {end.reason for end in listen(path, rules).endpoints} == reasons


@settings(max_examples=60)
@pytest.mark.parametrize("beam", [1, 6])
@given(path=paths)
def test_no_word_is_lost_cut_or_doubled_at_an_endpoint(beam: int, path: str) -> None:
    """And its times are those that it has without endpoints: the stream goes on."""
    transcripts = listen(path, SHORT, beam), listen(path, None, beam)
    found, expected = [
        [(word.text, word.start, word.end) for segment in each.segments for word in segment]
        for each in transcripts
    ]
    assert found == expected
    assert [text for text, _, _ in found] == said(path)


def said(path: str) -> list[str]:
    return "".join(f" {letter}" if letter in "ab" else letter for letter in path.replace(".", "")).split()


@settings(max_examples=40)
@pytest.mark.parametrize("beam", [1, 6])
@given(path=paths, sizes=st.lists(st.integers(1, 30), min_size=1, max_size=5), seed=st.integers(0, 99))
def test_any_chunking_gives_the_same_endpoints(beam: int, path: str, sizes: list[int], seed: int) -> None:
    speech = np.random.default_rng(seed).integers(0, 12, len(path))
    whole = listen(path, SHORT, beam, (10**6,), speech)
    pieces = listen(path, SHORT, beam, tuple(sizes), speech)
    assert (pieces.endpoints, pieces.words) == (whole.endpoints, whole.words)


def test_speech_that_the_decoder_does_not_write_is_no_silence() -> None:
    """Where the VAD hears a voice, a pause of the decoder's is no end."""
    path = "ac" + "." * 10
    speech = np.array([0] * 6 + [1, 2, 3, 4, 5, 6])
    assert found(listen(path, SHORT, speech=speech)) == [(1, 11, "silence")]
    assert found(listen(path, SHORT)) == [(1, 7, "silence")]


def test_a_word_that_sounds_across_an_endpoint_is_said_once() -> None:
    """A token that goes on in the frame after a flush is the same token."""
    stream = WordStream(GreedyDecoder(PIECES), DecodingConfig(beam=1), FRAME, 0, None)
    stream.accept(scripted("..aa"))
    stream.decoder.flush()
    stream.accept(scripted("aa..b"))
    stream.finish()
    assert stream.transcript().committed == "a b"


def test_tentative_words_are_committed_at_an_endpoint() -> None:
    stream = WordStream(GreedyDecoder(PIECES), DecodingConfig(beam=1), FRAME, 0, SHORT)
    stream.accept(scripted("ac...."))
    before = stream.transcript()
    assert (before.committed, before.tentative) == ("", "ac")
    stream.accept(scripted("."))
    after = stream.transcript()
    assert (after.committed, after.tentative) == ("ac", "")
    assert [end.reason for end in after.new_endpoints] == ["silence"]
    assert stream.transcript().new_endpoints == ()


@given(st.lists(st.booleans(), max_size=200))
def test_looking_only_when_due_misses_no_frame(sounds: list[bool]) -> None:
    """Every frame looked at, or only those that are due: the same endpoints."""

    def endpoints(every: bool) -> list[tuple[int, str]]:
        endpointer, silence, first, ends = Endpointer(SHORT, FRAME), 0, None, []
        for frame, sound in enumerate(sounds, 1):
            silence = 0 if sound else silence + 1
            first = frame - 1 if sound and first is None else first
            if every or frame == endpointer.due:
                reason = endpointer.check(frame, silence, first, first is not None)
                if reason:
                    ends.append((frame, reason))
                    first = None
        return ends

    assert endpoints(every=False) == endpoints(every=True)
