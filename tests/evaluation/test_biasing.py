"""Listed and other words are counted apart, as in arXiv 2104.02194."""

from __future__ import annotations

from pathlib import Path

import pytest

from asr.errors import UserError
from asr.evaluation.biasing import Biasing, read_utterance_phrases, score_biasing
from asr.evaluation.wer import Counts, Utterance, score


def biasing(reference: str, hypothesis: str, *phrases: str) -> Biasing:
    (scored,) = score([Utterance("u", None, reference, hypothesis)])
    return score_biasing(scored.alignment, phrases)


def test_listed_words_and_all_others_make_up_the_word_errors() -> None:
    found = biasing("call doctor quilter now please", "call doctor kilter now", "quilter", "zephyr")
    assert found.listed == Counts(substitutions=1)
    assert found.others == Counts(hits=3, deletions=1)
    assert (found.recall, found.precision, found.claimed) == (0.0, None, 0)


def test_an_inserted_word_is_listed_if_it_is_on_the_list() -> None:
    found = biasing("call now", "call zephyr right now", "zephyr")
    assert (found.listed, found.others) == (Counts(insertions=1), Counts(hits=2, insertions=1))
    assert (found.recall, found.precision) == (None, 0.0)


def test_a_listed_word_in_the_place_of_another_is_an_error_of_the_other_and_a_false_claim() -> None:
    found = biasing("call the doctor", "call zephyr doctor", "zephyr")
    assert found.listed == Counts()
    assert found.others == Counts(hits=2, substitutions=1)
    assert (found.claimed, found.precision) == (1, 0.0)


def test_the_words_of_a_phrase_are_listed_only_as_the_phrase() -> None:
    found = biasing("new york is new", "new york is new", "new york")
    assert found.listed == Counts(hits=2)
    assert found.others == Counts(hits=2)
    assert (found.recall, found.precision) == (1.0, 1.0)


def test_a_phrase_that_is_half_right_still_was_said() -> None:
    found = biasing("in new york", "in new cork", "new york")
    assert found.listed == Counts(hits=1, substitutions=1)
    assert (found.recall, found.precision) == (0.5, 1.0)


def test_counts_of_utterances_add_up() -> None:
    one, other = biasing("a b", "a b", "b"), biasing("a b", "a", "b")
    assert (one + other).recall == 0.5
    assert (one + other).others == Counts(hits=2)


def test_lists_of_utterances_are_read(tmp_path: Path) -> None:
    (tmp_path / "lists.tsv").write_text("u1\tNew York|Dr. Quilter\n\nu2\t\n")
    assert read_utterance_phrases(tmp_path / "lists.tsv") == {"u1": ("new york", "dr quilter"), "u2": ()}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("u1 new york\n", "line 1 has no tab"),
        ("u1\ta\nu1\tb\n", "line 2 repeats the utterance u1"),
        ("u1\ta||b\n", r"line 1 \(u1\) has an empty phrase"),
    ],
)
def test_a_broken_list_is_one_line_that_names_the_place(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "lists.tsv").write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        read_utterance_phrases(tmp_path / "lists.tsv")
    assert "\n" not in str(caught.value) and "lists.tsv" in str(caught.value)


def test_a_missing_list_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.tsv"):
        read_utterance_phrases(tmp_path / "gone.tsv")
