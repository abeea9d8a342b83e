"""A live recogniser: samples in as they come, committed and tentative text out.

One `StreamingRecognizer` is one stream. It cuts the audio into chunks of whole frames, runs the forward path
that training runs, and decodes; whatever pieces the samples come in, the words are the same.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from asr.decoding.greedy import GreedyDecoder
from asr.decoding.types import Token, Transcript, Word
from asr.model import CtcModel
from asr.text import Tokenizer


class StreamingRecognizer:
    """Memory is constant but for the transcript itself.

    chunk_ms: how much audio must have come before it is computed, rounded up to whole frames. All of it that
    is there is computed at once, so `accept(all); finish()` transcribes a recording. It changes cost and
    delay, not the words.
    """

    def __init__(self, model: CtcModel, tokenizer: Tokenizer, chunk_ms: float = 320) -> None:
        self.model, self.tokenizer = model, tokenizer
        frames = math.ceil(chunk_ms / 1000 / model.frame_seconds)
        self.chunk = max(1, frames) * model.frame_samples  # samples
        self.reset()

    def reset(self) -> None:
        """Begin a new stream."""
        self._state = self.model.initial_state(1)
        self._decoder = GreedyDecoder(self.tokenizer.blank)
        self._waiting = np.zeros(0, np.float32)  # samples short of a chunk
        self._delayed = self.model.lookahead  # outputs still to be dropped
        self._committed: list[Word] = []
        self._finished = False

    def accept(self, samples: NDArray[np.float32]) -> Transcript:
        """samples (S,), mono at the model's rate, in [-1, 1]; any S.

        Raises ValueError for NaN or infinite samples and for another shape, RuntimeError after `finish`.
        """
        if self._finished:
            raise RuntimeError("the stream has finished; call reset() to begin another")
        if samples.ndim != 1:
            raise ValueError(f"expected mono samples (S,), got an array of shape {samples.shape}")
        if not np.isfinite(samples).all():
            raise ValueError("NaN or infinite samples in the audio")
        self._waiting = np.concatenate([self._waiting, samples.astype(np.float32, copy=False)])
        ready = len(self._waiting) // self.chunk * self.chunk
        if ready:
            self._step(self._waiting[:ready])
            self._waiting = self._waiting[ready:].copy()  # a slice would keep the whole alive
        return self._transcript()

    def finish(self) -> Transcript:
        """The stream has ended: lets the last frames out through silence, and commits all words."""
        if not self._finished:
            rest = self.model.pad_for_lookahead(torch.from_numpy(self._waiting)[None])[0].numpy()
            if len(rest):
                self._step(rest)
            self._finished = True
        return self._transcript()

    @torch.inference_mode()
    def _step(self, samples: NDArray[np.float32]) -> None:
        log_probs, self._state = self.model(torch.from_numpy(samples)[None], self._state)
        kept = log_probs[0, self._delayed :].numpy()
        self._delayed = max(0, self._delayed - log_probs.size(1))
        self._decoder.accept(kept)

    def _transcript(self) -> Transcript:
        tokens = self._decoder.best().tokens
        starts = [
            index for index, token in enumerate(tokens) if index == 0 or self.tokenizer.starts_word(token.id)
        ]
        # In a best path only the last word can still grow.
        settled = len(tokens) if self._finished or not starts else starts[-1]
        bounds = list(pairwise([*starts, len(tokens)]))
        words = [(end <= settled, self._word(tokens[start:end])) for start, end in bounds]
        self._committed += [word for whole, word in words if whole and word.text]
        tentative = [word for whole, word in words if not whole and word.text]
        self._decoder.commit(settled)
        return Transcript(_join(self._committed), _join(tentative), (*self._committed, *tentative))

    def _word(self, tokens: tuple[Token, ...]) -> Word:
        seconds = self.model.frame_seconds
        confidence = math.exp(sum(token.log_prob for token in tokens) / len(tokens))
        text = self.tokenizer.decode([token.id for token in tokens]).strip()
        return Word(text, tokens[0].start * seconds, tokens[-1].end * seconds, confidence)


def _join(words: list[Word]) -> str:
    return " ".join(word.text for word in words)
