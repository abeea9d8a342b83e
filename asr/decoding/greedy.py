"""Best-path CTC decoding of one stream: the likeliest output of each frame, repeats merged, blanks removed.

T frames, V vocabulary.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from asr.decoding.types import Hypothesis, Token


class GreedyDecoder:
    """Keeps the tokens of one stream that are not committed yet; feeding frames in any pieces is the same."""

    def __init__(self, blank: int = 0) -> None:
        self.blank = blank
        self._previous = blank  # the output of the last frame
        self._frame = 0  # frames decoded so far
        self._tokens: list[Token] = []

    def accept(self, log_probs: NDArray[np.float32]) -> None:
        """log_probs (T, V): the next frames of the stream. Raises ValueError where one is NaN."""
        outputs = log_probs.argmax(-1)
        values = np.take_along_axis(log_probs, outputs[:, None], -1)[:, 0]
        if np.isnan(values).any():  # argmax stops at a NaN
            raise ValueError(
                f"NaN in the log-probabilities of frame {self._frame + int(np.isnan(values).argmax())}"
            )
        for output, value in zip(outputs.tolist(), values.tolist(), strict=True):
            if output != self.blank:
                self._emit(output, value)
            self._previous = output
            self._frame += 1

    def _emit(self, output: int, value: float) -> None:
        end = self._frame + 1
        if output != self._previous:
            self._tokens.append(Token(output, self._frame, end, value))
        elif self._tokens:  # else it is the tail of a committed token
            last = self._tokens[-1]
            self._tokens[-1] = last._replace(end=end, log_prob=max(last.log_prob, value))

    def best(self) -> Hypothesis:
        return Hypothesis(tuple(self._tokens))

    def commit(self, count: int) -> None:
        """Forget the first `count` tokens: their text will not change."""
        del self._tokens[:count]
