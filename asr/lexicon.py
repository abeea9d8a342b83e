"""How words are said: the lexicon, and phones as the tokens of a model.

A phone is written with one letter (`asr.phones.LETTERS`), so a pronunciation is a string as a word is one,
and everything that spells words with tokens spells pronunciations alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice, product
from pathlib import Path

from asr.errors import UserError
from asr.phones import NAMES, names, pronunciation
from asr.pronounce import guess
from asr.text import BLANK, UNKNOWN, WORD_START, Tokenizer

MOST_WAYS = 16


class Lexicon:
    """Words and the ways in which each is said, the usual one first.

    ways: word -> pronunciations, each a string of the phones' letters. shares: (word, pronunciation) -> how
    often it is said so for each time that it is said in the usual way; 1 of those that are not there.
    """

    def __init__(
        self, ways: Mapping[str, Sequence[str]], shares: Mapping[tuple[str, str], float] | None = None
    ) -> None:
        self.ways = ways
        self.shares = shares or {}

    @classmethod
    def load(cls, path: str | Path) -> Lexicon:
        """A file of CMUdict's form, a line a pronunciation: `word PHONE PHONE`, or with its share, as in
        Kaldi's lexiconp.txt: `word 0.25 PHONE PHONE`. UserError names the line."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise UserError(f"{path}: no such lexicon; make one with: python -m data_prep.lexicon") from error
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: not a lexicon in UTF-8 ({error})") from error
        ways: dict[str, tuple[str, ...]] = {}  # tuples: of lists, Python's garbage collector makes rounds
        shares: dict[tuple[str, str], float] = {}
        for number, line in enumerate(text.splitlines(), 1):
            word, *phones = line.split() or [""]
            share = phones.pop(0) if phones and phones[0][0] in "-.0123456789" else None
            if not phones:
                raise UserError(f"{path}, line {number}: a line is a word and its phones, as: cat K AE T")
            try:
                way = pronunciation(phones)
                if share is not None:
                    shares[word, way] = _share(share)
            except ValueError as error:
                raise UserError(f"{path}, line {number}: {error}") from error
            ways[word] = (*ways.get(word, ()), way)
        if not ways:
            raise UserError(f"{path}: the lexicon has no words; make one with: python -m data_prep.lexicon")
        return cls(ways, shares)

    def save(self, path: str | Path) -> None:
        Path(path).write_text("".join(self.lines()), encoding="utf-8")

    def lines(self) -> Iterator[str]:
        """What `load` reads."""
        for word, ways in self.ways.items():
            for way in ways:
                share = self.shares.get((word, way))
                yield f"{word} {names(way)}\n" if share is None else f"{word} {share:.2g} {names(way)}\n"

    def share(self, word: str, way: str) -> float:
        return self.shares.get((word, way), 1.0)

    def __contains__(self, word: str) -> bool:
        return word in self.ways

    @cached_property
    def homophones(self) -> dict[str, tuple[str, ...]]:
        """Pronunciation -> the words that are said so."""
        said: dict[str, tuple[str, ...]] = {}
        for word, ways in self.ways.items():
            for way in dict.fromkeys(ways):
                said[way] = (*said.get(way, ()), word)
        return said

    def ways_of(self, words: Sequence[str], heard: str) -> list[str] | None:
        """The pronunciations of words that together are what was heard; None where none are."""
        reached: list[dict[int, str]] = [{0: ""}]  # after each word: how much was heard, and its last way
        for word in words:
            here = {
                start + len(way): way
                for start in reached[-1]
                for way in self.ways.get(word, ())
                if heard.startswith(way, start)
            }
            reached.append(here)
        if len(heard) not in reached[-1]:
            return None
        ways, end = [], len(heard)
        for here in reversed(reached[1:]):
            ways.append(here[end])
            end -= len(here[end])
        return ways[::-1]

    def phrases(self, phrase: str) -> list[str]:
        """The ways to say a phrase, words with spaces between them, at most `MOST_WAYS`.

        Raises ValueError for a word of which no pronunciation is known or can be guessed.
        """
        words = [self.ways_or_guess(word) for word in phrase.split()]
        return [" ".join(ways) for ways in islice(product(*words), MOST_WAYS)]

    def ways_or_guess(self, word: str) -> Sequence[str]:
        """How a word is said. Raises ValueError."""
        if word in self.ways:
            return self.ways[word]
        try:
            return [guess(word)]
        except UserError as error:
            raise ValueError(f"the lexicon does not say how {word!r} is pronounced ({error})") from error


def _share(text: str) -> float:
    """Raises ValueError."""
    share = float(text)
    if not 0 < share <= 1:
        raise ValueError(f"a share is more than 0 and at most 1, as 0.25, and not {text}")
    return share


def respell(way: str) -> str:
    """A pronunciation that no word has, in letters that suggest it."""
    return "".join(_SPELT.get(letter, letter) for letter in way)


_SUGGESTIONS = "a a u o ow y ch th e er ay ng h i ee j o oy r sh th u oo y zh"  # for these letters of phones:
_SPELT = dict(zip("a@AcWYCDEReGhIiJoOrSTUuyZ", _SUGGESTIONS.split(), strict=True))


class PhoneTokenizer:
    """Phones as tokens, each as the first of a word and as another one. What `Tokenizer` is for text.

    Two tokens a phone, so that words can be told apart: CTC has no other mark between them.
    """

    blank = BLANK

    def __init__(self, lexicon: Lexicon) -> None:
        self.lexicon = lexicon
        self.pieces = ["<blank>", "<unk>", *(WORD_START + letter for letter in NAMES), *NAMES]
        self.vocabulary = len(self.pieces)
        self.model = "\n".join(self.pieces).encode()  # the same in a model and in what goes on from it
        self._first = {letter: 2 + place for place, letter in enumerate(NAMES)}

    def save(self, path: str | Path) -> None:
        self.lexicon.save(path)

    def encode(self, text: str, heard: str | None = None) -> list[int]:
        """The tokens of a text as it is usually said, or, if that is possible, as it was `heard`: the letters
        of the phones that an aligner found. UNKNOWN for a word that the lexicon lacks."""
        words = text.split()
        ways = heard and self.lexicon.ways_of(words, heard)
        if not ways:
            ways = [self.lexicon.ways[word][0] if word in self.lexicon else "" for word in words]
        return [token for way in ways for token in (self.spell(way) if way else [UNKNOWN])]

    def spell(self, way: str) -> list[int]:
        """A word's pronunciation -> its tokens."""
        first, *rest = (self._first[letter] for letter in way)
        return [first, *(token + len(NAMES) for token in rest)]

    def decode(self, tokens: Sequence[int]) -> str:
        """Pronunciations with spaces between them."""
        pieces = ("" if token in (BLANK, UNKNOWN) else self.pieces[token] for token in tokens)
        return "".join(pieces).replace(WORD_START, " ").strip()


def load_tokenizer(path: str | Path) -> Tokenizer | PhoneTokenizer:
    """A SentencePiece model, or, by its suffix .txt, a lexicon for the tokens of phones."""
    if Path(path).suffix == ".txt":
        return PhoneTokenizer(Lexicon.load(path))
    return Tokenizer.load(path)
