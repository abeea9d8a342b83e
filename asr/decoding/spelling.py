"""How tokens make words. Knows the pieces as the tokenizer writes them, and neither scores nor frames."""

from __future__ import annotations

from collections.abc import Sequence

from asr.errors import UserError
from asr.text import BLANK, UNKNOWN, WORD_START

_UNKNOWN_TEXT = "\u2047"  # as SentencePiece writes it


class Spelling:
    """What each token adds to a text, and whether it begins a word.

    A token begins a word if its piece begins with the mark of a word's start. A mark without letters is a
    word only together with what follows; alone it is nothing.
    """

    def __init__(self, pieces: Sequence[str]) -> None:
        self.pieces = tuple(pieces)
        self.starts_word = tuple(piece.startswith(WORD_START) for piece in pieces)
        self.letters = tuple(piece[1:] if piece.startswith(WORD_START) else piece for piece in pieces)
        special = {BLANK: "", UNKNOWN: _UNKNOWN_TEXT}
        self.letters = tuple(special.get(token, letters) for token, letters in enumerate(self.letters))
        across = [piece for piece, letters in zip(pieces, self.letters, strict=True) if WORD_START in letters]
        if across:
            raise UserError(
                f"the tokenizer's piece {across[0]!r} goes across words, which cannot be decoded;"
                " train one with: asr tokenizer"
            )

    def __len__(self) -> int:
        return len(self.pieces)

    def word(self, tokens: Sequence[int]) -> str:
        return "".join(self.letters[token] for token in tokens)

    def text(self, tokens: Sequence[int]) -> str:
        """Words with spaces between them."""
        spaced = (" " * self.starts_word[token] + self.letters[token] for token in tokens)
        return " ".join("".join(spaced).split())
