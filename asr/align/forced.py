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

from asr.errors import UserError
from asr.lexicon import PhoneTokenizer
from asr.text import BLANK, UNKNOWN, Tokenizer, normalise
from asr.transcript import Word

MOST_BYTES = 8 << 30  # of back-pointers; two hours of speech at 40 ms a frame need this much


class Spelling(NamedTuple):
    """A word as it is written, and its tokens."""

    text: str
    tokens: tuple[int, ...]


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
    spelled = [Spelling(word, _tokens(form, tokenizer)) for word, form in normalised if form]
    unknown = list(dict.fromkeys(word.text for word in spelled if UNKNOWN in word.tokens))
    if unknown:
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        what = "letters for" if tokenizer.lexicon is None else "pronunciation of"
        raise UserError(
            f"the model has no {what} {', '.join(unknown[:5])}{more}: write numbers and signs as words"
        )
    return spelled


def _tokens(word: str, tokenizer: Tokenizer | PhoneTokenizer) -> tuple[int, ...]:
    if not isinstance(tokenizer, PhoneTokenizer):
        return tuple(tokenizer.encode(word))
    try:
        ways = tokenizer.lexicon.ways_or_guess(word)
    except ValueError:
        return (UNKNOWN,)
    return tuple(tokenizer.spell(ways[0]))


def align(log_probs: NDArray[np.float32], words: Sequence[Spelling], timing: Timing) -> list[Word]:
    """log_probs (T, V) of a whole recording -> its words in seconds, in order and inside the recording.

    The confidence is the mean probability of the word's tokens. Memory beside the log-probabilities:
    2 L (T - L) bytes. UserError where the text does not fit into T frames, or into `MOST_BYTES`.
    """
    spans = align_tokens(log_probs, [token for word in words for token in word.tokens])
    bounds = pairwise(np.cumsum([0, *(len(word.tokens) for word in words)]).tolist())
    duration = len(log_probs) * timing.frame
    found: list[Word] = []
    for word, (first, last) in zip(words, bounds, strict=True):
        own, after = spans[first:last], found[-1].end if found else 0.0
        start = min(max(own[0].start * timing.frame + timing.start_offset, after), duration)
        end = min(max(own[-1].end * timing.frame + timing.end_offset, start + timing.frame), duration)
        confidence = float(np.exp(np.mean([span.score for span in own])))
        found.append(Word(word.text, start, end, min(1.0, confidence)))
    return found


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
