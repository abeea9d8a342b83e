"""The fits find what synthetic data were made with."""

from __future__ import annotations

import numpy as np
import pytest

from asr.calibrate.fit import (
    cross_validated_choice,
    cross_validated_offset,
    folds,
    logistic,
    logit,
    minimum,
    offset,
    search,
    sigmoid,
)
from asr.evaluation.bootstrap import groups


def test_the_search_finds_the_best_point_of_the_lattice_and_asks_once_for_each() -> None:
    asked: list[tuple[float, ...]] = []

    def cost(point: tuple[float, ...]) -> float:
        asked.append(point)
        weight, bonus = point
        return abs(weight - 1.1) + abs(bonus + 0.75) + 0.1 * abs(weight - bonus)

    assert search((0.5, 0.0), (0.2, 0.5), ((0.0, np.inf), (-np.inf, np.inf)), cost) == (1.1, -0.75)
    assert len(asked) == len(set(asked)) < 40


def test_the_search_stays_above_the_bounds() -> None:
    points: list[tuple[float, ...]] = []
    best = search((0.4,), (0.2,), ((0.0, np.inf),), lambda point: points.append(point) or point[0])
    assert best == (0.0,) and min(points) == (0.0,)


def test_a_known_temperature_is_found() -> None:
    """Of logits that are too large by 3: likelihood is best where they are divided by it."""
    random = np.random.default_rng(1)
    honest = random.normal(1, 2, 5000)
    right = random.random(5000) < sigmoid(honest)

    def cost(temperature: float) -> float:
        predicted = sigmoid(3 * honest / temperature)
        return float(-np.log(np.where(right, predicted, 1 - predicted)).mean())

    assert minimum(cost, 0.2, 50, calls=12) == pytest.approx(3, rel=0.1)


def test_a_known_logistic_map_is_found() -> None:
    random = np.random.default_rng(2)
    confidences = random.uniform(0.01, 0.99, 20_000)
    right = random.random(20_000) < sigmoid(0.6 * logit(confidences) - 1)
    assert logistic(confidences, right) == pytest.approx((0.6, -1), abs=0.05)


def test_the_logistic_map_is_found_where_what_is_sure_is_wrong() -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        confidences, right = random.beta(8, 0.3, 40), random.random(40) < 0.1
        scale, bias = logistic(confidences, right)
        assert abs(scale) < 10 and abs(bias) < 100
        shown = sigmoid(scale * logit(confidences) + bias)
        assert shown.mean() == pytest.approx(right.mean(), abs=0.05)


def test_the_logistic_map_exists_even_where_all_words_are_right() -> None:
    scale, bias = logistic(np.full(100, 0.9), np.ones(100, bool))
    assert np.isfinite([scale, bias]).all() and sigmoid(scale * logit(np.array([0.9])) + bias)[0] > 0.95


def test_the_offset_is_the_one_with_the_least_mean_absolute_error() -> None:
    errors = np.concatenate([np.random.default_rng(3).normal(0.12, 0.02, 99), [5.0]])  # one far off
    assert offset(errors.tolist()) == pytest.approx(-0.12, abs=0.01)
    tried = [abs(errors + shift).mean() for shift in np.linspace(-1, 1, 201)]
    assert abs(errors + offset(errors.tolist())).mean() <= min(tried)
    assert offset([]) == 0


def test_no_speaker_is_in_two_folds() -> None:
    speakers = [f"s{number % 10}" for number in range(100)]
    fold = folds(groups(speakers), 5)
    assert sorted(set(fold.tolist())) == [0, 1, 2, 3, 4]
    assert len(set(zip(speakers, fold.tolist(), strict=True))) == 10


def test_held_out_offsets_are_of_other_speakers() -> None:
    errors = [[0.1, 0.1], [0.1], [0.5]]  # the third speaker differs
    fold = np.array([0, 0, 1])
    assert cross_validated_offset(errors, fold) == pytest.approx((3 * 0.4 + 0.4) / 4)
    assert cross_validated_offset([[], []], np.array([0, 1])) is None


def test_choosing_by_chance_is_charged_what_it_costs() -> None:
    costs = {"a": [0, 5], "b": [5, 0]}  # each is best on the other half
    assert cross_validated_choice(costs, np.array([0, 1])) == 10
    assert cross_validated_choice({"a": [1, 1], "b": [2, 2]}, np.array([0, 1])) == 2
