"""What the beam has to find, by brute force and in plain Python: every alignment, and every word's scores.

T frames, V vocabulary.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from asr.decoding.hotwords import Hotword
from asr.decoding.spelling import Spelling

NEVER = -math.inf


class Prefix(NamedTuple):
    log_prob: float  # of all alignments
    spans: tuple[tuple[int, int], ...]  # of the tokens, by the best alignment


def prefixes(log_probs: NDArray[np.float32], before: int = 0) -> dict[tuple[int, ...], Prefix]:
    """Every token sequence that log_probs (T, V) can mean; `before` is the output of the frame before."""
    possible = [[(output, float(row[output])) for output in np.flatnonzero(row > NEVER)] for row in log_probs]
    alignments: dict[tuple[int, ...], list[tuple[float, tuple[int, ...]]]] = defaultdict(list)
    for steps in itertools.product(*possible):
        path = tuple(int(output) for output, _ in steps)
        tokens = tuple(o for last, o in zip((before, *path), path, strict=False) if o not in (0, last))
        alignments[tokens].append((sum(value for _, value in steps), path))
    found = {}
    for tokens, those in alignments.items():
        best = max(those)
        total = best[0] + math.log(sum(math.exp(score - best[0]) for score, _ in those))
        found[tokens] = Prefix(total, _spans(best[1], before))
    return found


def _spans(path: tuple[int, ...], before: int) -> tuple[tuple[int, int], ...]:
    spans: list[tuple[int, int]] = []
    for frame, (last, output) in enumerate(zip((before, *path), path, strict=False)):
        if output not in (0, last):
            spans.append((frame, frame + 1))
        elif output and spans:
            spans[-1] = (spans[-1][0], frame + 1)
    return tuple(spans)


@dataclass
class Ngrams:
    """A back-off model as in an ARPA file, with natural logarithms."""

    table: dict[tuple[str, ...], tuple[float, float]]  # n-gram -> ln P, ln of the back-off weight
    order: int

    def score(self, history: Sequence[str], word: str) -> float:
        word = word if (word,) in self.table else "<unk>"
        context = tuple(w if (w,) in self.table else "<unk>" for w in history)
        context = context[max(0, len(context) - self.order + 1) :]
        backed_off = 0.0
        while (*context, word) not in self.table:
            backed_off += self.table[context][1] if context in self.table else 0.0
            context = context[1:]
        return backed_off + self.table[(*context, word)][0]

    def best_below(self, letters: str) -> float | None:
        """The highest ln P of a word that begins so; None if there is none."""
        words = [gram[0] for gram in self.table if len(gram) == 1 and gram[0][0] != "<"]
        return max((self.table[word,][0] for word in words if word.startswith(letters)), default=None)

    def write(self, path: Path) -> Path:
        """As ARPA."""
        lines = ["\\data\\"]
        orders = [[gram for gram in self.table if len(gram) == n + 1] for n in range(self.order)]
        lines += [f"ngram {n}={len(grams)}" for n, grams in enumerate(orders, 1)]
        for n, grams in enumerate(orders, 1):
            lines += ["", f"\\{n}-grams:"]
            for gram in grams:
                log_prob, back_off = (value / math.log(10) for value in self.table[gram])
                lines.append(
                    f"{log_prob:.7f}\t{' '.join(gram)}" + (f"\t{back_off:.7f}" if n < self.order else "")
                )
        path.write_text("\n".join([*lines, "", "\\end\\", ""]), encoding="utf-8")
        return path


def random_ngrams(words: Sequence[str], order: int, random: np.random.Generator) -> Ngrams:
    """Not normalised: nothing here asks for it."""
    table: dict[tuple[str, ...], tuple[float, float]] = {}
    for word in ("<s>", "</s>", "<unk>", *words):
        table[word,] = (-99.0 if word == "<s>" else -random.uniform(0.5, 6), -random.uniform(0, 1))
    for n in range(2, order + 1):
        for gram in list(table):
            if len(gram) == n - 1 and gram[-1] != "</s>":
                for word in ("</s>", *words):
                    if random.random() < 0.4:
                        table[(*gram, word)] = (-random.uniform(0.1, 4), -random.uniform(0, 1))
    return Ngrams(table, order)


@dataclass
class Scores:
    """What a token sequence scores beside its acoustics."""

    spelling: Spelling
    lm: Ngrams | None = None
    lm_weight: float = 0.0
    word_bonus: float = 0.0
    unknown_penalty: float = 0.0
    hotwords: Sequence[Hotword] = ()  # each with a boost
    _worth: dict[str, float] = field(init=False)

    def __post_init__(self) -> None:
        self._worth = {}
        for phrase, boost in self.hotwords:
            worth = (boost or 0.0) * _letters(phrase)
            self._worth[phrase] = max(worth, self._worth.get(phrase, 0.0))

    def words(self, tokens: Sequence[int]) -> list[str]:
        return self.spelling.text(tokens).split()

    def final(self, tokens: Sequence[int]) -> float:
        """If the stream ends here."""
        words = self.words(tokens)
        end = self.lm_weight * self.lm.score(["<s>", *words], "</s>") if self.lm else 0.0
        return self._banked(words) + end

    def running(self, tokens: Sequence[int]) -> float:
        """While the last word can still grow."""
        words = self.words(tokens)
        after_mark = (
            bool(tokens) and self.spelling.starts_word[tokens[-1]] and not self.spelling.letters[tokens[-1]]
        )
        letters = "" if after_mark or not words else words.pop()
        look = 0.0
        if self.lm and tokens:
            best = self.lm.best_below(letters)
            if best is None:
                best = self.lm.score(["<s>", *words], "<unk>")
                look += 0 if self._matches(words, letters) else self.unknown_penalty
            look += self.lm_weight * best
        return self._banked(words) + look + max([0.0, *self._matches(words, letters)])

    def _banked(self, words: Sequence[str]) -> float:
        total = 0.0
        for i, word in enumerate(words):
            total += self._earned(words[: i + 1])
            if self.lm:
                total += self.lm_weight * self.lm.score(["<s>", *words[:i]], word) + self.word_bonus
                if (word,) not in self.lm.table and not self._in_phrase(words[: i + 1]):
                    total += self.unknown_penalty
        return total

    def _given(self, phrase: str, words: int) -> float:
        """What listed phrases at its beginning, of at most so many words, are worth."""
        parts = phrase.split()
        return max((self._worth.get(" ".join(parts[:n]), 0.0) for n in range(1, words + 1)), default=0.0)

    def _earned(self, words: Sequence[str]) -> float:
        """By the phrases that end with the last word."""
        text = " " + " ".join(words)
        ending = [phrase for phrase in self._worth if text.endswith(" " + phrase)]
        return max(
            (max(0.0, self._worth[p] - self._given(p, len(p.split()) - 1)) for p in ending), default=0.0
        )

    def _in_phrase(self, words: Sequence[str]) -> bool:
        text = " " + " ".join(words)
        begun = [p.split()[: n + 1] for p in self._worth for n in range(len(p.split()))]
        return any(text.endswith(" " + " ".join(part)) for part in begun)

    def _matches(self, words: Sequence[str], letters: str) -> list[float]:
        """Of each phrase that the text's end may become, what its letters so far are worth in advance."""
        found = []
        for phrase, boost in self.hotwords:
            for first in range(len(words) + 1):
                spelled = " ".join([*words[first:], letters])
                if spelled and phrase.startswith(spelled):
                    given = self._given(phrase, len(words) - first)
                    found.append(max(0.0, (boost or 0.0) * _letters(spelled) - given))
        return found


def _letters(phrase: str) -> int:
    return len(phrase.replace(" ", ""))
