"""Prefix beam search with a language model and hotwords: the Python side of csrc/beam.h. Knows no model.

T frames, V vocabulary, B streams.
"""

from __future__ import annotations

import ctypes
import functools
import weakref
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from asr.decoding import native
from asr.decoding.config import DecodingConfig
from asr.decoding.greedy import check_frames
from asr.decoding.homophones import Writer
from asr.decoding.hotwords import Hotword, check_hotwords
from asr.decoding.spelling import Spelling
from asr.decoding.types import DecodedWord, Hypothesis, Token
from asr.lexicon import Lexicon

if TYPE_CHECKING:
    from asr.decoding.language_model import LanguageModel, PronouncedModel


class BeamDecoder:
    """A `Decoder` that follows many hypotheses of what has been said; docs/decoding.md says what they score.

    pieces: the tokenizer's, by token. hotwords: what this stream is to hear more easily. lexicon: of tokens
    that spell pronunciations.
    Raises UserError where the C++ library is missing or a hotword cannot be used.
    """

    def __init__(
        self,
        pieces: Sequence[str],
        config: DecodingConfig,
        language_model: LanguageModel | None = None,
        hotwords: Sequence[Hotword] = (),
        lexicon: Lexicon | None = None,
    ) -> None:
        self._spelling = Spelling(pieces)
        self._config = config
        self._lexicon = lexicon
        self._writer: Writer | None = None
        scored: LanguageModel | PronouncedModel | None = language_model
        if lexicon is not None:
            from asr.decoding.language_model import pronounced

            scored = pronounced(lexicon, language_model)
            self._writer = Writer(scored)
        self._language_model = scored  # has to live as long as the decoder
        self._written: list[DecodedWord] = []  # final, and not taken yet
        self._frame = 0
        options = _Options.of(config, recombine=lexicon is not None)
        text, offsets = _pack(self._spelling.letters)
        starts = np.array(self._spelling.starts_word, np.uint8)
        model = None if scored is None else scored.handle
        self._own(
            _library().asr_beam_new(
                text, offsets.ctypes, starts.ctypes, len(starts), ctypes.byref(options), model
            )
        )
        if hotwords:
            self.set_hotwords(hotwords)

    def _own(self, handle: int | None) -> None:
        if not handle:
            raise MemoryError("not enough memory for a decoder")
        self._handle = handle
        weakref.finalize(self, _library().asr_beam_delete, handle)

    def accept(self, log_probs: NDArray[np.float32]) -> None:
        """log_probs (T, V): the next frames. ValueError, and nothing is taken, where a frame is broken."""
        accept_batch([self], log_probs[None], [len(log_probs)])

    def take(self) -> list[DecodedWord]:
        """The words that have become final since the last call: each is given once and never changes."""
        taken, self._written = [*self._written, *self._take()], []
        return taken

    def _take(self) -> list[DecodedWord]:
        taken: list[DecodedWord] = []
        new: list[DecodedWord] = []
        for word, behind in self._read(_library().asr_beam_take):
            if behind:
                taken, new = taken + self._commit(new, word.text.split()), []
            else:
                new.append(word)
        return taken + self._commit(new)

    def _commit(self, words: Sequence[DecodedWord], after: Sequence[str] = ()) -> list[DecodedWord]:
        """Final words as they are written, now that these pronunciations are heard behind them."""
        if self._writer is None:
            return [*words]
        return _written(words, self._writer.commit([word.text for word in words], after))

    def tentative(self) -> list[DecodedWord]:
        """The best hypothesis after the final words."""
        if self._writer is None:
            return self._words(_library().asr_beam_tentative)
        self._written += self._take()  # they come before
        words = self._words(_library().asr_beam_tentative)
        return _written(words, self._writer.write([word.text for word in words]))

    def flush(self) -> None:
        """At an endpoint or the end: the best hypothesis becomes final; the stream can go on.

        The language model begins a new sentence.
        """
        self._written += self._take()
        _check(_library().asr_beam_flush(self._handle))
        self._written += self._take()
        if self._writer is not None:
            self._writer.begin()

    def reset(self) -> None:
        """Begin a new stream, with the same hotwords."""
        self._frame, self._written = 0, []
        if self._writer is not None:
            self._writer.begin()
        _check(_library().asr_beam_reset(self._handle))

    def copy(self) -> BeamDecoder:
        """A decoder that goes on from here by itself."""
        twin = object.__new__(BeamDecoder)
        twin.__dict__.update(self.__dict__)
        twin._writer, twin._written = copy(self._writer), [*self._written]
        twin._own(_library().asr_beam_copy(self._handle))
        return twin

    def nbest(self, count: int) -> list[Hypothesis]:
        """The best `count` texts of what is not final, best first, as if the stream ended now.

        A text's score and times are those of its best segmentation, its posterior that of all.
        """
        self._written += self._take()
        readings, tokens = ctypes.POINTER(_Reading)(), ctypes.POINTER(_Token)()
        found = _library().asr_beam_nbest(self._handle, count, ctypes.byref(readings), ctypes.byref(tokens))
        _check(found < 0)
        rest = iter(range(sum(readings[i].tokens for i in range(found))))
        texts: dict[str, Hypothesis] = {}  # those of several pronunciations are one
        for made in [self._hypothesis(readings[i], tokens, rest) for i in range(found)]:
            best = texts.get(made.text)
            texts[made.text] = replace(best, posterior=best.posterior + made.posterior) if best else made
        return list(texts.values())

    def set_hotwords(self, hotwords: Sequence[Hotword]) -> None:
        """From now on, these: live hypotheses are scored anew from the beginning of their last word.

        Raises UserError for a phrase that cannot be used.
        """
        check_hotwords(hotwords, self._spelling.pieces, self._lexicon)
        default = self._config.hotword_boost
        boosted = [
            (" ".join(phrase.split()), default if boost is None else boost) for phrase, boost in hotwords
        ]
        if self._lexicon is not None and self._writer is not None:
            self._writer.favour(_favoured(boosted, self._lexicon))
            boosted = _said(boosted, self._lexicon)
        text, offsets = _pack(phrase for phrase, _ in boosted)
        packed = np.array([boost for _, boost in boosted], np.float64)
        # With a boost of zero there is nothing to reward.
        used = len(packed) if packed.any() else 0
        _check(_library().asr_beam_set_hotwords(self._handle, text, offsets.ctypes, packed.ctypes, used))

    @property
    def trailing_blanks(self) -> int:
        """Frames since the last output of the best hypothesis that was no blank, or since the beginning."""
        return _library().asr_beam_trailing_blanks(self._handle)

    @property
    def size(self) -> int:
        """Nodes and emissions in memory: what grows with what is not final, and with nothing else."""
        return _library().asr_beam_size(self._handle)

    def _words(self, function: ctypes._NamedFuncPointer) -> list[DecodedWord]:
        return [word for word, _ in self._read(function)]

    def _read(self, function: ctypes._NamedFuncPointer) -> list[tuple[DecodedWord, bool]]:
        """Words, and whether one is none, but all that was heard behind those before it."""
        words, tokens = ctypes.POINTER(_Word)(), ctypes.POINTER(ctypes.c_int32)()
        found = function(self._handle, ctypes.byref(words), ctypes.byref(tokens))
        _check(found < 0)
        made, first = [], 0
        for word in words[:found]:
            ids = tuple(tokens[first : first + word.tokens])
            first += word.tokens
            behind = bool(word.behind)
            text = self._spelling.text(ids) if behind else self._spelling.word(ids)
            made.append(
                (DecodedWord(text, ids, word.start, word.end, word.confidence, word.survived), behind)
            )
        return made

    def _hypothesis(
        self, reading: _Reading, tokens: ctypes._Pointer[_Token], rest: Iterator[int]
    ) -> Hypothesis:
        own = [tokens[next(rest)] for _ in range(reading.tokens)]
        return Hypothesis(
            tuple(Token(token.id, token.start, token.end) for token in own),
            reading.score,
            reading.posterior,
            self._text([token.id for token in own]),
        )

    def _text(self, tokens: Sequence[int]) -> str:
        text = self._spelling.text(tokens)
        return text if self._writer is None else " ".join(self._writer.write(text.split()))


def _written(words: Sequence[DecodedWord], texts: Sequence[str]) -> list[DecodedWord]:
    return [replace(word, text=text) for word, text in zip(words, texts, strict=True)]


def _said(phrases: Sequence[tuple[str, float]], lexicon: Lexicon) -> list[tuple[str, float]]:
    """Phrases and their boosts a letter -> their pronunciations, and boosts a phone worth the same."""
    return [
        (said, boost * len(phrase) / len(said))
        for phrase, boost in phrases
        for said in lexicon.phrases(phrase)
    ]


def _favoured(phrases: Sequence[tuple[str, float]], lexicon: Lexicon) -> dict[str, dict[str, float]]:
    """What their words are worth where they sound like others: `Writer.favour`."""
    favoured: dict[str, dict[str, float]] = {}
    for phrase, boost in phrases:
        for word in phrase.split():
            for way in lexicon.ways_or_guess(word):
                favoured.setdefault(way, {})[word] = boost * len(word)
    return favoured


def accept_batch(
    decoders: Sequence[BeamDecoder],
    log_probs: NDArray[np.float32],
    lengths: Sequence[int] | NDArray[np.int64],
    threads: int = 1,
) -> None:
    """The next frames of several streams in one call, without Python's lock.

    log_probs (B, T, V): of each stream the first lengths[b] frames. threads: share the streams. Raises
    ValueError, and nothing is taken, where a frame is broken.
    """
    if not len(decoders) == len(log_probs) == len(lengths):
        raise ValueError(f"{len(decoders)} decoders, {len(log_probs)} streams and {len(lengths)} lengths")
    for decoder, rows, length in zip(decoders, log_probs, lengths, strict=True):
        if not 0 <= length <= len(rows):
            raise ValueError(f"a length of {length}, and there are {len(rows)} frames")
        check_frames(rows[:length], len(decoder._spelling), decoder._frame)
    dense, counts = np.ascontiguousarray(log_probs, np.float32), np.array(lengths, np.int64)
    handles = (ctypes.c_void_p * len(decoders))(*(decoder._handle for decoder in decoders))
    batch, time, vocabulary = dense.shape
    _check(
        _library().asr_beam_accept_batch(
            handles, dense.ctypes, counts.ctypes, batch, time, vocabulary, threads
        )
    )
    for decoder, length in zip(decoders, lengths, strict=True):
        decoder._frame += int(length)


class _Options(ctypes.Structure):
    _fields_ = (
        ("beam", ctypes.c_int32),
        ("tokens", ctypes.c_int32),
        ("max_tentative", ctypes.c_int64),
        *(
            (name, ctypes.c_double)
            for name in (
                *("token_threshold", "threshold", "temperature"),
                *("lm_weight", "word_bonus", "unknown_penalty"),
            )
        ),
        ("recombine", ctypes.c_int64),
    )

    @classmethod
    def of(cls, config: DecodingConfig, recombine: bool) -> _Options:
        return cls(*(getattr(config, name) for name, *_ in cls._fields_[:-1]), recombine)


class _Word(ctypes.Structure):
    _fields_ = (
        ("start", ctypes.c_int64),
        ("end", ctypes.c_int64),
        ("survived", ctypes.c_int64),
        ("confidence", ctypes.c_double),
        ("tokens", ctypes.c_int32),
        ("behind", ctypes.c_int32),
    )


class _Reading(ctypes.Structure):
    _fields_ = (("score", ctypes.c_double), ("posterior", ctypes.c_double), ("tokens", ctypes.c_int32))


class _Token(ctypes.Structure):
    _fields_ = (
        ("id", ctypes.c_int32),
        ("start", ctypes.c_int64),
        ("end", ctypes.c_int64),
    )


@functools.cache
def _library() -> ctypes.CDLL:
    library = native.library()
    pointer, size = ctypes.c_void_p, ctypes.c_int64
    library.asr_beam_new.argtypes = [ctypes.c_char_p, pointer, pointer, size, pointer, pointer]
    library.asr_beam_new.restype = library.asr_beam_copy.restype = pointer
    library.asr_beam_set_hotwords.argtypes = [pointer, ctypes.c_char_p, pointer, pointer, size]
    library.asr_beam_accept_batch.argtypes = [pointer, pointer, pointer, size, size, size, ctypes.c_int]
    library.asr_beam_nbest.argtypes = [pointer, size, pointer, pointer]
    for name in ("take", "tentative"):
        getattr(library, f"asr_beam_{name}").argtypes = [pointer, pointer, pointer]
    for name in ("copy", "delete", "reset", "flush", "trailing_blanks", "size"):
        getattr(library, f"asr_beam_{name}").argtypes = [pointer]
    for name in ("nbest", "take", "tentative", "trailing_blanks", "size"):
        getattr(library, f"asr_beam_{name}").restype = size
    library.asr_beam_delete.restype = None
    return library


def _pack(texts: Iterable[str]) -> tuple[bytes, NDArray[np.int64]]:
    """UTF-8, one after the other, and where each begins and the last ends."""
    encoded = [text.encode() for text in texts]
    return b"".join(encoded), np.cumsum([0, *map(len, encoded)], dtype=np.int64)


def _check(out_of_memory: int | bool) -> None:
    if out_of_memory:
        raise MemoryError("not enough memory for the hypotheses of a stream")
