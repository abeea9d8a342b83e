"""The fits of calibration, each on numbers alone: a grid search, an offset, a one-dimensional minimum, folds.

U utterances, G groups (speakers), N words.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from asr.evaluation.bootstrap import Groups

Point = tuple[float, ...]
Key = TypeVar("Key")


def search(
    start: Point,
    steps: Sequence[float],
    bounds: Sequence[tuple[float, float]],
    cost: Callable[[Point], float],
    rounds: int = 2,
) -> Point:
    """Coordinate descent on a lattice around `start`: the point of least cost, of equal ones the first found.

    Each coordinate in turn goes on in steps, up and down, as long as the cost falls; after a round without
    gain the steps are halved, in `rounds` rounds. `bounds`: least and most of each coordinate. A point costs
    one call.
    """
    known = {start: cost(start)}
    best, sizes = start, list(steps)
    for _ in range(rounds):
        while True:
            before = best
            for axis, sign in product(range(len(start)), (1, -1)):
                while True:
                    value = round(best[axis] + sign * sizes[axis], 6)
                    point = (*best[:axis], value, *best[axis + 1 :])
                    if not bounds[axis][0] <= value <= bounds[axis][1]:
                        break
                    if point not in known:
                        known[point] = cost(point)
                    if known[point] >= known[best]:
                        break
                    best = point
            if best == before:
                break
        sizes = [size / 2 for size in sizes]
    return best


def minimum(cost: Callable[[float], float], low: float, high: float, calls: int = 7) -> float:
    """The argument of least cost among `calls` tried: golden section in the logarithm, 0 < low < high."""
    ratio = (math.sqrt(5) - 1) / 2
    a, b = math.log(low), math.log(high)
    known: dict[float, float] = {}

    def tried(at: float) -> float:
        known[at] = cost(math.exp(at))
        return known[at]

    left, right = b - ratio * (b - a), a + ratio * (b - a)
    cost_left, cost_right = tried(left), tried(right)
    while len(known) < calls:
        if cost_left <= cost_right:
            b, right, cost_right = right, left, cost_left
            left = b - ratio * (b - a)
            cost_left = tried(left)
        else:
            a, left, cost_left = left, right, cost_right
            right = a + ratio * (b - a)
            cost_right = tried(right)
    return math.exp(min(known, key=known.__getitem__))


def folds(groups: Groups, count: int, seed: int = 0) -> NDArray[np.int64]:
    """(U,): the fold of each utterance. Whole groups, in random order, so that no speaker is in two folds."""
    order = np.random.default_rng(seed).permutation(groups.number)
    return (order % count)[groups.index]


def cross_validated_choice(costs: Mapping[Key, Sequence[float]], fold: NDArray[np.int64]) -> float:
    """The cost of choosing: for each fold the candidate that is best on all others is charged for this one.

    costs: of each candidate, one an utterance (U,).
    """
    table = np.array([list(each) for each in costs.values()], float)  # (candidates, U)
    charged = 0.0
    for number in np.unique(fold):
        inside = fold == number
        charged += table[table[:, ~inside].sum(1).argmin(), inside].sum()
    return charged


def offset(errors: Sequence[float]) -> float:
    """What has to be added for the least mean absolute error: minus the median; 0 without errors."""
    return 0.0 - float(np.median(errors)) if len(errors) else 0.0


def cross_validated_offset(errors: Sequence[Sequence[float]], fold: NDArray[np.int64]) -> float | None:
    """Mean absolute error with the offset of each fold fitted on all others; None without errors.

    errors: of the words of each utterance (U,).
    """
    left: list[float] = []
    for number in np.unique(fold):
        outside = [error for own, at in zip(errors, fold, strict=True) if at != number for error in own]
        inside = [error for own, at in zip(errors, fold, strict=True) if at == number for error in own]
        left += [abs(error + offset(outside)) for error in inside]
    return float(np.mean(left)) if left else None


def logistic(confidences: NDArray[np.float64], right: NDArray[np.bool_]) -> tuple[float, float]:
    """(scale, bias) of sigmoid(scale * logit(confidence) + bias), likeliest on (N,) words (Platt scaling).

    Newton's method with a little pull (1e-3 a word) towards the identity, so that there is a minimum even
    where all words are right.
    """
    features = np.stack([logit(confidences), np.ones(len(confidences))], 1)
    weights, identity = np.array([1.0, 0.0]), np.array([1.0, 0.0])
    pull = 1e-3 * max(1, len(confidences))

    def cost(weights: NDArray[np.float64]) -> float:
        odds, moved = features @ weights, weights - identity
        return float(np.logaddexp(0, odds).sum() - odds[right].sum() + pull / 2 * moved @ moved)

    for _ in range(50):
        predicted = sigmoid(features @ weights)
        gradient = features.T @ (predicted - right) + pull * (weights - identity)
        curvature = (features * (predicted * (1 - predicted))[:, None]).T @ features + pull * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        while cost(weights - step) > cost(weights) and abs(step).max() >= 1e-8:  # it leapt too far
            step /= 2
        weights -= step
        if abs(step).max() < 1e-8:
            break
    return float(weights[0]), float(weights[1])


def logit(values: NDArray[np.float64], bound: float = 1e-4) -> NDArray[np.float64]:
    clipped = values.clip(bound, 1 - bound)
    return np.log(clipped / (1 - clipped))


def sigmoid(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-values))
