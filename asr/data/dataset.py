"""Utterances in memory as cuts and tokens; batches of them as padded tensors, loaded by worker processes.

Of the model it knows the rate of its input and the samples a frame, of Lightning nothing.
B batch, S samples, T frames, U tokens.
"""

from __future__ import annotations

import itertools
import signal
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from lhotse.cut import Cut
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from asr.data.augment import NO_AUGMENTATION, Augmentation, perturb
from asr.data.manifest import AudioError, load_audio
from asr.data.phones import PhoneTimes
from asr.data.splice import splice
from asr.phones import SILENCE, UNKNOWN


class Batch(NamedTuple):
    audio: Tensor  # (B, S) zero-padded
    lengths: Tensor  # (B,) in samples
    tokens: Tensor  # (B, U) zero-padded
    token_lengths: Tensor  # (B,)
    ids: tuple[str, ...]
    phones: Tensor | None = None  # (B, T), what is said in each frame, or UNKNOWN


class _Example(NamedTuple):
    audio: NDArray[np.float32]  # (S,)
    tokens: Sequence[int]  # (U,)
    phones: NDArray[np.int64]  # (T,), none where no utterance's are timed


class Utterances(Dataset):
    """A list of rows -> the Batch of these utterances, augmented as a function of (seed, epoch, cut id)."""

    def __init__(
        self,
        cuts: Sequence[Cut],
        tokens: Sequence[Sequence[int]],
        rate: int,
        augmentation: Augmentation = NO_AUGMENTATION,
        seed: int = 0,
        epoch: int = 0,
        phones: Mapping[str, PhoneTimes] | None = None,
        frame_samples: int = 1,
        word_starts: frozenset[int] = frozenset(),
    ) -> None:
        self.cuts, self.tokens, self.rate = cuts, tokens, rate
        self.phones, self.frame_samples, self.word_starts = phones, frame_samples, word_starts
        self.augmentation, self.seed, self.epoch = augmentation, seed, epoch

    def __len__(self) -> int:
        return len(self.cuts)

    def audio(self, row: int) -> NDArray[np.float32]:
        """Samples (S,) at the model's rate. Raises AudioError naming the file that cannot be read."""
        return self._example(row).audio

    def _example(self, row: int) -> _Example:
        cut, tokens = self.cuts[row], self.tokens[row]
        rng = np.random.default_rng([self.seed, self.epoch, zlib.crc32(cut.id.encode())])
        samples = load_audio(cut)
        times = (self.phones or {}).get(cut.id)
        share = self.augmentation.splice_share
        if share and times and len(times.said) == len(tokens) and rng.random() < share:
            starts = [token in self.word_starts for token in tokens]
            spliced = splice(samples, cut.sampling_rate, tokens, times, starts, rng)
            shortest = cut.duration / max(self.augmentation.speeds)
            if can_align(spliced.tokens, shortest, self.rate / self.frame_samples):
                samples, tokens, times = spliced
        samples, speed = perturb(samples, cut.sampling_rate, self.rate, self.augmentation, rng)
        labels = np.empty(0, np.int64)
        if self.phones is not None:
            labels = self._labels(row, times, len(samples), speed)
        return _Example(samples, tokens, labels)

    def _labels(self, row: int, times: PhoneTimes | None, samples: int, speed: float) -> NDArray[np.int64]:
        """The phone in the middle of each frame (T,), or UNKNOWN."""
        frames = -(-samples // self.frame_samples)
        if times is None:
            wordless = not self.cuts[row].supervisions[0].text
            return np.full(frames, SILENCE if wordless else UNKNOWN)
        middle = (np.arange(frames) + 0.5) * self.frame_samples / self.rate
        return times.labels(middle * speed)

    def __getitem__(self, rows: list[int]) -> Batch:
        examples = [self._example(row) for row in rows]
        tokens = [np.asarray(example.tokens, dtype=np.int64) for example in examples]
        phones = None
        if self.phones is not None:
            phones = _pad([1 + example.phones for example in examples]) - 1  # zero-padding is UNKNOWN
        return Batch(
            audio=_pad([example.audio for example in examples]),
            lengths=torch.tensor([len(example.audio) for example in examples]),
            tokens=_pad(tokens),
            token_lengths=torch.tensor([len(sequence) for sequence in tokens]),
            ids=tuple(self.cuts[row].id for row in rows),
            phones=phones,
        )


def can_align(tokens: Sequence[int], seconds: float, frame_rate: float) -> bool:
    """Whether CTC has a path: a frame for each token, and one for the blank between equal neighbours."""
    return len(tokens) + sum(a == b for a, b in itertools.pairwise(tokens)) <= seconds * frame_rate


def _pad(sequences: Sequence[NDArray[Any]]) -> Tensor:
    padded = np.zeros((len(sequences), max(map(len, sequences))), dtype=sequences[0].dtype)
    for row, sequence in zip(padded, sequences, strict=True):
        row[: len(sequence)] = sequence
    return torch.from_numpy(padded)


class _InOneLine(Dataset):
    """Hands a worker's AudioError over as a value: raised there, it would arrive wrapped in a traceback."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __getitem__(self, rows: list[int]) -> Any:
        try:
            return self.dataset[rows]
        except AudioError as error:
            return error


def _leave_ctrl_c_to_the_parent(worker: int) -> None:
    """A terminal sends Ctrl-C to all; the parent, stopping at the end of a batch, needs its workers still."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # not the parent's handler, inherited with the fork


class EpochLoader:
    """Iterates over the batches of one epoch from batch `start` on; its length counts all of them.

    Workers start at the first `next`, not at `iter`: Lightning calls `iter` more often than it uses the
    result. By `state_dict` and `load_state_dict` Lightning knows a loader that can resume; the position
    itself is kept by the data module, since the loader cannot tell fetched from trained on.
    """

    def __init__(self, dataset: Dataset, batches: Sequence[list[int]], workers: int, start: int = 0) -> None:
        self.dataset, self.batches, self.start = dataset, batches, start
        self._loader = partial(
            DataLoader,
            _InOneLine(dataset),
            batch_size=None,
            num_workers=workers,
            prefetch_factor=4 if workers else None,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_leave_ctrl_c_to_the_parent,
        )

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        if self.start >= len(self.batches):
            return
        for batch in self._loader(sampler=self.batches[self.start :]):
            if isinstance(batch, AudioError):
                raise batch
            yield batch

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass
