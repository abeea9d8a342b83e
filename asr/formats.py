"""A transcript as text, JSON, SRT or WebVTT; words with times are cut into captions that can be read.

Knows words and seconds, nothing of audio or models. Captions keep the usual limits of subtitling: two lines
of at most 42 characters, at most 6 s, broken at endpoints and where the speaker pauses.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from asr.transcript import Transcript, Word, join

LINE = 42  # characters
LINES = 2
LONGEST, SHORTEST = 6000, 1000  # milliseconds a caption stands, where the next one leaves room
PAUSE = 0.7  # seconds of silence that always end a caption

FORMATS = ("text", "json", "srt", "vtt")
SUFFIXES = {"text": "txt", "json": "json", "srt": "srt", "vtt": "vtt"}


@dataclass(frozen=True)
class Caption:
    """One or two lines on the screen from `start` to `end`, in milliseconds."""

    start: int
    end: int
    lines: tuple[str, ...]


def render(transcript: Transcript, format: str) -> str:
    """The transcript in one of FORMATS, ending with a newline. Raises ValueError for another format."""
    renderers: dict[str, Callable[[Transcript], str]] = {
        "text": lambda transcript: transcript.text + "\n",
        "json": _json,
        "srt": lambda transcript: _srt(captions(transcript.segments)),
        "vtt": lambda transcript: _vtt(captions(transcript.segments)),
    }
    if format not in renderers:
        raise ValueError(f"unknown format {format!r}; there are: {', '.join(FORMATS)}")
    return renderers[format](transcript)


def captions(segments: Sequence[Sequence[Word]]) -> list[Caption]:
    """Captions in order, never overlapping, each of words of one segment and at least a millisecond long."""
    groups = [
        group
        for words in segments
        for phrase in _phrases([piece for word in words for piece in _pieces(word)])
        for group in _fitting(phrase)
    ]
    return _timed(groups)


def _pieces(word: Word) -> Iterator[Word]:
    """The word; where it is longer than a line (scripts without spaces), parts with shares of its time."""
    text = " ".join(word.text.split())
    parts = [text[start : start + LINE].strip() for start in range(0, len(text), LINE)]
    share = (word.end - word.start) / max(1, len(parts))
    for index, part in enumerate(parts):
        yield Word(part, word.start + index * share, word.start + (index + 1) * share, word.confidence)


def _phrases(words: Sequence[Word]) -> Iterator[list[Word]]:
    """Runs of words without a long pause in them."""
    start = 0
    for index in range(1, len(words) + 1):
        if index == len(words) or words[index].start - words[index - 1].end >= PAUSE:
            yield list(words[start:index])
            start = index


def _fitting(phrase: list[Word]) -> Iterator[list[Word]]:
    """A phrase in captions that fit, each but the last broken at the longest pause of its second half."""
    while phrase:
        count = 1
        while count < len(phrase) and _fits(phrase[: count + 1]):
            count += 1
        if count < len(phrase):
            candidates = range((count + 1) // 2, count + 1)
            count = max(candidates, key=lambda cut: (round(phrase[cut].start - phrase[cut - 1].end, 2), cut))
        yield phrase[:count]
        phrase = phrase[count:]


def _fits(words: Sequence[Word]) -> bool:
    return 1000 * (words[-1].end - words[0].start) <= LONGEST and _lines(words) is not None


def _lines(words: Sequence[Word]) -> tuple[str, ...] | None:
    """One line, or two of lengths as equal as can be; None if there is more than two lines hold."""
    texts = [word.text for word in words]
    if len(" ".join(texts)) <= LINE:
        return (" ".join(texts),)
    pairs = [(" ".join(texts[:cut]), " ".join(texts[cut:])) for cut in range(1, len(texts))]
    holding = [pair for pair in pairs if max(map(len, pair)) <= LINE]
    return min(holding, key=lambda pair: abs(len(pair[0]) - len(pair[1])), default=None)


def _timed(groups: Sequence[Sequence[Word]]) -> list[Caption]:
    """From the first word to the last, at least SHORTEST if the next caption leaves room, at most LONGEST."""
    timed: list[Caption] = []
    starts = [round(1000 * group[0].start) for group in groups]
    for index, group in enumerate(groups):
        start = max(starts[index], timed[-1].end if timed else 0)
        end = min(max(round(1000 * group[-1].end), start + SHORTEST), start + LONGEST)
        if index + 1 < len(groups):
            end = min(end, starts[index + 1])
        timed.append(Caption(start, max(end, start + 1), _lines(group) or ()))
    return timed


def _json(transcript: Transcript) -> str:
    words = [
        {
            "text": word.text,
            "start": _rounded(word.start),
            "end": _rounded(word.end),
            "confidence": _rounded(word.confidence),
        }
        for word in transcript.words
    ]
    segments = [
        {
            "text": join(segment),
            "start": _rounded(segment[0].start),
            "end": _rounded(segment[-1].end),
            # of calibrated words, the share that is expected to be right
            "confidence": _rounded(sum(word.confidence for word in segment) / len(segment)),
        }
        for segment in transcript.segments
    ]
    document = {"text": transcript.text, "words": words, "segments": segments}
    return json.dumps(document, ensure_ascii=False, indent=1) + "\n"


def _rounded(value: float) -> float:
    return round(value, 3)


def _srt(captions: Sequence[Caption]) -> str:
    # SRT has no escapes: players show text as it is, but for tags, and normalised words hold none.
    blocks = (
        f"{number}\n{_clock(caption.start, ',')} --> {_clock(caption.end, ',')}\n"
        + "\n".join(caption.lines)
        + "\n"
        for number, caption in enumerate(captions, start=1)
    )
    return "\n".join(blocks)


def _vtt(captions: Sequence[Caption]) -> str:
    blocks = (
        f"\n{_clock(caption.start, '.')} --> {_clock(caption.end, '.')}\n"
        + _escaped("\n".join(caption.lines))
        + "\n"
        for caption in captions
    )
    return "WEBVTT\n" + "".join(blocks)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _clock(milliseconds: int, point: str) -> str:
    seconds, thousandths = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{point}{thousandths:03}"
