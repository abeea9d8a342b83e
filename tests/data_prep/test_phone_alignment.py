"""data_prep.phone_alignment: which frames belong to which phone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr.errors import UserError
from asr.lexicon import Lexicon, PhoneTokenizer
from asr.phones import INDEX, LETTERS
from data_prep import tsv
from data_prep.phone_alignment import align_phones, main, pronounce

TOKENIZER = PhoneTokenizer(Lexicon({"a": (LETTERS["AH"], LETTERS["EY"]), "cat": ("k@t",)}))
WORDS = [[[INDEX["K"], INDEX["AE"], INDEX["T"]]], [[INDEX["T"], INDEX["AA"]], [INDEX["D"], INDEX["AA"]]]]


def emitted(path: str) -> np.ndarray:
    """Log-probabilities of a path of phones' letters, "." for blank; which of its two tokens is left open."""
    probabilities = np.full((len(path), TOKENIZER.vocabulary), 1e-6, np.float32)
    for frame, letter in zip(probabilities, path, strict=True):
        tokens = (
            [TOKENIZER.pieces.index(piece) for piece in (letter, f"\u2581{letter}")] if letter != "." else [0]
        )
        frame[tokens] = 1 / len(tokens)
    return np.log(probabilities)


def test_words_have_the_ways_of_the_lexicon() -> None:
    a, cat = pronounce("a cat", TOKENIZER.lexicon)
    assert a == [[INDEX["AH"]], [INDEX["EY"]]]
    assert cat == [[INDEX["K"], INDEX["AE"], INDEX["T"]]]
    with pytest.raises(KeyError):
        pronounce("a dog", TOKENIZER.lexicon)


def test_the_phones_are_those_of_the_way_in_which_a_word_was_said() -> None:
    found = align_phones(emitted("k@t.daa"), WORDS, 1.0)
    assert [text for text, _, _ in found] == ["K", "AE", "T", "SIL", "D", "AA"]


def test_silence_is_around_words_and_not_in_them() -> None:
    found = align_phones(emitted("..k.@@t..ta."), WORDS, 0.02)
    assert [(text, round(start / 0.02), round(end / 0.02)) for text, start, end in found] == [
        ("SIL", 0, 2),
        ("K", 2, 4),
        ("AE", 4, 6),
        ("T", 6, 7),
        ("SIL", 7, 9),
        ("T", 9, 10),
        ("AA", 10, 11),
        ("SIL", 11, 12),
    ]


def test_words_may_follow_one_another_without_silence() -> None:
    found = align_phones(emitted("k@@saa"), [[[INDEX["K"], INDEX["AE"]]], [[INDEX["S"], INDEX["AA"]]]], 1.0)
    assert [(text, start, end) for text, start, end in found] == [
        ("K", 0, 1),
        ("AE", 1, 3),
        ("S", 3, 4),
        ("AA", 4, 6),
    ]


def test_more_phones_than_frames_have_no_alignment() -> None:
    with pytest.raises(UserError, match="too long"):
        align_phones(emitted("k@"), WORDS, 0.02)


def test_words_that_the_model_lacks_may_be_in_another_lexicon(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    soundfile.write(tmp_path / "x.wav", np.sin(np.arange(16000)) / 2, 16000)
    (tmp_path / "t.tsv").write_text("utt_id\tspeaker\tpath\ttext\nx\ts\tx.wav\tbilboing\n")
    assert tsv.main([str(tmp_path / "t.tsv"), "--output", str(tmp_path / "cuts.jsonl.gz")]) == 0
    (tmp_path / "lexicon.txt").write_text("bilboing B IH L B OW IH NG\n")
    files = ["--cuts", str(tmp_path / "cuts.jsonl.gz"), "--output", str(tmp_path / "x.ctm")]
    assert main(["--model", "en-small", *files]) == 0
    assert "0 utterances, 1 left out" in capsys.readouterr().out
    assert main(["--model", "en-small", "--lexicon", str(tmp_path / "lexicon.txt"), *files]) == 0
    assert "1 utterances, 0 left out" in capsys.readouterr().out
    said = [line.split()[-1] for line in (tmp_path / "x.ctm").read_text().splitlines()]
    assert [phone for phone in said if phone != "SIL"] == ["B", "IH", "L", "B", "OW", "IH", "NG"]
