"""How far would an error rate move with other speakers? Percentile bootstrap (Bisani & Ney, ICASSP 2004).

Utterances of one speaker succeed and fail together, so whole speakers are resampled where they are known;
resampling their utterances would promise too narrow an interval. Knows counts only, nothing of texts.

Legend: U utterances, G groups (speakers, or single utterances), R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
LEVEL = 0.95
PERCENTILES = (0.50, 0.90, 0.99)
_PERCENTILE_RESAMPLES = 2_000
_STEPS = 2_000  # values that a resampled percentile can take: a twentieth of a percentile apart
_BLOCK = 4_000_000  # indices drawn at once: bounds the memory at tens of megabytes for any corpus


@dataclass(frozen=True)
class Interval:
    """Percentile interval of a rate (a fraction, not per cent)."""

    low: float
    high: float


@dataclass(frozen=True)
class Percentiles:
    """Of `count` values pooled over a corpus: one value and its interval for each of PERCENTILES."""

    count: int
    mean: float
    values: tuple[float, ...]
    intervals: tuple[Interval, ...]


@dataclass(frozen=True)
class Comparison:
    """System B against system A on the same utterances; rates are fractions."""

    rate_a: float
    rate_b: float
    interval: Interval  # of rate_b - rate_a
    probability_of_improvement: float  # share of resamples in which B makes fewer errors; ties count half

    @property
    def difference(self) -> float:
        return self.rate_b - self.rate_a


@dataclass(frozen=True)
class Groups:
    """What is resampled: `index` (U,) gives the group of each utterance, 0 <= index < number."""

    index: np.ndarray
    number: int
    unit: str  # "speakers" or "utterances"


def groups(speakers: Sequence[str | None]) -> Groups:
    """Speakers where known, an utterance without a speaker being its own group.

    With fewer than two known speakers there is nothing to choose among, and single utterances are resampled:
    the interval then speaks of other utterances, not of other people.
    """
    if len({speaker for speaker in speakers if speaker is not None}) < 2:
        return Groups(np.arange(len(speakers)), len(speakers), "utterances")
    keys: dict[object, int] = {}
    index = [
        keys.setdefault(position if speaker is None else speaker, len(keys))
        for position, speaker in enumerate(speakers)
    ]
    unit = "speakers and utterances" if None in speakers else "speakers"
    return Groups(np.array(index), len(keys), unit)


def confidence_interval(
    errors: Sequence[float],
    lengths: Sequence[float],
    groups: Groups,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval | None:
    """95 % interval of sum(errors) / sum(lengths), both (U,). None if every reference is empty."""
    (rates,) = _resample(groups, lengths, [errors], resamples, seed)
    return _percentiles(rates)


def compare(
    errors_a: Sequence[float],
    errors_b: Sequence[float],
    lengths: Sequence[float],
    groups: Groups,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Paired bootstrap: both systems on the same resampled utterances, so that what is hard for both cancels.

    `errors_a`, `errors_b`, `lengths` are (U,), in one order. Raises ValueError if all references are empty.
    """
    length = sum(lengths)
    if length == 0:
        raise ValueError("cannot compare error rates: every reference is empty")
    a, b = _resample(groups, lengths, [errors_a, errors_b], resamples, seed)
    interval = _percentiles(b - a)
    assert (
        interval is not None
    )  # some reference has words, and groups are drawn until R: some resample has them too
    return Comparison(
        sum(errors_a) / length, sum(errors_b) / length, interval, float(np.mean((b < a) + 0.5 * (a == b)))
    )


def percentiles(
    values: Sequence[Sequence[float]], groups: Groups, resamples: int = _PERCENTILE_RESAMPLES, seed: int = 0
) -> Percentiles | None:
    """PERCENTILES of all values, those of utterance u being values[u]; None where there are none.

    A percentile is the smallest value with at least that share of the values at or below it.
    """
    counts = [len(own) for own in values]
    pooled = np.concatenate([np.asarray(own, float) for own in values]) if values else np.empty(0)
    if not len(pooled):
        return None
    steps = np.unique(np.quantile(pooled, np.linspace(0, 1, _STEPS + 1), method="inverted_cdf"))  # (K,)
    table = np.zeros((groups.number, len(steps)), np.float32)  # how many values of a group are at each step
    np.add.at(table, (np.repeat(groups.index, counts), np.searchsorted(steps, pooled)), 1)
    generator = np.random.default_rng(seed)
    drawn = []
    for size in _block_sizes(resamples, max(groups.number, len(steps))):
        times = generator.multinomial(groups.number, np.full(groups.number, 1 / groups.number), size)
        below = (times.astype(np.float32) @ table).cumsum(1, dtype=np.float64)  # (R', K)
        below = below[below[:, -1] > 0]
        drawn.append([steps[(below >= level * below[:, -1:]).argmax(1)] for level in PERCENTILES])
    levels = np.concatenate(drawn, axis=1)  # (levels, R)
    intervals = [interval for row in levels if (interval := _percentiles(row)) is not None]
    found = np.quantile(pooled, PERCENTILES, method="inverted_cdf")
    return Percentiles(len(pooled), float(pooled.mean()), tuple(found.tolist()), tuple(intervals))


def _percentiles(values: np.ndarray) -> Interval | None:
    if len(values) == 0:
        return None
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))


def _resample(
    groups: Groups, lengths: Sequence[float], errors: Sequence[Sequence[float]], resamples: int, seed: int
) -> np.ndarray:
    """Draw G groups with replacement, R times; returns the error rates (systems, R).

    Resamples that drew nothing but empty references have no rate and are left out.
    """
    columns = [
        np.bincount(groups.index, weights=column, minlength=groups.number) for column in (lengths, *errors)
    ]
    if sum(lengths) == 0:
        return np.empty((len(errors), 0))
    generator = np.random.default_rng(seed)
    blocks = []
    for size in _block_sizes(resamples, groups.number):
        drawn = generator.integers(groups.number, size=(size, groups.number), dtype=np.int32)  # (R', G)
        length, *wrong = (column[drawn].sum(axis=1) for column in columns)  # (R',) each
        blocks.append(np.stack(wrong)[:, length > 0] / length[length > 0])
    return np.concatenate(blocks, axis=1)


def _block_sizes(resamples: int, number: int) -> list[int]:
    rows = max(1, _BLOCK // number)
    return [min(rows, resamples - start) for start in range(0, resamples, rows)]
