"""Best-path CTC decoding of one stream: the likeliest output of each frame, repeats merged, blanks removed.

Knows nothing of language models or hotwords. T frames, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from asr.decoding.spelling import Spelling
from asr.decoding.types import DecodedWord, Token
from asr.text import BLANK


class GreedyDecoder:
    """A `Decoder`. In a best path only the last word can still grow, so a word is final when the next begins.

    A word's confidence is the geometric mean of its tokens' probabilities, each the highest of its frames.
    """

    def __init__(self, pieces: Sequence[str]) -> None:
        self._spelling = Spelling(pieces)
        self.reset()

    def reset(self) -> None:
        self._frame = 0  # frames decoded so far
        self._previous = BLANK  # the output of the last frame
        self._sounded = 0  # the frame after the last output that was no blank
        self._tokens: list[Token] = []  # of the last word
        self._best: list[float] = []  # the log-probability of each, the highest of its frames
        self._began = 0  # frames decoded when that word got its present text
        self._final: list[DecodedWord] = []

    def accept(self, log_probs: NDArray[np.float32]) -> None:
        values = check_frames(log_probs, len(self._spelling), self._frame)
        for output, value in zip(log_probs.argmax(-1).tolist(), values.tolist(), strict=True):
            self._frame += 1
            if output != BLANK:
                self._emit(output, value)
                self._sounded = self._frame
            self._previous = output

    def _emit(self, output: int, value: float) -> None:
        if output != self._previous:
            if self._spelling.starts_word[output]:
                self.flush()
            if self._spelling.letters[output] or not self._tokens:
                self._began = self._frame
            self._tokens.append(Token(output, self._frame - 1, self._frame))
            self._best.append(value)
        elif self._tokens:  # else it is the tail of a final token
            self._tokens[-1] = self._tokens[-1]._replace(end=self._frame)
            self._best[-1] = max(self._best[-1], value)

    def take(self) -> list[DecodedWord]:
        taken, self._final = self._final, []
        return taken

    def tentative(self) -> list[DecodedWord]:
        ids = tuple(token.id for token in self._tokens)
        text = self._spelling.word(ids)
        if not text:
            return []
        confidence = math.exp(sum(self._best) / len(self._best))
        start, end, survived = self._tokens[0].start, self._tokens[-1].end, self._frame - self._began + 1
        return [DecodedWord(text, ids, start, end, min(confidence, 1.0), survived)]

    def flush(self) -> None:
        self._final += self.tentative()
        self._tokens, self._best = [], []

    @property
    def trailing_blanks(self) -> int:
        return self._frame - self._sounded


def check_frames(log_probs: NDArray[np.float32], vocabulary: int, frame: int) -> NDArray[np.float32]:
    """The largest of each frame, (T,). ValueError for log-probabilities that no decoder can go on with.

    frame: the number of the first."""
    if log_probs.ndim != 2 or log_probs.shape[1] != vocabulary:
        raise ValueError(
            f"expected log-probabilities (T, {vocabulary}), one for each piece of the tokenizer,"
            f" got an array of shape {log_probs.shape}"
        )
    best = log_probs.max(-1)  # is NaN where one is
    broken = ~np.isfinite(best)
    if broken.any():
        index = int(broken.argmax())
        reason = "NaN" if np.isnan(best[index]) else f"only {best[index]}" if best[index] < 0 else "infinity"
        raise ValueError(f"{reason} in the log-probabilities of frame {frame + index}")
    return best
