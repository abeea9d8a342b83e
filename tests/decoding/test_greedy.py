from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from asr.decoding.greedy import GreedyDecoder
from asr.decoding.types import Token

VOCABULARY = 4
paths = st.lists(st.integers(0, VOCABULARY - 1), max_size=30)


def log_probs(path: list[int]) -> NDArray[np.float32]:
    """(T, V), in which the given output has probability 0.7 + frame / 1000."""
    rows = np.full((len(path), VOCABULARY), 0.1, np.float32)
    for frame, output in enumerate(path):
        rows[frame, output] = 0.7 + frame / 1000
    return np.log(rows)


def collapse(path: list[int]) -> list[int]:
    return [output for last, output in zip([0, *path], path, strict=False) if output not in (0, last)]


@given(paths)
def test_repeats_merge_and_blanks_go(path: list[int]) -> None:
    decoder = GreedyDecoder()
    decoder.accept(log_probs(path))
    assert [token.id for token in decoder.best().tokens] == collapse(path)


@given(paths, st.lists(st.integers(0, 30), max_size=4))
def test_any_pieces_give_the_same_tokens(path: list[int], cuts: list[int]) -> None:
    whole, pieces = GreedyDecoder(), GreedyDecoder()
    whole.accept(log_probs(path))
    for piece in np.split(log_probs(path), sorted(min(cut, len(path)) for cut in cuts)):
        pieces.accept(piece)
    assert pieces.best() == whole.best()


@given(paths, st.integers(0, 30), st.integers(0, 5))
def test_committing_forgets_and_changes_nothing_after(path: list[int], cut: int, count: int) -> None:
    whole, decoder = GreedyDecoder(), GreedyDecoder()
    whole.accept(log_probs(path))
    decoder.accept(log_probs(path)[:cut])
    count = min(count, len(decoder.best().tokens))
    decoder.commit(count)
    decoder.accept(log_probs(path)[cut:])
    ids = [token.id for token in decoder.best().tokens]
    assert ids == [token.id for token in whole.best().tokens][count:]


def test_a_token_carries_its_frames_and_its_best_log_prob() -> None:
    decoder = GreedyDecoder()
    decoder.accept(log_probs([0, 2, 2, 2, 0, 2]))
    first, second = decoder.best().tokens
    assert (first.id, first.start, first.end) == (2, 1, 4)
    assert first.log_prob == pytest.approx(np.log(0.703), abs=1e-5)
    assert second == Token(2, 5, 6, pytest.approx(np.log(0.705), abs=1e-5))


def test_nan_log_probs_are_refused_with_their_frame() -> None:
    decoder = GreedyDecoder()
    decoder.accept(log_probs([0, 1]))
    broken = log_probs([1, 1, 1])
    broken[1, 3] = np.nan
    with pytest.raises(ValueError, match="frame 3"):
        decoder.accept(broken)
