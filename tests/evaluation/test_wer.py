"""Counts against examples worked out by hand."""

from __future__ import annotations

import math
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from asr.evaluation.wer import Counts, Edit, Utterance, frequent, score, total


def said(reference: str, hypothesis: str) -> Utterance:
    return Utterance("u", None, reference, hypothesis)


def test_counts_are_those_worked_out_by_hand() -> None:
    # the cat sat on *** mat | the cut sat *** the mat
    (each,) = score([said("the cat sat on mat", "the cut sat on the mat")])
    assert each.words == Counts(hits=4, substitutions=1, deletions=0, insertions=1)
    assert each.words.rate == 2 / 5
    # characters: a > u, and the four of "the " come in
    assert each.characters == Counts(hits=17, substitutions=1, deletions=0, insertions=4)
    assert [edit.kind for edit in each.alignment] == [
        "equal",
        "substitute",
        "equal",
        "equal",
        "insert",
        "equal",
    ]


def test_corpus_rate_weighs_utterances_by_their_length() -> None:
    scores = score([said("a b c d e f g h", "a b c d e f g h"), said("a b", "")])
    assert total(each.words for each in scores).rate == 2 / 10


def test_empty_references_and_hypotheses_count() -> None:
    nothing, silence, noise = score([said("", ""), said("two words", ""), said("", "noise heard")])
    assert nothing.words == Counts() and nothing.words.rate == 0
    assert silence.words == Counts(deletions=2) and silence.words.rate == 1
    assert noise.words == Counts(insertions=2) and math.isinf(noise.words.rate)
    assert total([silence.words, noise.words]).rate == 2
    assert score([]) == ()


def test_frequent_edits_are_ordered_by_number_then_alphabet() -> None:
    scores = score([said("a b c", "x b y"), said("c a", "y x"), said("b d", "z d")])
    assert frequent(scores, "substitute") == [
        (Edit("substitute", "a", "x"), 2),
        (Edit("substitute", "c", "y"), 2),
        (Edit("substitute", "b", "z"), 1),
    ]


TEXTS = st.lists(st.sampled_from(["a", "b", "c", "don't"]), max_size=8).map(" ".join)


@given(TEXTS, TEXTS)
def test_alignment_holds_both_texts_and_agrees_with_the_counts(reference: str, hypothesis: str) -> None:
    (each,) = score([said(reference, hypothesis)])
    assert " ".join(filter(None, (edit.reference for edit in each.alignment))) == reference
    assert " ".join(filter(None, (edit.hypothesis for edit in each.alignment))) == hypothesis
    assert each.words.length == len(reference.split())
    assert each.characters.length == len(reference)
    assert each.words.hits + each.words.substitutions + each.words.insertions == len(hypothesis.split())


def test_importing_the_package_does_not_import_jiwer() -> None:
    subprocess.run([sys.executable, "-c", "import asr, sys; assert 'jiwer' not in sys.modules"], check=True)
