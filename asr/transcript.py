"""What a stream has said: words in seconds, and the segments between its endpoints.

A stream lasts for hours and gives a transcript a few times a second, so making one costs what is new, not
what has been said: transcripts share the record of the committed words, which only grows, and put text and
words together when asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Literal

Reason = Literal["silence", "no speech", "length"]


@dataclass(frozen=True, slots=True)  # hours of them stay in memory
class Word:
    """Times in seconds from the start of the stream; confidence in [0, 1]."""

    text: str
    start: float
    end: float
    confidence: float


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The end of a segment: after how many committed words of the stream, why, and at which second."""

    words: int
    time: float
    reason: Reason


class Record:
    """The committed words and the endpoints of one stream. Both lists are only ever appended to."""

    def __init__(self) -> None:
        self.words: list[Word] = []
        self.endpoints: list[Endpoint] = []
        self._joined, self._text = 0, ""  # how many words have been joined to what

    def text(self, words: int) -> str:
        """The first `words` words; for the newest transcript only what is new is joined."""
        if words < self._joined:
            return join(self.words[:words])
        new = join(self.words[self._joined : words])
        self._text = f"{self._text} {new}" if self._text and new else self._text or new
        self._joined = words
        return self._text


@dataclass(frozen=True)
class Transcript:
    """All that a stream has said so far. `committed` never changes again but by growing; `tentative` may.

    new_words, new_endpoints: committed and found since the transcript before, which is what a server sends.
    """

    record: Record = field(repr=False)
    count: int  # of committed words
    endpoint_count: int
    tentative_words: tuple[Word, ...]
    new_words: tuple[Word, ...] = field(compare=False)
    new_endpoints: tuple[Endpoint, ...] = field(compare=False)

    @classmethod
    def of(
        cls, words: Sequence[Word], tentative: Sequence[Word] = (), ends: Sequence[int] = ()
    ) -> Transcript:
        """A transcript of given words, with endpoints after the first `ends` of them."""
        record = Record()
        record.words.extend(words)
        record.endpoints.extend(Endpoint(end, words[end - 1].end, "silence") for end in ends)
        new = tuple(words), tuple(record.endpoints)
        return cls(record, len(words), len(ends), tuple(tentative), *new)

    @property
    def committed(self) -> str:
        return self.record.text(self.count)

    @property
    def tentative(self) -> str:
        return join(self.tentative_words)

    @property
    def text(self) -> str:
        return f"{self.committed} {self.tentative}".strip()

    @cached_property
    def words(self) -> tuple[Word, ...]:
        """Those of committed and tentative text together."""
        return (*self.record.words[: self.count], *self.tentative_words)

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        return tuple(self.record.endpoints[: self.endpoint_count])

    @property
    def segments(self) -> tuple[tuple[Word, ...], ...]:
        """`words` cut at the endpoints; no segment is empty."""
        bounds = [0, *(endpoint.words for endpoint in self.endpoints), len(self.words)]
        return tuple(self.words[start:end] for start, end in pairwise(bounds) if start < end)


def join(words: Sequence[Word]) -> str:
    return " ".join(word.text for word in words)
