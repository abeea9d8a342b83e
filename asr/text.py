"""Text as the recogniser sees it: normalised words, and SentencePiece tokens with the CTC blank at 0."""

from __future__ import annotations

import io
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import sentencepiece

from asr.errors import UserError

BLANK, UNKNOWN = 0, 1
WORD_START = "\u2581"  # SentencePiece's mark for the space before a word

_APOSTROPHES = str.maketrans({"\u2019": "'", "\u2018": "'", "\u02bc": "'", "`": "'"})
_NOT_IN_WORDS = re.compile(r"[^\w']|_|(?<!\w)'|'(?!\w)")


def normalise(text: str) -> str:
    """Lower case; letters, digits and apostrophes inside words stay, everything else is one space.

    >>> normalise("  \u201cDon\u2019t\u201d - said O'Brien: 'go!' ")
    "don't said o'brien go"
    """
    text = unicodedata.normalize("NFKC", text).translate(_APOSTROPHES).lower()
    return " ".join(_NOT_IN_WORDS.sub(" ", text).split())


class Tokenizer:
    """SentencePiece with the blank of CTC as its padding piece, so that both agree on every id."""

    blank = BLANK
    lexicon = None  # `asr.lexicon.PhoneTokenizer` has one

    def __init__(self, model: bytes) -> None:
        self.model = model  # the serialised SentencePiece model
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        self.vocabulary: int = self._processor.get_piece_size()  # with the blank
        self.pieces: list[str] = [self._processor.id_to_piece(token) for token in range(self.vocabulary)]

    @classmethod
    def load(cls, path: str | Path) -> Tokenizer:
        try:
            tokenizer = cls(Path(path).read_bytes())
        except FileNotFoundError as error:
            raise UserError(
                f"{path}: no such tokenizer; train one with: asr tokenizer --output {path}"
            ) from error
        except (OSError, RuntimeError) as error:
            raise UserError(f"{path}: not a SentencePiece model; train one with: asr tokenizer") from error
        if tokenizer._processor.pad_id() != BLANK:
            raise UserError(f"{path}: token 0 is not the CTC blank; train the tokenizer with: asr tokenizer")
        return tokenizer

    def save(self, path: str | Path) -> None:
        Path(path).write_bytes(self.model)

    def encode(self, text: str) -> list[int]:
        return self._processor.encode(text)

    def decode(self, tokens: Sequence[int]) -> str:
        return self._processor.decode(list(tokens))


def train_tokenizer(
    texts: Iterable[str],
    path: str | Path,
    vocabulary: int,
    kind: Literal["unigram", "bpe", "char", "word"] = "unigram",
) -> Tokenizer:
    """Train SentencePiece on normalised texts, write it to `path`; `vocabulary` counts blank and unknown."""
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            vocab_size=vocabulary,
            model_type=kind,
            character_coverage=1.0,
            hard_vocab_limit=kind not in ("char", "word"),
            pad_id=BLANK,
            pad_piece="<blank>",
            unk_id=UNKNOWN,
            bos_id=-1,
            eos_id=-1,
            normalization_rule_name="identity",  # `normalise` has done it
            minloglevel=2,
        )
    except RuntimeError as error:
        reason = str(error).splitlines()[0].rsplit("] ", 1)[-1]
        raise UserError(f"cannot train a tokenizer of {vocabulary} tokens on this text: {reason}") from error
    tokenizer = Tokenizer(model.getvalue())
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    tokenizer.save(partial)
    partial.replace(path)
    return tokenizer
