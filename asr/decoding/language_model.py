"""Language models of n-grams: opening them, and what they say of a text. Knows no estimation and no audio.

`LanguageModel.open` takes a binary of `asr lm` (mapped into memory, at once), an ARPA file, also .gz or .xz
(read into memory), and a KenLM binary (asr/decoding/kenlm_model.py). The C++ library does the work; `handle`
is its pointer to the interface of csrc/language_model.h, for the beam.
"""

from __future__ import annotations

import ctypes
import functools
import gzip
import lzma
import math
import os
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from asr.decoding import native
from asr.errors import UserError
from asr.lexicon import Lexicon
from asr.text import WORD_START

OURS, KENLM = b"asr-lm\n\0", b"mmap lm http://kheafield.com/code"  # how the files begin
SPECIAL = ("<unk>", "<s>", "</s>")  # by their ids
FLOATS = 32  # bits of a number that is not quantised
SPELLED = 0.5  # a model of which the tokenizer spells less is one of another alphabet
MAX_ORDER = 6  # of csrc/language_model.h

PROGRESS = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p, ctypes.c_uint64, ctypes.c_uint64)
WRITE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)
SCORE = ctypes.CFUNCTYPE(ctypes.c_float, ctypes.POINTER(ctypes.c_uint32), ctypes.c_int32, ctypes.c_uint32)

_ERROR = 1024  # bytes of an error's line
_SORTING_MEMORY = 2**28  # bytes, while an ARPA file is read
_BLOCK = 2**20


class State:
    """What a model knows of the words before; without a handle, nothing: not even that a sentence begins."""

    def __init__(self, handle: int | None = None) -> None:
        self.handle = handle or library().asr_lm_nothing()

    def __del__(self) -> None:
        library().asr_lm_forget(self.handle)

    @property
    def context(self) -> tuple[int, ...]:
        """The words that the n-grams look at, as the model numbers them, the most recent first."""
        words = (ctypes.c_uint32 * (MAX_ORDER - 1))()
        return tuple(words[: library().asr_lm_context(self.handle, words)])


@dataclass(frozen=True)
class Perplexity:
    """What a model says of a text. Every sentence ends with one </s>, which counts as a word it knows."""

    sentences: int
    words: int
    unknown: int  # words that the model does not know
    log_prob: float  # ln P of the words that it knows and of the ends, unknown words in their histories
    log_prob_unknown: float  # ln P(<unk>) at the others

    @property
    def without_unknown(self) -> float:
        return math.exp(-self.log_prob / (self.words - self.unknown + self.sentences))

    @property
    def with_unknown(self) -> float:
        return math.exp(-(self.log_prob + self.log_prob_unknown) / (self.words + self.sentences))


class LanguageModel:
    """An immutable model, to be shared by decoders and threads; they have to keep it alive."""

    neural: Path | None = None  # file of the neural model that is mixed in (asr.decoding.neural_model)

    def __init__(self, handle: int, path: Path, counts: tuple[int, ...]) -> None:
        self.handle = handle  # asr::LanguageModel*
        self.path = path
        self.counts = counts  # n-grams of each order

    @classmethod
    def open(cls, path: str | Path) -> LanguageModel:
        """Raises UserError for what is not a model, truncated, or of another version."""
        path = Path(path)
        start = _start(path)
        if start.startswith(OURS):
            handle = checked(library().asr_lm_open, os.fsencode(path))
            return cls(handle, path, _counts(handle))
        if start.startswith(KENLM):
            from asr.decoding.kenlm_model import KenLanguageModel

            return KenLanguageModel(path)
        return read_arpa(path)

    def __del__(self) -> None:
        if getattr(self, "handle", None):
            library().asr_lm_close(self.handle)
            self.handle = 0

    @property
    def order(self) -> int:
        return len(self.counts)

    @property
    def vocabulary(self) -> int:
        """Words, with <unk>, <s> and </s>."""
        return self.counts[0]

    @property
    def lexicon(self) -> int:
        """Handle of the n-gram model that has the vocabulary."""
        return self.handle

    def begin(self) -> State:
        """Before the first word of a sentence."""
        return State(library().asr_lm_begin(self.handle))

    def score(self, before: State, word: str) -> tuple[float, State]:
        """ln P of a word after others, and the state after it."""
        log_prob, encoded = ctypes.c_float(), word.encode()
        after = library().asr_lm_score(self.handle, before.handle, encoded, len(encoded), log_prob)
        return log_prob.value, State(after)

    def knows(self, word: str) -> bool:
        return not self.perplexity([word]).unknown

    def scores(self, text: str) -> list[float]:
        """ln P of each word of a sentence and of its end."""
        state, scores = self.begin(), []
        for word in text.split():
            score, state = self.score(state, word)
            scores.append(score)
        return [*scores, library().asr_lm_score_end(self.handle, state.handle)]

    def perplexity(self, sentences: Iterable[str]) -> Perplexity:
        """Of sentences that are normalised; those without a word are left out."""
        sums, counts, number = (ctypes.c_double * 2)(), (ctypes.c_uint64 * 2)(), 0
        for sentence in sentences:
            if encoded := sentence.encode().strip():
                library().asr_lm_sentence(self.handle, encoded, len(encoded), sums, counts)
                number += 1
        return Perplexity(number, *counts, *sums)

    def check_alphabet(self, pieces: Sequence[str]) -> None:
        """Raise UserError if the tokenizer cannot spell most of the model: the words of another alphabet."""
        letters = sorted({letter for piece in pieces for letter in piece} - {WORD_START})
        missing = ctypes.create_string_buffer(_ERROR)
        spelled = " ".join([*letters, ""]).encode()
        share = library().asr_lm_spellable(self.lexicon, spelled, missing)
        if share < SPELLED:
            lacking = missing.value.decode(errors="replace")
            raise UserError(
                f"{self.path}: the tokenizer can spell {share:.0%} of its words (no token has {lacking}):"
                " take a language model of the tokenizer's alphabet"
            )


class PronouncedModel:
    """A language model, or None, over the words of a lexicon, for tokens that spell pronunciations.

    Immutable and to be shared, as the model is. Built in a tenth of a second: keep it (`pronounced`).
    """

    def __init__(self, lexicon: Lexicon, model: LanguageModel | None) -> None:
        self.model, self._lexicon = model, lexicon  # the model has to live as long
        self._words: dict[str, dict[str, float]] = {}
        said = [(word, way) for word, ways in lexicon.ways.items() for way in ways]
        text = "".join([f"{way} {word}\n" for word, way in said]).encode()
        log_probs = np.log([lexicon.share(*pair) for pair in said]).astype(np.float32)
        words = None if model is None else model.handle
        self.handle = checked(library().asr_lm_pronounced, words, text, len(text), log_probs.ctypes)

    def words(self, way: str) -> dict[str, float]:
        """Those that are said so, and that the model knows, with the logarithm of its share."""
        if way not in self._words:
            self._words[way] = {
                word: math.log(self._lexicon.share(word, way))
                for word in self._lexicon.homophones.get(way, ())
                if self.model is None or self.model.knows(word)
            }
        return self._words[way]

    def __del__(self) -> None:
        if getattr(self, "handle", None):
            library().asr_lm_close(self.handle)
            self.handle = 0


@functools.lru_cache(maxsize=4)
def pronounced(lexicon: Lexicon, model: LanguageModel | None) -> PronouncedModel:
    """One for all decoders of the same lexicon and model."""
    return PronouncedModel(lexicon, model)


def read_arpa(
    path: Path, output: Path | None = None, bits: int = FLOATS, progress: Callable[[int], None] | None = None
) -> LanguageModel:
    """Read an ARPA file, .gz and .xz too; `progress` hears of bytes read. Otherwise as `arpa_model`."""
    return arpa_model(blocks(path, progress), path, output, bits)


def arpa_model(
    text: Iterable[bytes], path: Path, output: Path | None = None, bits: int = FLOATS
) -> LanguageModel:
    """ARPA text in pieces of any size as a model in memory, or as a binary at `output`; messages name `path`.

    A vocabulary without one lower-case letter is read in lower case, as our text is, and a line says so.
    Raises UserError that names the line.
    """
    lib = library()
    memory, directory = ctypes.c_uint64(_SORTING_MEMORY), os.fsencode(tempfile.gettempdir())
    reader = checked(lib.asr_lm_arpa, os.fsencode(path), directory, memory)
    try:
        for block in text:
            while block:
                block = block[checked(lib.asr_lm_arpa_feed, reader, block, len(block)) :]
                if (words := lib.asr_lm_arpa_vocabulary(reader)) >= 0:
                    _respell(path, reader, words)
        made = os.fsencode(output) if output else b""
        handle = checked(lib.asr_lm_arpa_finish, reader, bits, made)
    finally:
        lib.asr_lm_arpa_close(reader)
    return LanguageModel(handle, output or path, _counts(handle))


def _respell(path: Path, reader: int, count: int) -> None:
    spelled = [library().asr_lm_arpa_word(reader, place) for place in range(count)]
    try:
        words = [word.decode() for word in spelled]
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: the word {error.object!r} among its 1-grams is not UTF-8") from error
    for place, (word, ours) in enumerate(zip(words, our_spelling(words, path), strict=True)):
        if word != ours:
            library().asr_lm_arpa_respell(reader, place, ours.encode())


def our_spelling(words: list[str], path: Path) -> list[str]:
    """The words of a model at `path`: in lower case if none has a lower-case letter, and a line says so."""
    letters = "".join(word for word in words if word not in SPECIAL)
    if letters == letters.lower() or letters != letters.upper():
        return words
    print(f"{path}: its words are upper case, and are read in lower case", file=sys.stderr)
    return [word if word in SPECIAL else word.lower() for word in words]


# Files


def _start(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(64)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such language model; asr lm makes one") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error


def open_text(path: Path, raw: IO[bytes]) -> IO[bytes]:
    """The text in a file, .gz and .xz by how it begins."""
    start = raw.read(6)
    raw.seek(0)
    if start.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=raw)  # type: ignore[return-value]
    return lzma.LZMAFile(raw) if start == b"\xfd7zXZ\0" else raw


def blocks(path: Path, progress: Callable[[int], None] | None = None) -> Iterator[bytes]:
    """The bytes of a text, .gz or .xz too; `progress` hears of bytes of the file. Raises UserError."""
    try:
        with open(path, "rb") as raw, open_text(path, raw) as text:
            while block := text.read(_BLOCK):
                yield block
                if progress:
                    progress(raw.tell())
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: cannot be unpacked ({error}): is it truncated?") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error


# The library


def checked(function: Any, *arguments: Any) -> int:
    """Call a function of the library that returns null or -1, and leaves a line, when it fails."""
    error = ctypes.create_string_buffer(_ERROR)
    result = function(*arguments, error)
    if result is None or result == -1:
        raise UserError(error.value.decode(errors="replace"))
    return int(result)


def _counts(handle: int) -> tuple[int, ...]:
    counts = (ctypes.c_uint64 * MAX_ORDER)()
    return tuple(counts[: library().asr_lm_counts(handle, counts)])


@functools.cache
def library() -> ctypes.CDLL:
    """The decoders' library with the types of its functions for language models. Raises UserError."""
    lib = native.library()
    pointer, text, size, integer = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int
    number, long, real = ctypes.c_uint64, ctypes.c_int64, ctypes.c_double
    functions: dict[str, tuple[Any, list[Any]]] = {
        "open": (pointer, [text, text]),
        "pronounced": (pointer, [pointer, text, size, pointer, text]),
        "mixed": (pointer, [pointer, text, size, pointer, real, text]),
        "callback": (pointer, [pointer, integer, SCORE, text]),
        "close": (None, [pointer]),
        "counts": (integer, [pointer, ctypes.POINTER(number)]),
        "spellable": (real, [pointer, text, text]),
        "sentence": (None, [pointer, text, size, ctypes.POINTER(real), ctypes.POINTER(number)]),
        "nothing": (pointer, []),
        "begin": (pointer, [pointer]),
        "score": (pointer, [pointer, pointer, text, size, ctypes.POINTER(ctypes.c_float)]),
        "score_end": (ctypes.c_float, [pointer, pointer]),
        "best_below": (ctypes.c_float, [pointer, pointer, text, size]),
        "forget": (None, [pointer]),
        "context": (integer, [pointer, ctypes.POINTER(ctypes.c_uint32)]),
        "arpa": (pointer, [text, text, number, text]),
        "arpa_close": (None, [pointer]),
        "arpa_feed": (long, [pointer, text, size, text]),
        "arpa_vocabulary": (long, [pointer]),
        "arpa_word": (text, [pointer, long]),
        "arpa_respell": (None, [pointer, long, text]),
        "arpa_finish": (pointer, [pointer, integer, text, text]),
        "estimator": (pointer, [integer, number, text, PROGRESS, text]),
        "estimator_close": (None, [pointer]),
        "estimator_feed": (long, [pointer, text, size, text]),
        "estimator_run": (
            long,
            [pointer, ctypes.POINTER(number), integer, real, number, *[text, size] * 2, pointer, text],
        ),
        "estimator_count": (number, [pointer, integer]),
        "estimator_fell_back": (integer, [pointer, integer]),
        "estimator_arpa": (integer, [pointer, WRITE, text]),
        "estimator_build": (pointer, [pointer, integer, text, text]),
    }
    for name, (result, arguments) in functions.items():
        function = getattr(lib, f"asr_lm_{name}")
        function.restype, function.argtypes = result, arguments
    return lib
