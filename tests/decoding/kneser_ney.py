"""Interpolated modified Kneser-Ney in plain Python, from its equations: what the C++ is compared with.

Probabilities are computed when they are asked for, by recursion; nothing is stored but counts.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict

Ngram = tuple[str, ...]
FALLBACK = (0.0, 0.5, 1.0, 1.5)


class KneserNey:
    def __init__(self, sentences: list[list[str]], order: int, prune: tuple[int, ...] = ()) -> None:
        self.order = order
        prune = (prune or (0,)) + (prune or (0,))[-1:] * (order - len(prune or (0,)))
        seen = Counter(word for sentence in sentences for word in sentence)
        cut = [[word if seen[word] > prune[0] else "<unk>" for word in sentence] for sentence in sentences]
        self.words = {word for sentence in cut for word in sentence} | {"<unk>", "</s>"}
        self.raw: Counter[Ngram] = Counter()
        for sentence in cut:
            marked = ["<s>", *sentence, "</s>"]
            for end in range(1, len(marked)):
                for begin in range(max(0, end - order + 1), end + 1):
                    self.raw[tuple(marked[begin : end + 1])] += 1
        before: dict[Ngram, set[str]] = defaultdict(set)
        for ngram in self.raw:
            before[ngram[1:]].add(ngram[0])
        self.count = {
            ngram: raw if len(ngram) == order or ngram[0] == "<s>" else len(before[ngram])
            for ngram, raw in self.raw.items()
        }
        self.kept = {
            ngram for ngram, raw in self.raw.items() if len(ngram) == 1 or raw > prune[len(ngram) - 1]
        }
        self.followers: dict[Ngram, list[Ngram]] = defaultdict(list)
        for ngram in self.count:
            self.followers[ngram[:-1]].append(ngram)
        self.discounts = [FALLBACK, *(self._discounts(k) for k in range(1, order + 1))]

    def _discounts(self, k: int) -> tuple[float, ...]:
        n = Counter(count for ngram, count in self.count.items() if len(ngram) == k)
        if not all(n[i] for i in (1, 2, 3)):
            return FALLBACK
        y = n[1] / (n[1] + 2 * n[2])
        found = (0.0, *(i - (i + 1) * y * n[i + 1] / n[i] for i in (1, 2, 3)))
        return found if all(0 < found[i] <= i for i in (1, 2, 3)) else FALLBACK

    def _discount(self, ngram: Ngram) -> float:
        return self.discounts[len(ngram)][min(self.count[ngram], 3)]

    def probability(self, history: Ngram, word: str) -> float:
        """P(word | history) by interpolation; a history longer than the order is cut."""
        history = history[max(0, len(history) - self.order + 1) :]
        while history and not any(ngram in self.kept for ngram in self.followers[history]):
            history = history[1:]
        followers = self.followers[history]
        total = sum(self.count[ngram] for ngram in followers)
        weight = sum(self._discount(n) if n in self.kept else self.count[n] for n in followers) / total
        lower = self.probability(history[1:], word) if history else 1 / len(self.words)
        ngram = (*history, word)
        own = (self.count[ngram] - self._discount(ngram)) / total if ngram in self.kept else 0
        return own + weight * lower

    def scores(self, words: list[str]) -> list[float]:
        """ln P of each word and of the end."""
        history: Ngram = ("<s>",)
        scores = []
        for word in [*words, "</s>"]:
            word = word if word in self.words else "<unk>"
            scores.append(math.log(self.probability(history, word)))
            history = (*history, word)
        return scores
