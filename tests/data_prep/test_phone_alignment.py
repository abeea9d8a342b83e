"""data_prep.phone_alignment and data_prep.phone_bank: which slots belong to which phone."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from asr.data.dataset import PhoneTimes
from asr.phones import SILENCE
from data_prep.phone_alignment import expected, viterbi
from data_prep.phone_bank import segments


def score(log_probs: np.ndarray, labels: list[int]) -> float:
    return float(log_probs[range(len(labels)), labels].sum())


def every_path(phones: list[int], slots: int) -> set[tuple[int, ...]]:
    """Labels of the slots of every way through the phones, silence optional."""
    found = set()
    optional = [index for index, phone in enumerate(phones) if phone == SILENCE]
    for dropped in itertools.chain.from_iterable(
        itertools.combinations(optional, n) for n in range(len(optional) + 1)
    ):
        kept = [phone for index, phone in enumerate(phones) if index not in dropped]
        for cuts in itertools.combinations(range(1, slots), len(kept) - 1):
            edges = [0, *cuts, slots]
            found.add(tuple(p for p, a, b in zip(kept, edges, edges[1:], strict=False) for _ in range(b - a)))
    return found


@pytest.mark.parametrize("seed", range(20))
def test_the_path_is_the_best_of_all(seed: int) -> None:
    rng = np.random.default_rng(seed)
    log_probs = np.log(rng.dirichlet(np.ones(5), 8)).astype(np.float32)
    phones = [SILENCE, 1, 2, SILENCE, 3, SILENCE]
    path = viterbi(log_probs, phones)
    assert path is not None
    labels = [phone for phone, a, b in path for _ in range(b - a)]
    best = max(score(log_probs, list(each)) for each in every_path(phones, 8))
    assert score(log_probs, labels) == pytest.approx(best, abs=1e-4)


def test_more_phones_than_slots_have_no_path() -> None:
    assert viterbi(np.zeros((2, 5), np.float32), [SILENCE, 1, 2, 3, SILENCE]) is None


def test_silence_may_stand_around_words_and_not_in_them() -> None:
    lexicon = {"a": ((1,), (2,)), "cat": ((3, 4),)}
    assert expected("a cat", lexicon) == [SILENCE, 1, SILENCE, 3, 4, SILENCE]


def test_a_slot_of_the_bank_belongs_to_the_phone_in_its_middle() -> None:
    times = PhoneTimes(np.array([SILENCE, 5, 7, 6]), np.array([0.0, 0.049, 0.071, 0.075]), 0.12)
    # middles of slots of 20 ms: 0.01 0.03 | 0.05 0.07 | none of 7 | 0.09 0.11
    assert segments(times, 6, 0.02, first=100) == [
        (SILENCE, SILENCE, 5, 100, 2),
        (5, SILENCE, 7, 102, 2),
        (6, 7, SILENCE, 104, 2),
    ]


def test_a_long_utterance_is_aligned_to_its_end() -> None:
    phones = [SILENCE, *([1, 2, 3, 4] * 75), SILENCE]
    log_probs = np.full((2 * len(phones), 5), -9.0, np.float32)
    log_probs[range(2 * len(phones)), np.repeat(phones, 2)] = 0.0
    assert viterbi(log_probs, phones) == [(p, 2 * i, 2 * i + 2) for i, p in enumerate(phones)]
