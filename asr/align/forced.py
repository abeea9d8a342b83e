"""Forced alignment: log-probabilities and a text in, the words with their times out.

The alignment is the likeliest CTC path that spells the text (torchaudio's `forced_align`). Knows nothing of
models or files. T frames, V vocabulary, L tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torchaudio.functional import TokenSpan, forced_align, merge_tokens

from asr.align.ways import Way, choose_ways
from asr.errors import UserError
from asr.lexicon import PhoneTokenizer
from asr.text import BLANK, UNKNOWN, Tokenizer, normalise
from asr.transcript import Word

PIECE = 200  # words of which the ways to say them are chosen together
MOST_BYTES = 8 << 30  # of back-pointers; two hours of speech at 40 ms a frame need this much


class Spelling(NamedTuple):
    """A word as it is written, and its tokens: those of each way to say it, where a lexicon has several."""

    text: str
    ways: tuple[tuple[int, ...], ...]


class Timing(NamedTuple):
    """How frames become seconds: the offsets, in seconds, are what calibration found (`DecodingConfig`)."""

    frame: float  # seconds
    start_offset: float = 0.0
    end_offset: float = 0.0


def spell(text: str, tokenizer: Tokenizer | PhoneTokenizer) -> list[Spelling]:
    """The words of a text as they stand there, each with the tokens of its normalised form.

    What normalises to nothing (a dash by itself) is left out. UserError names the words for which the
    tokenizer has no letters, or its lexicon no pronunciation.
    """
    normalised = [(word, normalise(word)) for word in text.split()]
    spelled = [Spelling(word, _ways(form, tokenizer)) for word, form in normalised if form]
    unknown = list(dict.fromkeys(word.text for word in spelled if UNKNOWN in word.ways[0]))
    if unknown:
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        what = "letters for" if tokenizer.lexicon is None else "pronunciation of"
        raise UserError(
            f"the model has no {what} {', '.join(unknown[:5])}{more}: write numbers and signs as words"
        )
    return spelled


def _ways(word: str, tokenizer: Tokenizer | PhoneTokenizer) -> tuple[tuple[int, ...], ...]:
    if not isinstance(tokenizer, PhoneTokenizer):
        return (tuple(tokenizer.encode(word)),)
    try:
        ways = tokenizer.lexicon.ways_or_guess(word)
    except ValueError:
        return ((UNKNOWN,),)
    return tuple(tuple(tokenizer.spell(way)) for way in ways)


def align(log_probs: NDArray[np.float32], words: Sequence[Spelling], timing: Timing) -> list[Word]:
    """log_probs (T, V) of a whole recording -> its words in seconds, in order and inside the recording.

    A word is said in the likeliest of its ways; the confidence is the mean probability of its tokens. Memory
    beside the log-probabilities: 2 L (T - L) bytes. UserError where the text does not fit into T frames, or
    into `MOST_BYTES`.
    """
    said = _choose_ways(log_probs, [word.ways for word in words])
    spans = align_tokens(log_probs, [token for way in said for token in way])
    bounds = pairwise(np.cumsum([0, *map(len, said)]).tolist())
    duration = len(log_probs) * timing.frame
    found: list[Word] = []
    for word, (first, last) in zip(words, bounds, strict=True):
        own, after = spans[first:last], found[-1].end if found else 0.0
        start = min(max(own[0].start * timing.frame + timing.start_offset, after), duration)
        end = min(max(own[-1].end * timing.frame + timing.end_offset, start + timing.frame), duration)
        confidence = float(np.exp(np.mean([span.score for span in own])))
        found.append(Word(word.text, start, end, min(1.0, confidence)))
    return found


def _choose_ways(log_probs: NDArray[np.float32], words: Sequence[Sequence[Way]]) -> list[Way]:
    """`choose_ways` for texts of any length: piece by piece, at the times that the first ways have."""
    if len(words) <= PIECE or all(len(ways) == 1 for ways in words):
        return choose_ways(log_probs, words)
    spans = align_tokens(log_probs, [token for ways in words for token in ways[0]])
    starts = np.cumsum([0, *(len(ways[0]) for ways in words)])[:-1:PIECE]
    edges = [0, *(spans[start].start for start in starts[1:].tolist()), len(log_probs)]
    return [
        way
        for piece, (begin, end) in enumerate(pairwise(edges))
        for way in choose_ways(log_probs[begin:end], words[piece * PIECE : (piece + 1) * PIECE])
    ]


def align_tokens(log_probs: NDArray[np.float32], tokens: Sequence[int]) -> list[TokenSpan]:
    """log_probs (T, V), tokens (L,) -> the frames [start, end) and mean log-probability of each token.

    UserError where L tokens cannot be said in T frames, or the work does not fit into memory.
    """
    if not tokens:
        return []
    frames = len(log_probs)
    needed = len(tokens) + sum(left == right for left, right in pairwise(tokens))
    if needed > frames:
        raise UserError(
            f"the text is too long for the audio: its {len(tokens)} tokens need {needed} frames, and there"
            f" are {frames}; check that they belong together"
        )
    size = 2 * len(tokens) * (frames - len(tokens))
    if size > MOST_BYTES:
        raise UserError(
            f"the alignment would take {size / 2**30:.0f} GiB of memory; cut recording and text into parts"
        )
    with torch.inference_mode():
        path, scores = forced_align(
            torch.from_numpy(np.ascontiguousarray(log_probs))[None],
            torch.tensor([list(tokens)], dtype=torch.int32),
            blank=BLANK,
        )
        return merge_tokens(path[0], scores[0], BLANK)
