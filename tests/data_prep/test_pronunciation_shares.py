"""data_prep.pronunciation_shares: how often words are said in each of their ways."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr.lexicon import Lexicon
from data_prep import tsv
from data_prep.pronunciation_shares import counted, main, with_shares

LEXICON = Lexicon({"a": ("A", "e"), "the": ("Di", "DA", "DI"), "cat": ("k@t",), "or": ("cr", "R")})


def test_words_are_counted_as_they_were_heard() -> None:
    said = [("the cat", "DAk@t"), ("a cat or the cat", "ek@tRDAk@t"), ("a cat", "Ak@d")]
    assert counted(said, LEXICON) == {
        ("the", "DA"): 2, ("cat", "k@t"): 3, ("a", "e"): 1, ("or", "R"): 1,
    }  # fmt: skip


def test_the_usual_way_comes_first_and_the_others_have_shares_of_it() -> None:
    shared = with_shares(LEXICON, {("the", "DA"): 7, ("the", "DI"): 1, ("cat", "k@t"): 5, ("a", "A"): 3})
    assert shared.ways == {**LEXICON.ways, "the": ("DA", "DI", "Di")}
    assert shared.shares == {("the", "DI"): 2 / 8, ("the", "Di"): 1 / 8, ("a", "e"): 1 / 4}


def test_shares_that_are_known_count_as_one_word_that_was_said() -> None:
    known = Lexicon(LEXICON.ways, {("or", "R"): 0.3, ("a", "e"): 0.2})
    assert with_shares(known, {("a", "A"): 1}).shares == {("or", "R"): 0.3, ("a", "e"): 0.1}
    turned = with_shares(known, {("a", "e"): 4})
    assert turned.ways["a"] == ("e", "A")
    assert turned.shares == {("or", "R"): 0.3, ("a", "A"): 1 / 4.2}


def test_from_alignments_to_a_lexicon(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = ["utt_id\tspeaker\tpath\ttext"]
    for name in ("x", "y"):
        soundfile.write(tmp_path / f"{name}.wav", np.sin(np.arange(16000)) / 2, 16000)
        rows.append(f"{name}\ts\t{name}.wav\tthe cat")
    (tmp_path / "t.tsv").write_text("\n".join(rows) + "\n")
    assert tsv.main([str(tmp_path / "t.tsv"), "--output", str(tmp_path / "cuts.jsonl.gz")]) == 0
    phones = ("DH", "AH", "SIL", "K", "AE", "T")
    lines = [f"x 1 {place / 10:.2f} 0.10 {phone}" for place, phone in enumerate(phones)]
    (tmp_path / "x.ctm").write_text("\n".join(lines) + "\n")
    LEXICON.save(tmp_path / "lexicon.txt")
    arguments = {"lexicon": "lexicon.txt", "cuts": "cuts.jsonl.gz", "phones": "x.ctm", "output": "shared.txt"}
    assert (
        main([part for name, file in arguments.items() for part in (f"--{name}", str(tmp_path / file))]) == 0
    )
    said = "2 words said, 2 shares, 1 words whose usual way is another one"  # of y nothing is known
    assert said in capsys.readouterr().out
    assert Lexicon.load(tmp_path / "shared.txt").shares == {("the", "Di"): 0.5, ("the", "DI"): 0.5}
