"""Do words of confidence 0.8 turn out right eight times in ten? Calibration error, likelihood, ranking.

N words, each with a confidence in [0, 1] and whether it was right. Knows numbers only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asr.evaluation.wer import Edit

BINS = 10
_CERTAIN = 1e-4  # a wrong word of confidence 1 costs -ln(1e-4) = 9.2 nats and not all of the likelihood


@dataclass(frozen=True)
class Bin:
    """Words with confidences in [low, high), the last bin with high; means are None where it is empty."""

    low: float
    high: float
    count: int
    confidence: float | None
    correct: float | None


@dataclass(frozen=True)
class Calibration:
    """Means over words, and three figures of merit.

    error: the expected calibration error (Guo et al. 2017, arXiv 1706.04599), |correct - confidence| of the
    bins, weighted with their counts. likelihood: the mean negative log-likelihood in nats. ranking: the
    probability that a right word has more confidence than a wrong one (AUC); None if all are right or wrong.
    """

    words: int
    correct: float
    confidence: float
    error: float
    likelihood: float
    ranking: float | None
    bins: tuple[Bin, ...]


def judged(alignment: Sequence[Edit]) -> list[bool]:
    """Whether each recognised word is right: substituted and inserted words are not."""
    return [edit.kind == "equal" for edit in alignment if edit.kind != "delete"]


def calibration(confidences: ArrayLike, right: ArrayLike) -> Calibration | None:
    """Both (N,); None where N is 0."""
    predicted, outcome = np.asarray(confidences, float), np.asarray(right, float)
    if not len(predicted):
        return None
    bins = tuple(_bins(predicted, outcome))
    gaps = [each.count * abs(each.correct - each.confidence) for each in bins if each.count]  # type: ignore[operator]
    return Calibration(
        words=len(predicted),
        correct=float(outcome.mean()),
        confidence=float(predicted.mean()),
        error=sum(gaps) / len(predicted),
        likelihood=likelihood(predicted, outcome),
        ranking=ranking(predicted, outcome > 0),
        bins=bins,
    )


def _bins(predicted: NDArray[np.float64], outcome: NDArray[np.float64]) -> list[Bin]:
    own = np.minimum((predicted * BINS).astype(int), BINS - 1)
    counts = np.bincount(own, minlength=BINS)
    sums = [np.bincount(own, values, BINS) for values in (predicted, outcome)]
    means = [[float(s / n) if n else None for s, n in zip(each, counts, strict=True)] for each in sums]
    return [Bin(k / BINS, (k + 1) / BINS, int(counts[k]), means[0][k], means[1][k]) for k in range(BINS)]


def likelihood(predicted: NDArray[np.float64], outcome: NDArray[np.float64]) -> float:
    """Mean of -ln P(what came out), confidences being kept 1e-4 away from 0 and 1."""
    bounded = predicted.clip(_CERTAIN, 1 - _CERTAIN)
    return float(-np.where(outcome > 0, np.log(bounded), np.log1p(-bounded)).mean())


def ranking(predicted: NDArray[np.float64], right: NDArray[np.bool_]) -> float | None:
    """P(confidence of a right word > that of a wrong one), ties counting half."""
    wrong = np.sort(predicted[~right])
    if not len(wrong) or len(wrong) == len(predicted):
        return None
    below = np.searchsorted(wrong, predicted[right], "left") + np.searchsorted(
        wrong, predicted[right], "right"
    )
    return float(below.mean() / 2 / len(wrong))
