"""What decoders give: words and tokens in frames. Their seconds are asr.transcript's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class Token(NamedTuple):
    """An emitted token, and the frames [start, end) in which it was the output.

    Frames count from the beginning of the stream, as in everything here.
    """

    id: int
    start: int
    end: int


@dataclass(frozen=True)
class DecodedWord:
    """A decoder's word; its frames are those of the emissions, which an encoder sends late."""

    text: str
    tokens: tuple[int, ...]
    start: int  # frame in which the first token was emitted
    end: int  # frame after the last token's last one
    confidence: float  # in [0, 1]
    survived: int  # frames for which it has stood in the best hypothesis, at its place, with this very text


@dataclass(frozen=True)
class Hypothesis:
    """One reading of what is not final yet."""

    tokens: tuple[Token, ...]
    score: float  # natural logarithm
    posterior: float  # share of the mass of all hypotheses, with those that it goes on for
    text: str


class Decoder(Protocol):
    """A decoder of one stream. Feeding the frames in any pieces is the same."""

    def accept(self, log_probs: NDArray[np.float32]) -> None:
        """log_probs (T, V): the next frames. ValueError, and nothing is taken, where a frame is broken."""

    def take(self) -> list[DecodedWord]:
        """The words that have become final since the last call: each is given once and never changes."""

    def tentative(self) -> list[DecodedWord]:
        """The best hypothesis after the final words."""

    def flush(self) -> None:
        """At an endpoint or the end: the best hypothesis becomes final; the stream can go on."""

    def reset(self) -> None:
        """Begin a new stream."""

    @property
    def trailing_blanks(self) -> int:
        """Frames since the last output of the best hypothesis that was no blank, or since the beginning."""
