"""Hotwords: phrases that a stream is to hear more easily, and reading lists of them.

Knows letters and boosts; how the beam rewards them is in csrc/hotwords.h.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from asr.decoding.spelling import Spelling
from asr.errors import UserError
from asr.lexicon import Lexicon
from asr.text import normalise

MOST = 20_000  # phrases of one stream


class Hotword(NamedTuple):
    """A phrase of one or more words, written as transcripts are (`asr.text.normalise`).

    boost: nats for every letter of it that a hypothesis has; None is `DecodingConfig.hotword_boost`.
    """

    phrase: str
    boost: float | None = None


def read_hotwords(
    path: str | Path, pieces: Sequence[str], lexicon: Lexicon | None = None
) -> tuple[Hotword, ...]:
    """One phrase a line, as it is read aloud; then, if wanted, a tab and its boost. `#` begins a comment.

    pieces, lexicon: the tokenizer's. Raises UserError naming file, line and reason.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such list of hotwords; write one phrase a line") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: not a list of hotwords in UTF-8 ({error}); write one phrase a line"
        ) from error
    hotwords = []
    letters = spellable(pieces)
    for number, line in enumerate(lines, 1):
        line = line.split("#", 1)[0]
        if not line.strip():
            continue
        try:
            hotword = _parse(line)
            check(hotword, letters, lexicon)
        except ValueError as error:
            raise UserError(f"{path}, line {number}: {error}") from error
        hotwords.append(hotword)
    if len(hotwords) > MOST:
        raise UserError(f"{path}: {_too_many(len(hotwords))}")
    return tuple(hotwords)


def _parse(line: str) -> Hotword:
    phrase, tab, boost = line.partition("\t")
    phrase = normalise(phrase)
    if not tab:
        return Hotword(phrase)
    try:
        return Hotword(phrase, float(boost))
    except ValueError:
        raise ValueError(
            f"the boost {boost.strip()!r} is not a number; write nats a letter, as 0.5"
        ) from None


def check_hotwords(
    hotwords: Iterable[Hotword], pieces: Sequence[str], lexicon: Lexicon | None = None
) -> None:
    """Raises UserError with the first phrase that cannot be used."""
    hotwords, letters = list(hotwords), spellable(pieces)
    if len(hotwords) > MOST:
        raise UserError(_too_many(len(hotwords)))
    for number, hotword in enumerate(hotwords, 1):
        try:
            check(hotword, letters, lexicon)
        except ValueError as error:
            raise UserError(f"hotword {number}: {error}") from error


def check(hotword: Hotword, letters: frozenset[str], lexicon: Lexicon | None = None) -> None:
    """Raises ValueError saying what is wrong with it."""
    phrase, boost = hotword
    if not phrase.strip():
        raise ValueError("the phrase is empty")
    if lexicon is not None:
        lexicon.phrases(phrase)
    elif missing := set(phrase) - letters - {" "}:
        letter = min(missing, key=phrase.index)
        raise ValueError(
            f"the letter {letter!r} of {phrase!r} is in no piece of the tokenizer; write it as it is spoken"
        )
    if boost is not None and not 0 < boost < math.inf:
        raise ValueError(f"the boost of {phrase!r} has to be above 0, not {boost:g}")


def spellable(pieces: Sequence[str]) -> frozenset[str]:
    """The letters that the pieces can spell."""
    spelling = Spelling(pieces)
    return frozenset(letter for token, text in enumerate(spelling.letters) if token > 1 for letter in text)


def _too_many(count: int) -> str:
    return f"{count} hotwords are too many, {MOST} at most: every one makes mistaking others for it easier"
