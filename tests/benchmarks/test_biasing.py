"""benchmarks.biasing: which words are listed, and what is counted."""

from collections import Counter
from pathlib import Path

import pytest

from asr.evaluation.wer import Utterance
from benchmarks import biasing
from benchmarks.biasing import biasing_lists, count_words, evaluate

LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz'")


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Two common words, and eight rare ones, of which one has a letter that the tokenizer does not."""
    monkeypatch.setattr(biasing, "COMMON", 2)
    rare = dict.fromkeys(("quilter", "gospel", "lucid", "simile", "idyll", "jingo", "apostle", "naïve"), 1)
    return Counter({"the": 90, "of": 50, **rare})


def test_a_list_holds_the_rare_words_said_and_distractors_that_were_not_said(counts: Counter[str]) -> None:
    references = {"u1": "the gospel of quilter", "u2": "of the zebra"}
    lists = biasing_lists(references, counts, LETTERS, largest=3)
    assert lists(0) == {"u1": ("gospel", "quilter"), "u2": ("zebra",)}
    pool = set(counts) - {"the", "of", "naïve"}
    for utt_id, text in references.items():
        distractors = lists(3)[utt_id][len(lists(0)[utt_id]) :]
        assert len(set(distractors)) == 3 and set(distractors) <= pool - set(text.split())


def test_lists_grow_by_more_distractors_and_are_the_same_every_time(counts: Counter[str]) -> None:
    references = {"u1": "the gospel"}
    lists, again = (biasing_lists(references, counts, LETTERS, largest=4) for _ in range(2))
    assert lists(4)["u1"][: len(lists(2)["u1"])] == lists(2)["u1"]
    assert lists(4) == again(4)


def test_a_list_cannot_ask_for_letters_that_the_tokenizer_lacks(counts: Counter[str]) -> None:
    assert biasing_lists({"u1": "naïve gospel"}, counts, LETTERS, largest=0)(0)["u1"] == ("gospel",)


def test_false_insertions_are_listed_words_that_were_not_said() -> None:
    utterances = [
        Utterance("u1", "a", "the gospel of quilter", "the gospel of jingo"),
        Utterance("u2", "b", "he is glad", "jingo he was glad"),
    ]
    lists = {"u1": ("gospel", "quilter", "jingo"), "u2": ("jingo",)}
    found = evaluate(utterances, lists)
    assert found.wer.value == pytest.approx(3 / 7)
    assert found.b_wer.value == pytest.approx(2 / 2)  # quilter is wrong, and a jingo is inserted
    assert found.u_wer.value == pytest.approx(1 / 5)
    assert found.recall.value == pytest.approx(1 / 2)
    assert found.false.value == pytest.approx(2 / 7)
    assert found.recall.low <= found.recall.value <= found.recall.high


def test_words_are_counted_as_the_recogniser_writes_them(tmp_path: Path) -> None:
    import lzma

    with lzma.open(tmp_path / "text.xz", "wt", encoding="utf-8") as file:
        file.write("THE CAT'S tail -\nthe tail\n")
    assert count_words(tmp_path / "text.xz") == {"the": 2, "cat's": 1, "tail": 2}
