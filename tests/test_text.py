from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.errors import UserError
from asr.text import WORD_START, Tokenizer, normalise, train_tokenizer
from tests.conftest import SENTENCES


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("  “Don’t” - said O'Brien: 'go!' ", "don't said o'brien go"),
        ("MISTER QUILTER IS THE APOSTLE", "mister quilter is the apostle"),
        ("café ﬁne — 5_6", "café fine 5 6"),
        ("rock 'n' roll, the dogs' bowl", "rock n roll the dogs bowl"),
        ("...", ""),
    ],
)
def test_normalised_text_is_words_and_single_spaces(text: str, words: str) -> None:
    assert normalise(text) == words


@given(st.text())
def test_normalising_twice_is_normalising_once(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


def test_tokens_decode_to_the_text(tokenizer: Tokenizer) -> None:
    for sentence in SENTENCES:
        tokens = tokenizer.encode(sentence)
        assert tokenizer.decode(tokens) == sentence
        assert tokenizer.blank not in tokens
        pieces = [tokenizer.pieces[token] for token in tokens]
        assert "".join(pieces).replace(WORD_START, " ").strip() == sentence
        assert sum(piece.startswith(WORD_START) for piece in pieces) == len(sentence.split())


def test_a_tokenizer_survives_saving(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "tokenizer.model")
    loaded = Tokenizer.load(tmp_path / "tokenizer.model")
    assert loaded.encode(SENTENCES[0]) == tokenizer.encode(SENTENCES[0])
    assert loaded.vocabulary == tokenizer.vocabulary == 40


def test_a_vocabulary_larger_than_the_text_carries_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot train a tokenizer of 5000 tokens.*too high") as error:
        train_tokenizer(SENTENCES, tmp_path / "tokenizer.model", 5000)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_what_is_not_a_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"missing\.model: no such tokenizer"):
        Tokenizer.load(tmp_path / "missing.model")
    (tmp_path / "bad.model").write_bytes(b"not a model")
    with pytest.raises(UserError, match=r"bad\.model: not a SentencePiece model"):
        Tokenizer.load(tmp_path / "bad.model")
