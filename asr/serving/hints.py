"""Hotwords out of phrases that nobody chose for this model: names of a home's devices, free prompts."""

from __future__ import annotations

from collections.abc import Iterable

from asr.decoding.hotwords import Hotword, check, spellable
from asr.serving.server import Service
from asr.text import normalise

LONGEST = 5  # words: what is longer is a sentence about the audio, no phrase of it


def suited(service: Service, phrases: Iterable[object]) -> tuple[Hotword, ...]:
    """Those that the model can spell and its decoder can prefer, as many as a stream may have. The rest is
    left out without a word: programs send them to every recogniser, and their users cannot mend them."""
    bundle = service.bundle
    hotwords: dict[Hotword, None] = {}  # in order, each once
    if bundle.decoding.beam == 1:
        return ()
    letters, lexicon = spellable(bundle.tokenizer.pieces), bundle.tokenizer.lexicon
    for phrase in phrases:
        hotword = Hotword(normalise(phrase)) if isinstance(phrase, str) else Hotword("")
        try:
            check(hotword, letters, lexicon)
        except ValueError:
            continue
        if len(hotword.phrase.split()) <= LONGEST:
            hotwords[hotword] = None
    return tuple(hotwords)[: service.config.max_hotwords]
