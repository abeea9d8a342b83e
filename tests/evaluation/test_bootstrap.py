"""Intervals cover what they promise, in simulated corpora whose true error rate is known."""

from __future__ import annotations

import numpy as np
import pytest

from asr.evaluation.bootstrap import compare, confidence_interval, groups
from benchmarks.interval_coverage import RATE, coverage, simulated

LENGTHS = [10] * 300
SPEAKERS = [str(number // 10) for number in range(300)]  # 30 speakers of 10 utterances


def test_interval_over_speakers_covers_the_true_rate() -> None:
    assert 0.90 <= coverage(30, known=True, corpora=200) <= 0.99


def test_interval_over_utterances_of_few_speakers_promises_too_much() -> None:
    assert coverage(30, known=False, corpora=200) < 0.85


def test_interval_of_independent_utterances_agrees_with_the_standard_error() -> None:
    errors = np.random.default_rng(3).binomial(10, RATE, size=300).tolist()
    interval = confidence_interval(errors, LENGTHS, groups([None] * 300))
    assert interval is not None
    width = 2 * 1.96 * np.std(errors) / 10 / np.sqrt(300)
    assert interval.high - interval.low == pytest.approx(width, rel=0.05)


def test_the_same_seed_gives_the_same_interval() -> None:
    errors = simulated(1, 30)
    intervals = [confidence_interval(errors, LENGTHS, groups(SPEAKERS), 300, seed) for seed in (5, 5, 6)]
    assert intervals[0] == intervals[1] != intervals[2]


def test_memory_blocks_do_not_change_the_number_of_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asr.evaluation.bootstrap._BLOCK", 301)
    interval = confidence_interval(simulated(1, 30), LENGTHS, groups([None] * 300), 50)
    assert interval is not None and interval.low < interval.high


def test_a_system_compared_with_itself_shows_no_difference() -> None:
    comparison = compare(simulated(1, 30), simulated(1, 30), LENGTHS, groups(SPEAKERS))
    assert comparison.difference == 0
    assert (comparison.interval.low, comparison.interval.high) == (0, 0)
    assert comparison.probability_of_improvement == 0.5


def test_pairing_sees_a_small_difference_that_separate_intervals_miss() -> None:
    a = simulated(1, 30, spread=5)
    better = [max(0, errors - (number % 4 == 0)) for number, errors in enumerate(a)]
    comparison = compare(a, better, LENGTHS, groups(SPEAKERS))
    apart = [confidence_interval(errors, LENGTHS, groups(SPEAKERS)) for errors in (a, better)]
    assert apart[0] is not None and apart[1] is not None and apart[1].high > apart[0].low
    assert comparison.interval.high < 0
    assert comparison.probability_of_improvement > 0.99


def test_equally_good_systems_are_told_apart_in_one_corpus_of_twenty() -> None:
    found = 0
    for seed in range(200):
        random = np.random.default_rng(seed)
        a, b = random.binomial(10, RATE, size=(2, 300)).tolist()
        interval = compare(a, b, LENGTHS, groups(SPEAKERS), resamples=300).interval
        found += not interval.low <= 0 <= interval.high
    assert 2 <= found <= 22


def test_unknown_speakers_are_groups_of_their_own() -> None:
    mixed = groups(["x", None, "y", None, "x"])
    assert mixed.index.tolist() == [0, 1, 2, 3, 0]
    assert (mixed.number, mixed.unit) == (4, "speakers and utterances")
    assert groups(SPEAKERS).unit == "speakers" and groups(SPEAKERS).number == 30


def test_a_single_speaker_is_resampled_by_utterance() -> None:
    assert groups(["x"] * 4).unit == "utterances"
    assert groups(["x"] * 4).number == 4


def test_there_is_no_interval_without_reference_words() -> None:
    assert confidence_interval([1, 2], [0, 0], groups([None, None])) is None
    assert confidence_interval([], [], groups([])) is None
    with pytest.raises(ValueError, match="empty"):
        compare([1], [1], [0], groups([None]))


def test_empty_references_among_others_count_their_errors() -> None:
    interval = confidence_interval([5, 0, 0], [0, 10, 10], groups([None] * 3))
    assert interval is not None and interval.low == 0 and interval.high >= 0.5
