"""CTM, NIST's table of timed words, a line each: recording, channel, start, duration, word[, confidence].

The format in which aligners and scorers exchange word times; everything is in seconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from asr.errors import UserError
from asr.transcript import Word


class TimedWord(Protocol):
    """A `Word`, or anything else with its fields."""

    @property
    def text(self) -> str: ...
    @property
    def start(self) -> float: ...
    @property
    def end(self) -> float: ...
    @property
    def confidence(self) -> float: ...


def write_ctm(recording: str, words: Iterable[TimedWord]) -> str:
    """A line a word; spaces in the recording's name, which would be columns, become underscores."""
    name = "_".join(recording.split())
    return "".join(
        f"{name} 1 {word.start:.3f} {word.end - word.start:.3f} {word.text} {word.confidence:.3f}\n"
        for word in words
    )


def read_ctm(path: Path) -> dict[str, list[Word]]:
    """The words of each recording, by start; channels are not told apart, and ;; begins a comment.

    A missing confidence is 1. UserError names file and line of what is not CTM.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); give a CTM file, e.g. of asr align") from error
    recordings: dict[str, list[Word]] = {}
    for number, line in enumerate(lines, start=1):
        if line.strip() and not line.startswith(";;"):
            name, word = _parse(line, f"{path}: line {number}")
            recordings.setdefault(name, []).append(word)
    if not recordings:
        raise UserError(f"{path}: holds no words; give a CTM file, e.g. of asr align")
    return {name: sorted(words, key=lambda word: word.start) for name, words in recordings.items()}


def _parse(line: str, where: str) -> tuple[str, Word]:
    fields = line.split()
    if len(fields) not in (5, 6):
        raise UserError(
            f"{where} has {len(fields)} fields; CTM: recording, channel, start, duration, word[, confidence]"
        )
    try:
        start, duration, confidence = float(fields[2]), float(fields[3]), float((*fields, "1")[5])
    except ValueError:
        raise UserError(f"{where}: start, duration and confidence must be numbers: {line.strip()}") from None
    if not (0 <= start < float("inf") and 0 <= duration < float("inf")):
        raise UserError(f"{where}: start and duration must be seconds, 0 or more: {line.strip()}")
    return fields[0], Word(fields[4], start, start + duration, confidence)
