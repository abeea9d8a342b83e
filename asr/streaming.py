"""A live recogniser: samples in as they come, committed and tentative words out.

One `StreamingRecognizer` is one stream: it cuts the audio into chunks of whole frames, runs the forward path
that training runs, asks the VAD where there is speech, and hands the log-probabilities to a `WordStream`:
decoder, endpoints and times, without a model. Whatever pieces the samples come in, words, times and endpoints
are the same.

S samples, T frames, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from asr.bundle import Bundle
from asr.decoding.beam import BeamDecoder
from asr.decoding.config import DecodingConfig
from asr.decoding.greedy import GreedyDecoder
from asr.decoding.hotwords import Hotword
from asr.decoding.types import DecodedWord, Decoder
from asr.endpoint import EndpointConfig, Endpointer
from asr.errors import UserError
from asr.transcript import Endpoint, Record, Transcript, Word
from asr.vad import VadConfig, VadStream, mask

ENDPOINTING, VAD = EndpointConfig(), VadConfig()  # the defaults
NO_BEAM = "hotwords need alternatives to choose from: decode with --beam 8, or without hotwords"


class WordStream:
    """Log-probabilities in, a transcript out: a decoder's words, placed in time, committed, in segments.

    lookahead: frames of audio that have been heard beyond the last one decoded.
    Memory is constant but for the transcript's record, and a step costs what is new in it.
    """

    def __init__(
        self,
        decoder: Decoder,
        config: DecodingConfig,
        frame_seconds: float,
        lookahead: int = 0,
        endpointing: EndpointConfig | None = None,
    ) -> None:
        self.decoder, self.config = decoder, config
        self.frame_seconds, self.lookahead = frame_seconds, lookahead
        self._endpointer = Endpointer(endpointing, frame_seconds) if endpointing else None
        self._record = Record()
        self._frames = 0  # decoded so far
        self._given = (0, 0)  # words and endpoints of the last transcript
        self._first: int | None = None  # the frame in which the segment's first final word began
        self.length = math.inf  # of the stream in seconds, once it is known

    def accept(self, log_probs: NDArray[np.float32], silence: NDArray[np.int64] | None = None) -> None:
        """log_probs (T, V); silence (T,): frames without speech up to and with each, where a VAD tells."""
        start = 0
        while start < len(log_probs):
            end = len(log_probs)
            if self._endpointer:
                end = min(end, start + self._endpointer.due - self._frames)
            self.decoder.accept(log_probs[start:end])
            self._frames += end - start
            start = end
            if self._endpointer and self._frames == self._endpointer.due:
                quiet = self.decoder.trailing_blanks
                quiet = quiet if silence is None else min(quiet, int(silence[end - 1]))
                self._check(quiet, self._endpointer)

    def finish(self) -> None:
        """The stream has ended: all words are committed."""
        self.decoder.flush()

    def transcript(self) -> Transcript:
        """What has been said so far, and what of it is new since the last call."""
        self._commit()
        (words, endpoints), record = self._given, self._record
        self._given = len(record.words), len(record.endpoints)
        new = tuple(record.words[words:]), tuple(record.endpoints[endpoints:])
        return Transcript(record, *self._given, self._shown(), *new)

    def _check(self, silence: int, endpointer: Endpointer) -> None:
        self._commit()
        first = self._first
        if first is None:
            first = next((word.start for word in self.decoder.tentative()), None)
        reason = endpointer.check(self._frames, silence, first, final=self._first is not None)
        if reason == "silence":
            self.decoder.flush()
            self._commit()
        if reason:
            self._first = None
            self._record.endpoints.append(
                Endpoint(len(self._record.words), self._frames * self.frame_seconds, reason)
            )

    def _commit(self) -> None:
        words = self._record.words
        for decoded in self.decoder.take():
            if self._first is None:
                self._first = decoded.start
            words.append(self._placed(decoded, words[-1].end if words else 0.0))

    def _shown(self) -> tuple[Word, ...]:
        """Tentative words up to the first that has not stood for `stable_frames` yet."""
        shown: list[Word] = []
        after = self._record.words[-1].end if self._record.words else 0.0
        for decoded in self.decoder.tentative():
            if decoded.survived < self.config.stable_frames:
                break
            shown.append(self._placed(decoded, after))
            after = shown[-1].end
        return tuple(shown)

    def _placed(self, word: DecodedWord, after: float) -> Word:
        """Emission frames as the seconds in which the word was spoken: with the calibrated offsets, from the
        end of the last word at the earliest, and inside the audio that had been heard when it was said."""
        frame = self.frame_seconds
        heard = min((word.end + self.lookahead) * frame, self.length)
        start = max(min(word.start * frame + self.config.start_offset, heard - frame), after)
        end = min(max(word.end * frame + self.config.end_offset, start + frame), heard)
        return Word(word.text, start, end, self.config.calibrated(word.confidence))


class StreamingRecognizer:
    """Memory is constant but for the transcript itself.

    chunk_ms: how much audio must have come before it is computed, rounded up to whole frames. All of it that
    is there is computed at once, so `accept(all); finish()` transcribes a recording. It changes cost and
    delay, not the words.
    endpointing: None is one segment to the end. vad: None lets the model say words wherever it hears any.

    Raises UserError for hotwords without a beam, and where the beam's library is missing.
    """

    def __init__(
        self,
        bundle: Bundle,
        chunk_ms: float = 320,
        hotwords: Sequence[Hotword] = (),
        endpointing: EndpointConfig | None = ENDPOINTING,
        vad: VadConfig | None = VAD,
    ) -> None:
        self.bundle, self.model = bundle, bundle.model
        self.endpointing, self.vad = endpointing, vad
        frames = math.ceil(chunk_ms / 1000 / self.model.frame_seconds)
        self.chunk = max(1, frames) * self.model.frame_samples  # samples
        self._decoder = new_decoder(bundle, hotwords)
        self.reset()

    def reset(self) -> None:
        """Begin a new stream, with the hotwords that were set last."""
        model = self.model
        self._state = model.initial_state(1)
        self._vad = VadStream(self.vad, model.frame_samples, model.lookahead) if self.vad else None
        self._decoder.reset()
        self._words = WordStream(
            self._decoder, self.bundle.decoding, model.frame_seconds, model.lookahead, self.endpointing
        )
        self._waiting = np.zeros(0, np.float32)  # samples short of a chunk
        self._delayed = model.lookahead  # outputs still to be dropped
        self._computed = 0  # samples
        self._finished = False

    def set_hotwords(self, hotwords: Sequence[Hotword]) -> None:
        """Other hotwords from here on; words that are final stay."""
        if not isinstance(self._decoder, BeamDecoder):
            raise UserError(NO_BEAM)
        self._decoder.set_hotwords(hotwords)

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
        return self._words.transcript()

    def finish(self) -> Transcript:
        """The stream has ended: lets the last frames out through silence, and commits all words."""
        if not self._finished:
            samples = self._computed + len(self._waiting)
            self._words.length = samples / self.model.config.frontend.rate  # what follows is padding
            rest = self.model.pad_for_lookahead(torch.from_numpy(self._waiting)[None])[0].numpy()
            if len(rest):
                self._step(rest)
            self._words.finish()
            self._finished = True
        return self._words.transcript()

    @torch.inference_mode()
    def _step(self, samples: NDArray[np.float32]) -> None:
        audio = torch.from_numpy(samples)[None]
        self._computed += len(samples)
        outputs, self._state = self.model(audio, self._state)
        log_probs = outputs[0, self._delayed :].numpy()
        self._delayed = max(0, self._delayed - outputs.size(1))
        silence = None
        if self._vad:
            silence = self._vad.accept(audio, len(log_probs))
            log_probs = mask(log_probs, silence > self._vad.hangover)
        self._words.accept(log_probs, silence)


def new_decoder(bundle: Bundle, hotwords: Sequence[Hotword] = ()) -> Decoder:
    """The best path where the beam is 1, which gives a language model nothing to choose from."""
    pieces, config = bundle.tokenizer.pieces, bundle.decoding
    if config.beam > 1:
        return BeamDecoder(pieces, config, bundle.language_model, hotwords)
    if hotwords:
        raise UserError(NO_BEAM)
    return GreedyDecoder(pieces)
