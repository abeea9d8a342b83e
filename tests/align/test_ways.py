"""The ways in which words were said are those of the likeliest of all CTC paths."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchaudio.functional import forced_align

from asr.align.ways import choose_ways

WORDS = [[(1, 2), (1,), (3, 3, 2)], [(2, 1), (2,)], [(3,), (1, 3), (2, 2)]]


def log_probs_of(frames: int, seed: int) -> NDArray[np.float32]:
    logits = torch.from_numpy(np.random.default_rng(seed).normal(0, 2, (frames, 4)).astype(np.float32))
    return logits.log_softmax(-1).numpy()


def likelihood(log_probs: NDArray[np.float32], tokens: list[int]) -> float:
    """ln P of the best path of these tokens, by torchaudio; minus infinity where there are too few frames."""
    if len(tokens) + sum(left == right for left, right in pairwise(tokens)) > len(log_probs):
        return -np.inf
    _, scores = forced_align(torch.from_numpy(log_probs)[None], torch.tensor([tokens]), blank=0)
    return scores.sum().item()


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("frames", [4, 7, 15])
def test_no_other_ways_are_likelier(frames: int, seed: int) -> None:
    log_probs = log_probs_of(frames, seed)
    by_likelihood = {
        ways: likelihood(log_probs, [token for way in ways for token in way]) for ways in product(*WORDS)
    }
    chosen = tuple(choose_ways(log_probs, WORDS))
    assert by_likelihood[chosen] == pytest.approx(max(by_likelihood.values()), abs=1e-4)
    assert len(set(by_likelihood.values())) > 1


def test_words_that_are_too_many_for_the_frames_are_said_in_the_first_way() -> None:
    assert choose_ways(log_probs_of(2, 0), WORDS) == [(1, 2), (2, 1), (3,)]
    assert choose_ways(log_probs_of(2, 0)[:0], WORDS) == [(1, 2), (2, 1), (3,)]


def test_no_words_are_said_in_no_way() -> None:
    assert choose_ways(log_probs_of(2, 0), []) == []
