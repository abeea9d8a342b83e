"""Estimating an n-gram model: the Python side of csrc/estimate.h, which has the equations. Reads no files."""

from __future__ import annotations

import gzip
import lzma
import os
import tempfile
from collections.abc import Callable, Iterable
from ctypes import c_double, c_uint64, string_at
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asr.decoding.language_model import PROGRESS, WRITE, checked, library
from asr.errors import UserError


@dataclass(frozen=True)
class Estimation:
    """What to estimate. `prune[k - 1]`: drops n-grams of order k seen that often or less, words for <unk>."""

    order: int = 4
    prune: tuple[int, ...] = ()  # the last holds for higher orders too
    prune_entropy: float = 0.0  # n-grams whose loss raises the perplexity by a smaller share are dropped
    vocabulary: int = 0  # most frequent words; 0: all
    words: tuple[str, ...] = ()  # the only ones, where there are any
    elsewhere: tuple[tuple[str, float], ...] = ()  # words, and how often each is in other text
    memory: int = 2**30  # bytes to sort in

    def __post_init__(self) -> None:
        counts = self.prune or (0,)
        if len(counts) > self.order or list(counts[1:]) != sorted(counts[1:]):
            given = " ".join(map(str, counts))
            raise UserError(
                f"--prune {given}: give {self.order} counts at most, and after that of words rising ones"
            )

    @property
    def thresholds(self) -> tuple[int, ...]:
        counts = self.prune or (0,)
        return counts + counts[-1:] * (self.order - len(counts))


class Estimator:
    """Fed with sentences, run once, then written as ARPA, and last as a binary.

    `progress` hears of what is being done, and of steps done of how many (0: not known).
    """

    def __init__(self, estimation: Estimation, progress: Callable[[str, int, int], None]) -> None:
        self._estimation = estimation
        self._progress = progress
        self._interrupted = False
        self._hear = PROGRESS(self._step)
        directory = os.fsencode(tempfile.gettempdir())
        arguments = (estimation.order, estimation.memory, directory, self._hear)
        self._handle = checked(library().asr_lm_estimator, *arguments)

    def close(self) -> None:
        library().asr_lm_estimator_close(self._handle)

    def feed(self, texts: Iterable[bytes]) -> int:
        """Sentences in UTF-8, words between spaces; returns how many words there have been so far."""
        joined = b"\n".join(texts) + b"\n"
        return self._call(library().asr_lm_estimator_feed, joined, len(joined))

    def run(self) -> int:
        """Returns how many words of the text became <unk>."""
        order, thresholds = self._estimation.order, self._estimation.thresholds
        words = "\n".join(self._estimation.words).encode()
        choices = (self._estimation.prune_entropy, self._estimation.vocabulary, words, len(words))
        listed = "\n".join(word for word, _ in self._estimation.elsewhere).encode()
        often = [times for _, times in self._estimation.elsewhere]
        counts, times = (c_uint64 * order)(*thresholds), (c_double * len(often))(*often)
        return self._call(library().asr_lm_estimator_run, counts, order, *choices, listed, len(listed), times)

    def counts(self) -> tuple[int, ...]:
        """N-grams of each order that are in the model."""
        count, orders = library().asr_lm_estimator_count, range(1, self._estimation.order + 1)
        return tuple(count(self._handle, k) for k in orders)

    def without_discounts(self) -> list[int]:
        """The orders whose counts of counts are too few for discounts: 0.5, 1 and 1.5 are taken there."""
        fell_back, orders = library().asr_lm_estimator_fell_back, range(1, self._estimation.order + 1)
        return [k for k in orders if fell_back(self._handle, k)]

    def write_arpa(self, path: Path) -> None:
        """.gz and .xz by the name; appears complete or not at all."""
        partial = path.with_name(path.name + ".partial")
        opened: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".xz": lzma.open}
        failed: list[OSError] = []
        with opened.get(path.suffix, open)(partial, "wb") as file:

            def write(text: int, size: int) -> int:
                try:
                    file.write(string_at(text, size))
                except OSError as error:  # it cannot pass through C++
                    failed.append(error)
                except KeyboardInterrupt:
                    self._interrupted = True
                return bool(failed) or self._interrupted

            try:
                self._call(library().asr_lm_estimator_arpa, WRITE(write))
            except UserError:
                raise failed[0] from None
        partial.replace(path)

    def build(self, path: Path, bits: int) -> None:
        """Once: the estimator has nothing after it."""
        library().asr_lm_close(self._call(library().asr_lm_estimator_build, bits, os.fsencode(path)))

    def _call(self, function: Any, *arguments: Any) -> int:
        try:
            return checked(function, self._handle, *arguments)
        except UserError:
            if self._interrupted:
                raise KeyboardInterrupt from None
            raise

    def _step(self, phase: bytes, done: int, total: int) -> int:
        try:
            self._progress(phase.decode(), done, total)
        except KeyboardInterrupt:
            self._interrupted = True
        return self._interrupted
