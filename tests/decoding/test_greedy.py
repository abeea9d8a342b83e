from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from asr.decoding.greedy import GreedyDecoder
from asr.decoding.types import DecodedWord
from asr.errors import UserError

PIECES = ("<blank>", "<unk>", "▁a", "b", "▁", "▁c")
paths = st.lists(st.integers(0, len(PIECES) - 1), max_size=30)


def log_probs(path: list[int]) -> NDArray[np.float32]:
    """(T, V), in which the given output has probability 0.7 + frame / 1000."""
    rows = np.full((len(path), len(PIECES)), 0.05, np.float32)
    for frame, output in enumerate(path):
        rows[frame, output] = 0.7 + frame / 1000
    return np.log(rows)


def collapse(path: list[int]) -> list[int]:
    return [output for last, output in zip([0, *path], path, strict=False) if output not in (0, last)]


def text(tokens: list[int]) -> str:
    pieces = ["" if token == 0 else "⁇" if token == 1 else PIECES[token] for token in tokens]
    return " ".join("".join(pieces).replace("▁", " ").split())


def spoken(words: list[DecodedWord]) -> str:
    return " ".join(word.text for word in words)


@given(paths)
def test_repeats_merge_and_blanks_go(path: list[int]) -> None:
    decoder = GreedyDecoder(PIECES)
    decoder.accept(log_probs(path))
    decoder.flush()
    assert spoken(decoder.take()) == text(collapse(path))
    assert decoder.take() == decoder.tentative() == []


@given(paths, st.lists(st.integers(0, 30), max_size=4))
def test_any_pieces_give_the_same_words(path: list[int], cuts: list[int]) -> None:
    whole, pieces = GreedyDecoder(PIECES), GreedyDecoder(PIECES)
    whole.accept(log_probs(path))
    taken = []
    for piece in np.split(log_probs(path), sorted(min(cut, len(path)) for cut in cuts)):
        pieces.accept(piece)
        taken += pieces.take()
    assert taken == whole.take() and pieces.tentative() == whole.tentative()
    assert pieces.trailing_blanks == whole.trailing_blanks


@given(paths, st.integers(0, 30))
def test_after_a_flush_the_stream_goes_on_and_nothing_is_heard_twice(path: list[int], cut: int) -> None:
    decoder = GreedyDecoder(PIECES)
    decoder.accept(log_probs(path)[:cut])
    decoder.flush()
    decoder.accept(log_probs(path)[cut:])
    decoder.flush()
    words = decoder.take()
    assert spoken(words).replace(" ", "") == text(collapse(path)).replace(" ", "")
    starts = [word.start for word in words]
    assert starts == sorted(starts) and all(word.start < word.end <= len(path) for word in words)


@given(paths)
def test_only_the_last_word_is_tentative(path: list[int]) -> None:
    decoder = GreedyDecoder(PIECES)
    decoder.accept(log_probs(path))
    assert len(decoder.tentative()) <= 1
    assert spoken([*decoder.take(), *decoder.tentative()]) == text(collapse(path))


def test_a_word_has_the_frames_of_its_emissions_and_the_mean_of_its_tokens_log_probs() -> None:
    decoder = GreedyDecoder(PIECES)
    decoder.accept(log_probs([0, 2, 2, 2, 0, 3, 0, 0]))
    (word,) = decoder.tentative()
    assert (word.text, word.tokens, word.start, word.end) == ("ab", (2, 3), 1, 6)
    assert word.confidence == pytest.approx(np.sqrt(0.703 * 0.705), abs=1e-5)
    assert word.survived == 3  # frames 5, 6 and 7
    assert decoder.trailing_blanks == 2


def test_a_mark_without_letters_is_no_word() -> None:
    decoder = GreedyDecoder(PIECES)
    decoder.accept(log_probs([4, 0, 5, 4]))
    decoder.flush()
    assert [(word.text, word.start, word.end) for word in decoder.take()] == [("c", 2, 3)]


def test_reset_begins_a_new_stream() -> None:
    decoder = GreedyDecoder(PIECES)
    decoder.accept(log_probs([2, 5, 3]))
    decoder.reset()
    assert (decoder.take(), decoder.tentative(), decoder.trailing_blanks) == ([], [], 0)
    decoder.accept(log_probs([3]))
    assert [(word.text, word.start) for word in decoder.tentative()] == [("b", 0)]


@pytest.mark.parametrize(
    ("value", "message"), [(np.nan, "NaN .* frame 3"), (np.inf, "infinity .* frame 3")], ids=str
)
def test_broken_log_probs_are_refused_with_their_frame_and_nothing_is_taken(
    value: float, message: str
) -> None:
    decoder = GreedyDecoder(PIECES)
    decoder.accept(log_probs([0, 1]))
    broken = log_probs([2, 2, 2])
    broken[1, 3] = value
    with pytest.raises(ValueError, match=message):
        decoder.accept(broken)
    assert spoken(decoder.tentative()) == "⁇"


def test_another_vocabulary_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(T, 6\), .* got an array of shape \(2, 5\)"):
        GreedyDecoder(PIECES).accept(np.zeros((2, 5), np.float32))


def test_pieces_across_words_are_refused() -> None:
    with pytest.raises(UserError, match="goes across words"):
        GreedyDecoder(["<blank>", "<unk>", "▁of▁the"])
