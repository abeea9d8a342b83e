"""Which of its pronunciations each word was said in: the likeliest CTC path through all of them.

T frames, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from asr.text import BLANK

Way = Sequence[int]  # tokens, at least one


def choose_ways(log_probs: NDArray[np.float32], words: Sequence[Sequence[Way]]) -> list[Way]:
    """log_probs (T, V) of what was said, and of each word the ways to say it -> the way in which it was.

    The first of each where they cannot be said in T frames. Takes 2 T bytes for each token of each way.
    """
    several = any(len(ways) > 1 for ways in words)
    chosen = _said(log_probs, words) if several and len(log_probs) else None
    return [ways[way] for ways, way in zip(words, chosen or [0] * len(words), strict=True)]


def _said(log_probs: NDArray[np.float32], words: Sequence[Sequence[Way]]) -> list[int] | None:
    graph = _Graph(words)
    before, label = graph.before(), np.array(graph.labels)
    scores = np.full(len(label) + 1, -np.inf, np.float32)  # and of no state, where `before` is filled up
    scores[graph.first] = log_probs[0, label[graph.first]]
    steps = np.zeros((len(log_probs), len(label)), np.uint8)
    each = np.arange(len(label))
    for frame in range(1, len(log_probs)):
        reached = scores[before]
        steps[frame] = best = reached.argmax(1)
        scores[:-1] = reached[each, best] + log_probs[frame, label]
    state = max(graph.last, key=lambda last: scores[last])
    if scores[state] == -np.inf:
        return None
    found = [0] * len(words)
    for frame in range(len(log_probs) - 1, -1, -1):
        if said := graph.way[state]:
            word, way = said
            found[word] = way
        state = before[state, steps[frame, state]]
    return found


class _Graph:
    """States that emit a label each frame, and which ones may come before each, itself among them."""

    def __init__(self, words: Sequence[Sequence[Way]]) -> None:
        self.labels: list[int] = []
        self.way: list[tuple[int, int] | None] = []  # word, and which of its ways; None between words
        self._before: list[list[int]] = []
        gap, last = self._add(BLANK, None, []), list[int]()
        self.first = [gap]
        for word, ways in enumerate(words):
            ends = []
            for number, way in enumerate(ways):
                state = self._add(way[0], (word, number), [gap, *self._others(last, way[0])])
                if word == 0:
                    self.first.append(state)
                for token in way[1:]:
                    blank = self._add(BLANK, (word, number), [state])
                    state = self._add(token, (word, number), [blank, *self._others([state], token)])
                ends.append(state)
            gap, last = self._add(BLANK, None, ends), ends
        self.last = [gap, *last]

    def _add(self, label: int, way: tuple[int, int] | None, before: list[int]) -> int:
        self.labels.append(label)
        self.way.append(way)
        self._before.append([len(self._before), *before])
        return len(self._before) - 1

    def _others(self, states: Sequence[int], label: int) -> list[int]:
        """Those from which the label may follow at once: CTC takes two of the same for one."""
        return [state for state in states if self.labels[state] != label]

    def before(self) -> NDArray[np.int64]:
        """(states, most of one), filled with the number of states."""
        table = np.full((len(self._before), max(map(len, self._before))), len(self._before))
        for state, before in enumerate(self._before):
            table[state, : len(before)] = before
        return table
