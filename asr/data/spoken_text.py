"""Text as a phone layer would hear it said: posteriors cut from real recordings, phone by phone, and joined.

The blocks above a phone layer never hear audio, so text can train them: a lexicon says of which phones a
sentence consists, and a bank of recordings how the blocks below have heard each of these phones between such
neighbours, with their errors and their durations.

K slots of the phone layer, P phones, U tokens.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asr.audio import SAMPLE_RATE
from asr.errors import UserError
from asr.lm import sentences
from asr.phones import INDEX, PHONES, SILENCE
from asr.text import Tokenizer

POOL = 512  # sentences from which a batch is taken
LONGEST_PAUSE = 25  # slots

Pronunciations = tuple[tuple[int, ...], ...]  # of a word: phones


@dataclass(frozen=True)
class SpokenText:
    """files: text, a sentence a line (.txt, .gz, .xz); of each an equal share is drawn.
    lexicon: `word phone phone ...` a line; sentences with other words are left out.
    bank: of data_prep.phone_bank. share: of an epoch's batches that are text. words: in a sentence, from and
    to. pause: probability of a silence between two words.
    """

    files: tuple[Path, ...] = ()
    lexicon: Path | None = None
    bank: Path | None = None
    share: float = 0.0
    words: tuple[int, int] = (2, 36)
    pause: float = 0.12


class TextBatch(NamedTuple):
    posteriors: Tensor  # (B, T, slots, P)
    lengths: Tensor  # (B,) in samples, as a batch of audio has them
    tokens: Tensor  # (B, U) zero-padded
    token_lengths: Tensor  # (B,)
    ids: tuple[str, ...]
    texts: tuple[str, ...]


class PhoneBank:
    """Posteriors (K, P) of whole recordings, and where each phone stands in them, by its neighbours."""

    def __init__(self, posteriors: NDArray[np.uint8], segments: NDArray[np.int64]) -> None:
        """segments (N, 5): phone, left, right neighbour, first slot, slots."""
        self.posteriors, self.segments = posteriors, segments
        count = len(PHONES)
        phone, left, right = segments[:, :3].T
        self._by = [
            _Index((left * count + phone) * count + right),
            _Index(phone * count + right),
            _Index(left * count + phone),
            _Index(phone),
        ]

    def draw(self, phone: int, left: int, right: int, rng: np.random.Generator) -> tuple[int, int]:
        """First slot and slots of such a phone, between such neighbours where there are any."""
        count = len(PHONES)
        keys = ((left * count + phone) * count + right, phone * count + right, left * count + phone, phone)
        for index, key in zip(self._by, keys, strict=True):
            row = index.draw(key, rng)
            if row is not None:
                return int(self.segments[row, 3]), int(self.segments[row, 4])
        raise UserError(f"the bank of phones has no {PHONES[phone]}; make it of more recordings")

    def say(self, phones: Sequence[int], rng: np.random.Generator) -> NDArray[np.uint8]:
        """(K, P) for a sequence of phones."""
        around = [SILENCE, *phones, SILENCE]
        slots = []
        for left, phone, right in zip(around, around[1:], around[2:], strict=False):
            first, length = self.draw(phone, left, right, rng)
            if phone == SILENCE:
                length = min(length, LONGEST_PAUSE)
            slots.append(np.arange(first, first + length))
        return self.posteriors[np.concatenate(slots)]

    def save(self, path: Path) -> None:
        np.savez(path, posteriors=self.posteriors, segments=self.segments)

    @classmethod
    def load(cls, path: Path) -> PhoneBank:
        with np.load(path) as file:
            return cls(file["posteriors"], file["segments"])


class _Index:
    """Rows by key."""

    def __init__(self, keys: NDArray[np.int64]) -> None:
        self.order = np.argsort(keys, kind="stable")
        values, starts = np.unique(keys[self.order], return_index=True)
        ends = np.append(starts[1:], len(keys))
        self._spans = {int(k): (int(a), int(b)) for k, a, b in zip(values, starts, ends, strict=True)}

    def draw(self, key: int, rng: np.random.Generator) -> int | None:
        span = self._spans.get(key)
        return None if span is None else int(self.order[rng.integers(*span)])


def read_lexicon(path: Path) -> dict[str, Pronunciations]:
    words: dict[str, Pronunciations] = {}
    with path.open(encoding="utf-8") as file:
        for line in file:
            word, *phones = line.split()
            words[word] = (*words.get(word, ()), tuple(INDEX[phone] for phone in phones))
    return words


def read_sentences(path: Path, lexicon: Mapping[str, Any], words: tuple[int, int]) -> list[str]:
    """The lines of a text (.txt, .gz, .xz) whose words the lexicon has, long ones cut. words: from and to."""
    least, most = words
    fitting: list[str] = []
    for line in sentences(path):
        found = line.decode().split()
        if all(word in lexicon for word in found):
            cut = (found[start : start + most] for start in range(0, len(found), most))
            fitting += (" ".join(part) for part in cut if len(part) >= least)
    if not fitting:
        raise UserError(f"{path}: no line of {least} words or more that the lexicon has; give another text")
    return fitting


def pronounce(
    text: str, lexicon: Mapping[str, Pronunciations], pause: float, rng: np.random.Generator
) -> list[int]:
    """Phones of a sentence, silence at its ends and sometimes between words."""
    phones = [SILENCE]
    for index, word in enumerate(text.split()):
        if index and rng.random() < pause:
            phones.append(SILENCE)
        ways = lexicon[word]
        phones += ways[rng.integers(len(ways)) if len(ways) > 1 else 0]
    return [*phones, SILENCE]


class SpokenSentences:
    """The sentences of all files, and batches of them as posteriors: a function of (seed, epoch, number)."""

    def __init__(
        self,
        config: SpokenText,
        tokenizer: Tokenizer,
        slots: int,
        frame_samples: int,
        seconds: float,
        seed: int,
    ) -> None:
        """seconds: of a batch, about. slots: of a frame of the model."""
        if not (config.files and config.lexicon and config.bank):
            raise UserError("data.text: text to train on needs files, lexicon and bank")
        self.config, self.tokenizer, self.seed = config, tokenizer, seed
        self.slots, self.frame_samples = slots, frame_samples
        self.lexicon = read_lexicon(config.lexicon)
        self.bank = PhoneBank.load(config.bank)
        self.files = [read_sentences(path, self.lexicon, config.words) for path in config.files]
        self.room = int(seconds * SAMPLE_RATE / frame_samples)  # frames

    def batch(self, epoch: int, number: int) -> TextBatch:
        """Of sentences of like length: the shortest of a pool in one batch, the longest in another."""
        rng = np.random.default_rng([self.seed, epoch, number])
        files = [self.files[index] for index in rng.integers(len(self.files), size=POOL)]
        pool = sorted((file[rng.integers(len(file))] for file in files), key=len)
        first = int(rng.integers(POOL))
        texts: list[str] = []
        posteriors: list[NDArray[np.uint8]] = []
        longest = 0
        for text in pool[first:] + pool[first - 1 :: -1] if first else pool:
            said = self._say(text, rng)
            longest = max(longest, len(said))
            if texts and longest * (len(texts) + 1) > self.room:
                break
            tokens = self.tokenizer.encode(text)
            if len(tokens) + sum(a == b for a, b in itertools.pairwise(tokens)) <= len(said):
                texts.append(text)
                posteriors.append(said)
        return self._batch(texts, posteriors, f"text-{epoch}-{number}")

    def _say(self, text: str, rng: np.random.Generator) -> NDArray[np.uint8]:
        """(T, slots, P)."""
        said = self.bank.say(pronounce(text, self.lexicon, self.config.pause, rng), rng)
        said = said[: len(said) // self.slots * self.slots]
        return said.reshape(-1, self.slots, said.shape[1])

    def _batch(self, texts: list[str], posteriors: list[NDArray[np.uint8]], name: str) -> TextBatch:
        longest = max(map(len, posteriors))
        padded = np.zeros((len(texts), longest, *posteriors[0].shape[1:]), np.float32)
        padded[..., SILENCE] = 1.0
        for row, said in zip(padded, posteriors, strict=True):
            row[: len(said)] = said / np.float32(255)
        tokens = [self.tokenizer.encode(text) for text in texts]
        width = max(map(len, tokens))
        return TextBatch(
            posteriors=torch.from_numpy(padded),
            lengths=torch.tensor([len(said) for said in posteriors]) * self.frame_samples,
            tokens=torch.tensor([[*ids, *[0] * (width - len(ids))] for ids in tokens]),
            token_lengths=torch.tensor([len(ids) for ids in tokens]),
            ids=tuple(f"{name}-{index}" for index in range(len(texts))),
            texts=tuple(texts),
        )
