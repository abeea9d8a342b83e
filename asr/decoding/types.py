"""What decoders and recognisers give: tokens in frames, words in seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Token(NamedTuple):
    """An emitted token, the frames [start, end) in which it was the output, and its best log-probability."""

    id: int
    start: int
    end: int
    log_prob: float


@dataclass(frozen=True)
class Hypothesis:
    """The tokens that are not committed yet, in order."""

    tokens: tuple[Token, ...]


@dataclass(frozen=True)
class Word:
    """Times in seconds from the start of the stream; confidence in [0, 1]."""

    text: str
    start: float
    end: float
    confidence: float


@dataclass(frozen=True)
class Transcript:
    """All that a stream has said so far. `committed` never changes again but by growing; `tentative` may.

    `words` are those of committed and tentative text together.
    """

    committed: str
    tentative: str
    words: tuple[Word, ...]

    @property
    def text(self) -> str:
        return f"{self.committed} {self.tentative}".strip()
