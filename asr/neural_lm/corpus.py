"""Text as numbers: the words that a neural language model knows, and batches of sentences.

B sequences, T words of the longest of them.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asr.decoding.language_model import SPECIAL, LanguageModel
from asr.errors import UserError
from asr.lm import sentences

UNKNOWN, BEGIN, END = range(len(SPECIAL))


LONGEST = 100  # words of a sequence; what is longer is cut


@dataclass(frozen=True)
class Corpus:
    """N words of text and ends of sentences.

    words: those that are not `SPECIAL`, the most frequent first, from id 3 on. ids (N,) int32.
    """

    words: tuple[str, ...]
    ids: NDArray[np.int32]

    def counts(self) -> Tensor:
        """(V,): how often each of the vocabulary is there."""
        return torch.from_numpy(np.bincount(self.ids, minlength=len(SPECIAL) + len(self.words)))


class Batch(NamedTuple):
    """(B, T) each. before: the word before each, BEGIN where a sentence begins. real: not behind the end."""

    before: Tensor
    words: Tensor
    real: Tensor


class Epoch(Sequence[Batch]):
    """All of a text once, in batches of up to `size` words, sequences of like lengths together, shuffled.

    A sequence is a sentence, or several: of ends, a share of `joined` is left out, others each epoch. What is
    said in one breath is often more than one sentence.
    """

    def __init__(self, corpus: Corpus, size: int, joined: float, seed: int) -> None:
        random = np.random.default_rng(seed)
        left_out = (corpus.ids == END) & (random.random(len(corpus.ids), np.float32) < joined)
        left_out[-1] = False
        self._ids = corpus.ids[~left_out]
        ends = np.flatnonzero(self._ids == END) + 1
        starts = np.concatenate([[0], ends[:-1]])
        parts = -(-(ends - starts) // LONGEST)
        within = np.arange(parts.sum()) - np.repeat(np.cumsum(parts) - parts, parts)
        starts = np.repeat(starts, parts) + LONGEST * within
        lengths = np.minimum(np.repeat(ends, parts) - starts, LONGEST)
        order = random.permutation(len(starts))
        order = order[np.argsort(lengths[order], kind="stable")]
        self._starts, self._lengths = starts[order], lengths[order]
        first, self._batches = 0, []
        while first < len(order):
            most = max(1, size // int(self._lengths[first]))
            last = int(self._lengths[min(first + most, len(order)) - 1])
            stop = min(first + max(1, size // last), len(order))
            self._batches.append(slice(first, stop))
            first = stop
        random.shuffle(self._batches)

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, number: int) -> Batch:  # type: ignore[override]
        part = self._batches[number]
        starts, lengths = self._starts[part, None], self._lengths[part, None]
        place = np.arange(lengths.max())
        at = np.minimum(starts + place, len(self._ids) - 1)
        real = torch.from_numpy(place < lengths)
        words = torch.from_numpy(self._ids[at].astype(np.int64))
        before = torch.from_numpy(self._ids[at - 1].astype(np.int64))
        return Batch(before.masked_fill(before == END, BEGIN), words, real)


def read(texts: Iterable[Path], most: int, ngrams: LanguageModel) -> Corpus:
    """Sentences of texts; the vocabulary: of the words that `ngrams` knows, the `most` most frequent.

    Raises UserError where there is no word.
    """
    known: dict[bytes, int] = {}
    ids, lengths = array("i"), array("i")
    for text in texts:
        for sentence in sentences(text):
            words = sentence.split()
            ids.extend(known.setdefault(word, len(known)) for word in words)
            if words:
                lengths.append(len(words))
    if not ids:
        raise UserError(f"{', '.join(map(str, texts))}: no word in it to learn from")
    order = np.argsort(-np.bincount(ids), kind="stable")
    spelled = [word.decode() for word in known]
    kept = [place for place in order.tolist() if ngrams.knows(spelled[place])][:most]
    renamed = np.zeros(len(known), np.int32)  # UNKNOWN
    renamed[kept] = np.arange(len(SPECIAL), len(SPECIAL) + len(kept))
    with_ends = np.insert(renamed[np.array(ids)], np.cumsum(lengths), END)
    return Corpus(tuple(spelled[place] for place in kept), with_ends)
