"""Text as numbers: the words that a neural language model knows, and what comes before each."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from asr.decoding.language_model import HISTORY, SPECIAL, LanguageModel
from asr.errors import UserError
from asr.lm import sentences

UNKNOWN, BEGIN, END = range(len(SPECIAL))


@dataclass(frozen=True)
class Corpus:
    """N words of text and ends of sentences, of a vocabulary of V.

    words: those of the vocabulary that are not `SPECIAL`, the most frequent first, from id 3 on.
    ids (N,) int32. places (N,) uint8: how many words of the sentence come before, at most HISTORY.
    """

    words: tuple[str, ...]
    ids: Tensor
    places: Tensor

    def histories(self, at: Tensor) -> Tensor:
        """Places in the text (B,) -> (B, HISTORY): the words before, the most recent first, then BEGIN."""
        back = torch.arange(1, HISTORY + 1)
        before = self.ids[(at[:, None] - back).clamp(min=0)].long()
        return before.masked_fill(back > self.places[at][:, None], BEGIN)

    def counts(self) -> Tensor:
        """(V,): how often each is there."""
        return torch.bincount(self.ids, minlength=len(SPECIAL) + len(self.words))


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
    return _with_ends(tuple(spelled[place] for place in kept), renamed[np.array(ids)], np.array(lengths))


def _with_ends(words: Sequence[str], said: np.ndarray, lengths: np.ndarray) -> Corpus:
    ends = np.cumsum(lengths + 1) - 1
    ids = np.full(len(said) + len(lengths), END, np.int32)
    within = np.ones(len(ids), bool)
    within[ends] = False
    ids[within] = said
    places = np.arange(len(ids)) - np.repeat(ends - lengths, lengths + 1)
    return Corpus(
        tuple(words), torch.from_numpy(ids), torch.from_numpy(places.clip(max=HISTORY).astype(np.uint8))
    )
