"""KenLM's own binaries, read by the `kenlm` package, which is only needed for them.

The decoder asks Python for each finished word, so this is slower than our binary, which `asr lm --model`
makes of the ARPA file that the KenLM binary was made of.
"""

from __future__ import annotations

import math
import mmap
import struct
from pathlib import Path
from typing import Any

from asr.decoding.language_model import (
    SCORE,
    SPECIAL,
    LanguageModel,
    arpa_model,
    checked,
    library,
    our_spelling,
)
from asr.errors import UserError

_HAS_WORDS, _COUNT = 100, 108  # places in the header: whether the words follow, how many there are
_MOST_STATES = 100_000
_BEGIN = SPECIAL.index("<s>")


class KenLanguageModel(LanguageModel):
    """A KenLM model behind the decoder's interface; the vocabulary is copied into a model of order 1."""

    def __init__(self, path: Path) -> None:
        try:
            import kenlm
        except ImportError as error:
            raise UserError(
                f"{path} is of KenLM, and the package that reads it is missing: pip install 'asr[kenlm]',"
                " or make a binary of its ARPA file with: asr lm --model FILE.arpa --output FILE.bin"
            ) from error
        try:
            self._model = kenlm.Model(str(path))
        except (OSError, RuntimeError) as error:
            raise UserError(f"{path}: KenLM cannot read it: {str(error).splitlines()[0]}") from error
        self._new_state = kenlm.State
        self._after = kenlm.State()  # written and not read
        words = sorted(set(_vocabulary(path)) - set(SPECIAL))
        ours = dict(zip(words, our_spelling(words, path), strict=True))
        self._words = [*SPECIAL, *sorted(words, key=lambda word: ours[word].encode())]  # by our ids
        self._states: dict[tuple[int, ...], Any] = {}
        self._lexicon = self._make_lexicon([ours.get(word, word) for word in self._words], path)
        self._callback = SCORE(self._score)  # kept: C++ has only its address
        handle = checked(library().asr_lm_callback, self._lexicon.handle, self._model.order, self._callback)
        super().__init__(handle, path, (len(self._words),) + (0,) * (self._model.order - 1))

    @property
    def lexicon(self) -> int:
        return self._lexicon.handle

    def _make_lexicon(self, spelled: list[str], path: Path) -> LanguageModel:
        start = self._state(())
        lines = ["\\data\\", f"ngram 1={len(self._words)}", "", "\\1-grams:"]
        for word, ours in zip(self._words, spelled, strict=True):
            score = -99.0 if word == "<s>" else min(0.0, self._model.BaseScore(start, word, self._after))
            lines.append(f"{score:.7g}\t{ours}")
        return arpa_model(["\n".join([*lines, "", "\\end\\", ""]).encode()], path)

    def _state(self, history: tuple[int, ...]) -> Any:
        """KenLM's state after words, the most recent first."""
        state = self._states.get(history)
        if state is None:
            state = self._new_state()
            if not history:
                self._model.NullContextWrite(state)
            elif history == (_BEGIN,):
                self._model.BeginSentenceWrite(state)
            else:
                self._model.BaseScore(self._state(history[1:]), self._words[history[0]], state)
            if len(self._states) > _MOST_STATES:
                self._states.clear()
            self._states[history] = state
        return state

    def _score(self, history: Any, length: int, word: int) -> float:
        state = self._state(tuple(history[:length]))
        return float(self._model.BaseScore(state, self._words[word], self._after) * math.log(10))


def _vocabulary(path: Path) -> list[str]:
    """The words that KenLM writes at the end of a binary, <unk> first, each ended by a zero byte."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            (has_words,) = struct.unpack_from("B", data, _HAS_WORDS)
            (count,) = struct.unpack_from("<Q", data, _COUNT)
        except struct.error as error:
            raise UserError(f"{path}: ends within KenLM's header: is it truncated?") from error
        if not has_words:
            raise UserError(f"{path}: this KenLM binary holds no words: take its ARPA file")
        place = len(data)
        while (place := data.rfind(b"<unk>\0", 0, place)) >= 0:
            words = data[place:].split(b"\0")[:-1]
            if len(words) in (count, count + 1):  # <unk> is there even where the ARPA file had none
                return [word.decode(errors="replace") for word in words]
            if len(words) > count + 1:
                break
    raise UserError(f"{path}: its {count} words are not at its end: is it truncated?")
