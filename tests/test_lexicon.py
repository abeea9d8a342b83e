"""Lexica, and phones as tokens."""

from __future__ import annotations

from pathlib import Path

import pytest

from asr import lexicon as lexicon_module
from asr.errors import UserError
from asr.lexicon import Lexicon, PhoneTokenizer, load_tokenizer, respell
from asr.phones import LETTERS, names, pronunciation
from asr.text import UNKNOWN

FILE = "a AH\na EY\ncat K AE T\nchurch CH ER CH\nsat S AE T\nthe DH AH\nthe 0.11 DH IY\n"


@pytest.fixture
def lexicon(tmp_path: Path) -> Lexicon:
    (tmp_path / "lexicon.txt").write_text(FILE)
    return Lexicon.load(tmp_path / "lexicon.txt")


def test_a_saved_lexicon_is_the_file_that_was_read(lexicon: Lexicon, tmp_path: Path) -> None:
    lexicon.save(tmp_path / "again.txt")
    assert (tmp_path / "again.txt").read_text() == FILE


def test_pronunciations_may_have_shares(lexicon: Lexicon) -> None:
    assert lexicon.ways["the"] == ("DA", "Di")
    assert lexicon.shares == {("the", "Di"): 0.11}


def test_each_phone_has_one_letter_and_back() -> None:
    assert all(len(letter) == 1 for letter in LETTERS.values())
    assert names(pronunciation([*LETTERS])).split() == [*LETTERS]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("cat", "line 2: a line is a word"),
        ("cat K AE TS", "line 2: 'TS' is no phone"),
        ("", "line 2"),
        ("cat 0.5", "line 2: a line is a word"),
        ("cat 0 K AE T", "line 2: a share is more than 0 and at most 1, as 0.25, and not 0"),
        ("cat 1.5 K AE T", "line 2: a share .* not 1.5"),
        ("cat -1 K AE T", "line 2: a share .* not -1"),
        ("cat 0.5.1 K AE T", "line 2: .*0.5.1"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, reason: str) -> None:
    (tmp_path / "bad.txt").write_text(f"a AH\n{line}\nb B IY\n")
    with pytest.raises(UserError, match=reason):
        Lexicon.load(tmp_path / "bad.txt")


def test_what_is_no_lexicon_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such lexicon"):
        Lexicon.load(tmp_path / "none.txt")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9 K AE F EY")
    with pytest.raises(UserError, match="UTF-8"):
        Lexicon.load(tmp_path / "latin.txt")
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(UserError, match="no words"):
        Lexicon.load(tmp_path / "empty.txt")


def test_tokens_spell_pronunciations_and_mark_where_words_begin(lexicon: Lexicon) -> None:
    tokenizer = PhoneTokenizer(lexicon)
    tokens = tokenizer.encode("the cat sat")
    assert "".join(tokenizer.pieces[token] for token in tokens) == "▁DA▁k@t▁s@t"
    assert tokenizer.decode(tokens) == "DA k@t s@t"
    assert tokenizer.encode("the dog") == [*tokenizer.encode("the"), UNKNOWN]


def test_tokens_are_those_of_the_pronunciation_that_was_heard(lexicon: Lexicon) -> None:
    tokenizer = PhoneTokenizer(lexicon)
    assert tokenizer.decode(tokenizer.encode("a cat the sat", "ek@tDis@t")) == "e k@t Di s@t"
    assert tokenizer.decode(tokenizer.encode("a cat the sat", "ek@tDisAt")) == "A k@t DA s@t"


def test_ways_of_a_phrase_are_all_combinations(lexicon: Lexicon, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(word: str) -> str:
        raise UserError("nothing is known")

    monkeypatch.setattr(lexicon_module, "guess", none)
    assert lexicon.phrases("the a") == ["DA A", "DA e", "Di A", "Di e"]
    with pytest.raises(ValueError, match="'dog' is pronounced"):
        lexicon.phrases("the dog")


def test_words_that_sound_alike_are_found() -> None:
    lexicon = Lexicon({"to": ["tu", "tA"], "two": ["tu"], "too": ["tu"]})
    assert lexicon.homophones == {"tu": ("to", "two", "too"), "tA": ("to",)}


def test_what_no_word_sounds_like_is_written_as_it_sounds() -> None:
    assert respell(pronunciation(["JH", "AA", "NG", "AH"])) == "jangu"


def test_the_suffix_says_what_a_tokenizer_is(tmp_path: Path) -> None:
    (tmp_path / "lexicon.txt").write_text(FILE)
    assert isinstance(load_tokenizer(tmp_path / "lexicon.txt"), PhoneTokenizer)
    with pytest.raises(UserError, match="no such tokenizer"):
        load_tokenizer(tmp_path / "tokenizer.model")
