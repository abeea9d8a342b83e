"""Transcripts in four formats: read back they are what was written, and captions can be read."""

from __future__ import annotations

import html
import json
import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.formats import FORMATS, LINE, LONGEST, PAUSE, SUFFIXES, captions, render
from asr.transcript import Transcript, Word

TIME = r"(\d\d+):(\d\d):(\d\d)[,.](\d\d\d)"


def transcript(*words: Word) -> Transcript:
    return Transcript.of(words)


def spoken(text: str, start: float = 0.0, word: float = 0.3, gap: float = 0.05) -> list[Word]:
    """Words one after the other, evenly."""
    step = word + gap
    return [Word(each, start + n * step, start + n * step + word, 0.9) for n, each in enumerate(text.split())]


def read_captions(text: str) -> list[tuple[float, float, list[str]]]:
    """What a player makes of SRT or VTT: start, end (seconds) and lines of each caption."""
    found = []
    for block in re.split(r"\n\n+", text.removeprefix("WEBVTT\n").strip()):
        lines = block.split("\n")
        timing = next((number for number, line in enumerate(lines) if " --> " in line), None)
        if timing is not None:
            match = re.fullmatch(f"{TIME} --> {TIME}", lines[timing])
            assert match, lines[timing]
            numbers = [int(group) for group in match.groups()]
            start, end = (3600 * h + 60 * m + s + ms / 1000 for h, m, s, ms in (numbers[:4], numbers[4:]))
            found.append((start, end, lines[timing + 1 :]))
    return found


@st.composite
def speech(draw: st.DrawFn) -> list[Word]:
    """Words of any text in order of time, some without duration, some overlapping the next."""
    texts = draw(st.lists(st.text("abc'&<>é", min_size=1, max_size=50), max_size=40))
    words, time = [], draw(st.floats(0, 4000))
    for text in texts:
        time += draw(st.floats(0, 2))
        words.append(Word(text, time, time + draw(st.floats(0, 9)), 0.5))
    return words


@given(speech())
def test_json_gives_the_words_back(words: list[Word]) -> None:
    document = json.loads(render(transcript(*words), "json"))
    back = [Word(**word) for word in document["words"]]
    assert [word.text for word in back] == [word.text for word in words]
    assert [word.start for word in back] == pytest.approx([word.start for word in words], abs=1e-3)
    assert [word.end for word in back] == pytest.approx([word.end for word in words], abs=1e-3)
    assert document["text"] == transcript(*words).text


@given(speech(), st.sampled_from(["srt", "vtt"]))
def test_captions_give_all_characters_back_in_order(words: list[Word], format: str) -> None:
    lines = [line for _, _, lines in read_captions(render(transcript(*words), format)) for line in lines]
    shown = "".join(lines).replace(" ", "")
    assert (html.unescape(shown) if format == "vtt" else shown) == "".join(word.text for word in words)


@given(speech())
def test_captions_never_overlap_and_keep_their_limits(words: list[Word]) -> None:
    made = captions([words])
    assert all(caption.start < caption.end <= caption.start + LONGEST for caption in made)
    assert all(first.end <= second.start for first, second in pairwise(made))
    assert all(len(caption.lines) in (1, 2) for caption in made)
    assert all(0 < len(line) <= LINE for caption in made for line in caption.lines)


def test_captions_break_at_a_pause() -> None:
    words = spoken("good morning") + spoken("how are you", start=0.65 + PAUSE)
    assert [caption.lines for caption in captions([words])] == [("good morning",), ("how are you",)]


def test_captions_break_at_an_endpoint() -> None:
    """However short the pause: what a segment says is one thing."""
    words = spoken("good morning how are you", gap=0.01)
    made = render(Transcript.of(words, ends=[2]), "srt")
    assert [lines for _, _, lines in read_captions(made)] == [["good morning"], ["how are you"]]


def test_json_tells_what_share_of_a_segments_words_is_expected_to_be_right() -> None:
    words = [Word("good", 0.0, 0.2, 0.9), Word("morning", 0.3, 0.6, 0.5)]
    (segment,) = json.loads(render(Transcript.of(words), "json"))["segments"]
    assert segment["confidence"] == 0.7


def test_json_tells_the_segments() -> None:
    words = spoken("good morning how are you")
    document = json.loads(render(Transcript.of(words, ends=[2]), "json"))
    assert [segment["text"] for segment in document["segments"]] == ["good morning", "how are you"]
    assert [segment["start"] for segment in document["segments"]] == [0.0, 0.7]


def test_long_speech_breaks_at_its_longest_pause_not_at_the_limit() -> None:
    first = spoken("one two three four five six seven eight nine ten eleven", word=0.2)
    second = spoken("and then we went home for it was late at night", start=first[-1].end + 0.4, word=0.2)
    assert captions([first + second])[0].end <= round(1000 * second[0].start)
    assert " ".join(captions([first + second])[0].lines).endswith("ten eleven")


def test_slow_speech_breaks_by_time() -> None:
    made = captions([spoken("so much time for few words in here", word=0.9, gap=0.3)])
    assert len(made) >= 2
    assert (
        " ".join(line for caption in made for line in caption.lines) == "so much time for few words in here"
    )


def test_two_lines_are_of_like_length() -> None:
    (caption,) = captions([spoken("the quick brown fox jumps over the lazy dog now", word=0.2)])
    assert abs(len(caption.lines[0]) - len(caption.lines[1])) <= 6


def test_a_short_word_stands_long_enough_to_be_read() -> None:
    lone, crowded = (
        captions([[Word("yes", 1.0, 1.1, 1.0)]]),
        captions([[Word("yes", 1, 1.1, 1), Word("no", 1.9, 2.0, 1)]]),
    )
    assert (lone[0].start, lone[0].end) == (1000, 2000)
    assert crowded[0].end == crowded[1].start == 1900


def test_srt_is_as_players_expect() -> None:
    words = [Word("hello", 3661.25, 3662.5, 1.0), Word("world", 3665, 3666.5, 1.0)]
    assert render(transcript(*words), "srt") == (
        "1\n01:01:01,250 --> 01:01:02,500\nhello\n\n2\n01:01:05,000 --> 01:01:06,500\nworld\n"
    )


def test_vtt_is_as_browsers_expect_and_escaped() -> None:
    words = [Word("r&d", 0, 1.5, 1.0), Word("<b>", 1.5, 2, 1.0), Word("-->", 2, 2.5, 1.0)]
    assert render(transcript(*words), "vtt") == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:02.500\nr&amp;d &lt;b&gt; --&gt;\n"
    )


def test_text_is_the_text() -> None:
    assert render(Transcript.of(spoken("hello there"), spoken("world", 1)), "text") == "hello there world\n"


def test_nothing_said_is_an_empty_document_of_each_format() -> None:
    empty = transcript()
    assert {format: render(empty, format) for format in FORMATS} == {
        "text": "\n",
        "json": '{"text": "", "words": [], "segments": []}\n'.replace('{"', '{\n "')
        .replace(', "', ',\n "')
        .replace("}", "\n}"),
        "srt": "",
        "vtt": "WEBVTT\n",
    }


def test_every_format_has_a_suffix_and_others_are_refused() -> None:
    assert set(SUFFIXES) == set(FORMATS)
    with pytest.raises(ValueError, match="docx"):
        render(transcript(), "docx")
