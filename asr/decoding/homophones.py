"""Which words are written for what was heard, where tokens spell pronunciations: there, their or they're.

The beam takes words that sound alike for one word. Here each is written as the words around it suggest: the
likeliest sentence by the language model, those after it included as far as they have been heard.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from asr.lexicon import respell

if TYPE_CHECKING:
    from asr.decoding.language_model import PronouncedModel, State

SENTENCES = 8  # that are followed


class Written(NamedTuple):
    """A sentence so far: ln P of it, the state of the language model (None without one), and its words."""

    score: float
    state: State | None
    words: tuple[str, ...]

    @property
    def key(self) -> tuple[int, ...]:
        """Of sentences with the same one only the best is followed."""
        return () if self.state is None else self.state.context


class Writer:
    """Of one stream. Words that have been written (`commit`) stay, and are what the next ones follow."""

    def __init__(self, pronounced: PronouncedModel) -> None:
        self._pronounced, self._model = pronounced, pronounced.model
        self._favoured: Mapping[str, Mapping[str, float]] = {}
        self.begin()

    def favour(self, words: Mapping[str, Mapping[str, float]]) -> None:
        """Pronunciation -> words that are expected, and what that is worth in nats."""
        self._favoured = words

    def begin(self) -> None:
        """A new sentence."""
        self._before = Written(0.0, None if self._model is None else self._model.begin(), ())
        self._known: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())

    def write(self, ways: Sequence[str]) -> tuple[str, ...]:
        """Pronunciations -> words, not committed."""
        if self._known[0] != (*ways,):
            self._known = ((*ways,), self._sentence(ways).words)
        return self._known[1]

    def commit(self, ways: Sequence[str], after: Sequence[str] = ()) -> tuple[str, ...]:
        """Pronunciations -> words that stay; after: those that are heard behind them."""
        words = self._sentence([*ways, *after]).words[: len(ways)]
        for word in words:
            self._before = Written(0.0, self._after(self._before, word, 0.0).state, ())
        self._known = ((), ())
        return words

    def _sentence(self, ways: Iterable[str]) -> Written:
        sentences = [self._before]
        for way in ways:
            choices = self._choices(way)
            longer: dict[tuple[int, ...], Written] = {}
            for before in sentences:
                for word, bonus in choices.items():
                    made = self._after(before, word, bonus)
                    if made.key not in longer or made.score > longer[made.key].score:
                        longer[made.key] = made
            sentences = sorted(longer.values(), key=lambda sentence: -sentence.score)[:SENTENCES]
        return sentences[0]

    def _after(self, before: Written, word: str, bonus: float) -> Written:
        words = (*before.words, word)
        if self._model is None or before.state is None:
            return Written(before.score + bonus, None, words)
        log_prob, state = self._model.score(before.state, word)
        return Written(before.score + log_prob + bonus, state, words)

    def _choices(self, way: str) -> dict[str, float]:
        """Words that are said so, and what each is worth besides."""
        favoured = self._favoured.get(way, {})
        words = self._pronounced.words(way)
        choices = {word: log_prob + favoured.get(word, 0.0) for word, log_prob in words.items()}
        return {**favoured, **choices} or {respell(way): 0.0}
