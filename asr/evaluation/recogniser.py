"""Our recogniser as an evaluation hears it: live, by a clock, and with the times at which words were said."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asr import audio
from asr.align.ctm import read_ctm
from asr.align.forced import Timing, align, spell
from asr.bundle import Bundle, load_bundle
from asr.decoding.hotwords import Hotword
from asr.decoding_options import recogniser_options
from asr.errors import UserError
from asr.evaluation.decode import Recognise, Spoken
from asr.evaluation.latency import Clock, Heard, Stream, Timeline, normalised
from asr.model import CtcModel
from asr.streaming import StreamingRecognizer
from asr.transcript import Transcript, Word


class Streaming(Protocol):
    """What an evaluation needs of a `StreamingRecognizer`."""

    def reset(self) -> None: ...
    def accept(self, samples: NDArray[np.float32]) -> Transcript: ...
    def finish(self) -> Transcript: ...


def listen(
    recogniser: Streaming, samples: NDArray[np.float32], step: int, clock: Clock
) -> tuple[Stream, float]:
    """Samples (S,), `step` at a time, each piece when its last sample has been spoken -> what was shown, and
    the seconds of computation. A text is shown when the call that gave it has returned.
    """
    recogniser.reset()
    timeline, seconds = Timeline(), 0.0

    def show(call: Callable[[], Transcript]) -> tuple[Transcript, float]:
        nonlocal seconds
        began = clock.now()
        transcript, now = call(), clock.now()
        seconds += now - began
        timeline.show(transcript, now)
        return transcript, now

    for start in range(0, len(samples), step):
        piece = samples[start : start + step]
        clock.wait_until((start + len(piece)) / audio.SAMPLE_RATE)
        show(lambda piece=piece: recogniser.accept(piece))  # type: ignore[misc]
    final, now = show(recogniser.finish)
    return timeline.stream(final, now - len(samples) / audio.SAMPLE_RATE), seconds


def bundle_recogniser(args: argparse.Namespace, phrases: Mapping[str, Sequence[str]]) -> Recognise:
    """The bundle of --model with the options of the command, on one thread. --chunk 0 is all at once.

    phrases: more hotwords, for single utterances.
    """
    torch.set_num_threads(1)  # the recurrence of one stream is too small to share
    bundle = load_bundle(args.model)
    options = recogniser_options(args, bundle)
    recogniser = StreamingRecognizer(*options)

    def recognise(spoken: Spoken) -> Heard:
        if phrases:
            own = phrases.get(spoken.utt_id, ())
            recogniser.set_hotwords((*options.hotwords, *(Hotword(phrase) for phrase in own)))
        step = recogniser.chunk if args.chunk else max(1, len(spoken.samples))
        with listening_in(bundle.model) as outputs:
            stream, seconds = listen(recogniser, spoken.samples, step, Clock(args.pace))
        reference = None
        if not args.alignments:
            reference = forced_times(spoken.reference, outputs, len(spoken.samples), options.bundle)
        return Heard(stream, reference, len(spoken.samples) / audio.SAMPLE_RATE, seconds)

    return recognise


@contextmanager
def listening_in(model: CtcModel) -> Iterator[list[NDArray[np.float32]]]:
    """What the model puts out meanwhile, (T, V) a call: of one stream, all with its lookahead and padding."""
    outputs: list[NDArray[np.float32]] = []
    step = model.step

    def keep(audio: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        log_probs, rows = step(audio, rows)
        outputs.append(log_probs[0].numpy())
        return log_probs, rows

    model.step = keep  # type: ignore[method-assign]
    try:
        yield outputs
    finally:
        del model.step


def forced_times(
    reference: str, outputs: Sequence[NDArray[np.float32]], samples: int, bundle: Bundle
) -> tuple[Word, ...] | None:
    """The words of a normalised reference in seconds, in a recording of so many samples; None where they
    cannot be aligned (letters that the model has not, more text than audio)."""
    model, config = bundle.model, bundle.decoding
    log_probs = np.concatenate([np.zeros((0, model.config.vocabulary), np.float32), *outputs])
    log_probs = log_probs[model.lookahead :][: model.frames(samples)]
    timing = Timing(model.frame_seconds, config.start_offset, config.end_offset)
    try:
        return tuple(align(log_probs, spell(reference, bundle.tokenizer), timing))
    except UserError:
        return None


class Alignments:
    """Word times from a CTM file of any aligner."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._recordings = read_ctm(path)

    def words(self, utt_id: str, reference: str) -> tuple[Word, ...] | None:
        """The words of a normalised reference; None where the file lacks the utterance or has other words."""
        timed = normalised(self._recordings.get(utt_id, []))
        return tuple(timed) if [word.text for word in timed] == reference.split() else None
