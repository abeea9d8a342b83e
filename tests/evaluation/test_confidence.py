"""Calibration figures against values computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from asr.evaluation.confidence import BINS, calibration, judged
from asr.evaluation.wer import Utterance, score


def test_substituted_and_inserted_words_are_wrong_and_deleted_ones_do_not_count() -> None:
    (scored,) = score([Utterance("u", None, "the black cat sat on it", "the cut sat on it down")])
    assert judged(scored.alignment) == [True, False, True, True, True, False]


def test_the_calibration_error_is_the_weighted_gap_of_the_bins() -> None:
    found = calibration([0.25, 0.21, 0.85, 0.85, 0.85], [True, False, True, True, False])
    assert found is not None
    low, high = found.bins[2], found.bins[8]
    assert (low.count, low.confidence, low.correct) == (2, pytest.approx(0.23), 0.5)
    assert (high.count, high.confidence, high.correct) == (3, pytest.approx(0.85), pytest.approx(2 / 3))
    assert found.error == pytest.approx((2 * abs(0.5 - 0.23) + 3 * abs(2 / 3 - 0.85)) / 5)
    assert (found.words, found.correct) == (5, pytest.approx(0.6))
    assert sum(each.count for each in found.bins) == 5 and len(found.bins) == BINS


def test_the_likelihood_is_that_of_what_came_out() -> None:
    found = calibration([0.9, 0.5, 0.2], [True, False, False])
    assert found is not None
    assert found.likelihood == pytest.approx(-(math.log(0.9) + math.log(0.5) + math.log(0.8)) / 3)


def test_a_certain_mistake_costs_much_but_not_everything() -> None:
    found = calibration([1.0, 0.0], [False, True])
    assert found is not None
    assert found.likelihood == pytest.approx(-math.log(1e-4))
    assert (found.error, found.ranking) == (1.0, 0.0)


def test_ranking_is_the_share_of_pairs_in_order_with_ties_half() -> None:
    found = calibration([0.9, 0.5, 0.5, 0.1], [True, True, False, False])
    assert found is not None
    assert found.ranking == pytest.approx((2 + 1.5) / 4)


def test_without_wrong_words_there_is_no_ranking() -> None:
    found = calibration([0.9, 0.8], [True, True])
    assert found is not None and found.ranking is None


def test_nothing_recognised_has_no_calibration() -> None:
    assert calibration([], []) is None


def test_honest_confidences_have_little_error_and_ranks_beat_chance() -> None:
    random = np.random.default_rng(1)
    confidences = random.random(20_000)
    found = calibration(confidences, random.random(20_000) < confidences)
    assert found is not None and found.error < 0.02
    assert found.ranking == pytest.approx(5 / 6, abs=0.01)  # of uniform, honest confidences
