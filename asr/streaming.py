"""A live recogniser: samples in as they come, committed and tentative words out.

One `StreamingRecognizer` is one stream: the samples that wait, the states of model and VAD, and a
`WordStream`: decoder, endpoints and times, without a model. `advance` computes many streams as one batch: it
cuts the audio into chunks of whole steps, runs the forward path that training runs, asks the VAD where there
is speech, and hands the log-probabilities on; a recogniser by itself is the batch of one. Whatever pieces
the samples come in, words, times and endpoints are the same. So are they whatever else is in the batch, where
sums are exact (`asr.packed`, int8); sums of floats differ in their last bits, and can decide between equals.

B streams, S samples, T frames, V vocabulary.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from asr.bundle import Bundle
from asr.decoding.beam import BeamDecoder, accept_batch
from asr.decoding.config import DecodingConfig
from asr.decoding.greedy import GreedyDecoder
from asr.decoding.hotwords import Hotword
from asr.decoding.types import DecodedWord, Decoder
from asr.endpoint import EndpointConfig, Endpointer
from asr.errors import UserError
from asr.state import pack, rows, together
from asr.transcript import Endpoint, Record, Transcript, Word
from asr.vad import VadConfig, VadStream, hear, mask

LOUDEST = 1e9  # of a sample: what is louder overflows to infinity on its way through the model
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
        accept_words([self], [log_probs], [silence])

    @property
    def due(self) -> int | None:
        """After how many frames more the rules of endpoints have to be asked."""
        return self._endpointer.due - self._frames if self._endpointer else None

    def decoded(self, frames: int, silence: int | None) -> None:
        """The decoder has taken so many frames, up to `due`; silence: as of the last, where a VAD tells."""
        self._frames += frames
        if self._endpointer and self._frames == self._endpointer.due:
            quiet = self.decoder.trailing_blanks
            self._check(quiet if silence is None else min(quiet, silence), self._endpointer)

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


def accept_words(
    streams: Sequence[WordStream],
    log_probs: Sequence[NDArray[np.float32]],
    silence: Sequence[NDArray[np.int64] | None],
) -> None:
    """For several streams, as `WordStream.accept` for each; their decoders run as one batch."""
    starts = [0] * len(streams)
    while going := [index for index, rows in enumerate(log_probs) if starts[index] < len(rows)]:
        pieces = []
        for index in going:
            due, start = streams[index].due, starts[index]
            pieces.append(log_probs[index][start : None if due is None else start + due])
        _decode([streams[index].decoder for index in going], pieces)
        for index, piece in zip(going, pieces, strict=True):
            starts[index] += len(piece)
            quiet = silence[index]
            streams[index].decoded(len(piece), None if quiet is None else int(quiet[starts[index] - 1]))


def _decode(decoders: Sequence[Decoder], pieces: Sequence[NDArray[np.float32]]) -> None:
    if not isinstance(decoders[0], BeamDecoder):
        for decoder, piece in zip(decoders, pieces, strict=True):
            decoder.accept(piece)
        return
    lengths = [len(piece) for piece in pieces]
    padded = np.zeros((len(pieces), max(lengths), pieces[0].shape[1]), np.float32)
    for frames, piece in zip(padded, pieces, strict=True):
        frames[: len(piece)] = piece
    accept_batch(cast(Sequence[BeamDecoder], decoders), padded, lengths, torch.get_num_threads())


class StreamingRecognizer:
    """Memory is constant but for the transcript itself.

    chunk_ms: how much audio must have come before it is computed, rounded up to whole steps. All of it that
    is there is computed at once, so `accept(all); finish()` transcribes a recording. It changes cost and
    delay, not the words.
    endpointing: None is one segment to the end. vad: None lets the model say words wherever it hears any.

    `accept` and `finish` are for one stream; a server calls `put`, `end`, `advance` and `transcript`.

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
        step = self.model.step_samples
        steps = math.ceil(chunk_ms * self.model.config.frontend.rate / 1000 / step)
        self.chunk = max(1, steps) * step  # samples
        self._decoder = new_decoder(bundle, hotwords)
        self.reset()

    def reset(self) -> None:
        """Begin a new stream, with the hotwords that were set last."""
        model = self.model
        self._state = pack(model.initial_state(1))
        self._vad = VadStream(self.vad, model.frame_samples, model.lookahead) if self.vad else None
        self._decoder.reset()
        self._words = WordStream(
            self._decoder, self.bundle.decoding, model.frame_seconds, model.lookahead, self.endpointing
        )
        self._waiting = np.zeros(0, np.float32)  # samples short of a chunk
        self._frame = -model.lookahead  # that the next output belongs to; before 0 they are to be dropped
        self._frames: int | None = None  # of the stream, once it has ended: its last step can have more
        self.computed = 0  # samples, of the padding at the end too
        self._ended = self.finished = False  # no more samples come; all words are committed

    def set_hotwords(self, hotwords: Sequence[Hotword]) -> None:
        """Other hotwords from here on; words that are final stay."""
        if not isinstance(self._decoder, BeamDecoder):
            raise UserError(NO_BEAM)
        self._decoder.set_hotwords(hotwords)

    def accept(self, samples: NDArray[np.float32]) -> Transcript:
        """`put`, computed. Raises what `put` raises."""
        self.put(samples)
        advance([self])
        return self.transcript()

    def finish(self) -> Transcript:
        """`end`, computed: the last frames come out through silence, and all words are committed."""
        self.end()
        advance([self])
        return self.transcript()

    def put(self, samples: NDArray[np.float32]) -> None:
        """samples (S,), mono at the model's rate, in [-1, 1]; any S.

        Raises ValueError for NaN or infinite samples and for another shape, RuntimeError after `end`.
        """
        if self._ended:
            raise RuntimeError("the stream has finished; call reset() to begin another")
        check_samples(samples)
        self._waiting = np.concatenate([self._waiting, samples.astype(np.float32, copy=False)])

    def end(self) -> None:
        """The stream has ended: silence lets the last frames out."""
        if not self._ended:
            samples = self.computed + len(self._waiting)
            self._words.length = samples / self.model.config.frontend.rate  # what follows is padding
            self._frames = self.model.frames(samples)
            self._waiting = self.model.pad_for_lookahead(torch.from_numpy(self._waiting)[None])[0].numpy()
            self._ended = True

    @property
    def ready(self) -> int:
        """Samples that `advance` can compute: whole chunks, and after `end` all."""
        waiting = len(self._waiting)
        return waiting if self._ended else waiting // self.chunk * self.chunk

    @property
    def speaking(self) -> bool:
        """Whether there is speech in what was computed last, lookahead included. False without a VAD."""
        return self._vad is not None and self._vad.speaking

    def transcript(self) -> Transcript:
        """What has been said so far, and what of it is new since the last call."""
        return self._words.transcript()

    def _inside(self, outputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Of the next outputs (T, V), those that belong to frames of the audio."""
        first, self._frame = self._frame, self._frame + len(outputs)
        return outputs[max(0, -first) : None if self._frames is None else self._frames - first]

    def _take(self, samples: int) -> NDArray[np.float32]:
        taken = self._waiting[:samples]
        self._waiting = self._waiting[samples:].copy()  # a slice would keep the whole alive
        self.computed += samples
        return taken


def advance(streams: Sequence[StreamingRecognizer], most: int | None = None) -> None:
    """Compute what is ready of the streams of one bundle, at most `most` samples (whole steps) of each.

    Streams of which equally much is computed are one batch. A batch changes the cost, and the last bits of
    sums of floats.
    """
    groups: defaultdict[int, list[StreamingRecognizer]] = defaultdict(list)
    for stream in streams:
        groups[stream.ready if most is None else min(stream.ready, most)].append(stream)
    for samples, group in groups.items():
        if samples:
            _step(group, samples)
    for stream in streams:
        if stream._ended and not stream.ready and not stream.finished:
            stream._words.finish()
            stream.finished = True


def check_samples(samples: NDArray[np.float32]) -> None:
    """ValueError for what is no audio of one stream."""
    if samples.ndim != 1:
        raise ValueError(f"expected mono samples (S,), got an array of shape {samples.shape}")
    if not (np.abs(samples) <= LOUDEST).all():  # nor is NaN
        raise ValueError("NaN or infinite samples in the audio")


@torch.inference_mode()
def _step(streams: Sequence[StreamingRecognizer], samples: int) -> None:
    audio = [stream._take(samples) for stream in streams]
    outputs, states = streams[0].model.step(
        torch.from_numpy(np.concatenate(audio).reshape(len(streams), samples)),
        together([stream._state for stream in streams]),
    )
    log_probs = []  # (T, V) each: a stream that has just begun, or has ended, drops some
    for stream, state, frames in zip(streams, rows(states), outputs.numpy(), strict=True):
        stream._state = state
        log_probs.append(stream._inside(frames))
    silence: list[NDArray[np.int64] | None] = [None] * len(streams)
    gated = [index for index, stream in enumerate(streams) if stream._vad]
    vads = [vad for stream in streams if (vad := stream._vad)]
    heard = hear(vads, [audio[index] for index in gated], [len(log_probs[index]) for index in gated])
    for index, vad, quiet in zip(gated, vads, heard, strict=True):
        log_probs[index] = mask(log_probs[index], quiet > vad.hangover)
        silence[index] = quiet
    accept_words([stream._words for stream in streams], log_probs, silence)


def new_decoder(bundle: Bundle, hotwords: Sequence[Hotword] = ()) -> Decoder:
    """The best path where the beam is 1, which gives a language model nothing to choose from."""
    pieces, lexicon, config = bundle.tokenizer.pieces, bundle.tokenizer.lexicon, bundle.decoding
    if config.beam > 1:
        return BeamDecoder(pieces, config, bundle.language_model, hotwords, lexicon)
    if lexicon is not None:
        raise UserError("the model's tokens are phones, of which a beam makes words: decode with --beam 64")
    if hotwords:
        raise UserError(NO_BEAM)
    return GreedyDecoder(pieces)
