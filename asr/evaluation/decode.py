"""Hypotheses for the utterances of a manifest; audio that cannot be read is told, and the rest goes on.

The recogniser is any function from samples to text; only `bundle_recogniser` knows of models.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from lhotse.cut import Cut
from numpy.typing import NDArray

from asr import audio
from asr.bundle import load_bundle
from asr.data.manifest import load_audio
from asr.errors import UserError
from asr.evaluation.wer import Utterance
from asr.streaming import StreamingRecognizer
from asr.text import normalise

Recognise = Callable[[NDArray[np.float32]], str]  # samples (S,) at 16 kHz -> text


@dataclass(frozen=True)
class Decoded:
    """One utterance recognised; `seconds` is the time that the recogniser took, without reading the audio."""

    utterance: Utterance
    audio_seconds: float
    seconds: float


@dataclass(frozen=True)
class Failed:
    utt_id: str
    reason: str  # one line


def decode(cuts: Iterable[Cut], recognise: Recognise) -> Iterator[Decoded | Failed]:
    """One result a cut, in order. Audio that cannot be read gives a Failed, and the next cut is taken."""
    for cut in cuts:
        yield _decode_one(cut, recognise)


def decode_in_processes(
    cuts: Iterable[Cut], load: Callable[[], Recognise], jobs: int
) -> Iterator[Decoded | Failed]:
    """As `decode`, shared among `jobs` processes, each of which calls `load` (picklable) once."""
    context = multiprocessing.get_context("spawn")  # a forked torch may hang on the locks of its threads
    with ProcessPoolExecutor(jobs, context, initializer=_start_worker, initargs=(load,)) as pool:
        try:
            yield from _map_bounded(pool, cuts, waiting=4 * jobs)
        except BrokenProcessPool as error:
            raise UserError(
                f"one of the {jobs} processes died, perhaps for want of memory; lower --jobs"
            ) from error


def _map_bounded(pool: ProcessPoolExecutor, cuts: Iterable[Cut], waiting: int) -> Iterator[Decoded | Failed]:
    """`pool.map` would send all cuts at once, and on Ctrl-C finish them all."""
    rest = iter(cuts)
    pending = [pool.submit(_work, cut) for cut in islice(rest, waiting)]
    try:
        while pending:
            yield pending.pop(0).result()
            pending += [pool.submit(_work, cut) for cut in islice(rest, 1)]
    finally:
        for future in pending:
            future.cancel()


_recognise: Recognise  # of this worker process


def _start_worker(load: Callable[[], Recognise]) -> None:
    global _recognise
    _recognise = load()


def _work(cut: Cut) -> Decoded | Failed:
    return _decode_one(cut, _recognise)


def _decode_one(cut: Cut, recognise: Recognise) -> Decoded | Failed:
    try:
        samples = _at_model_rate(load_audio(cut), cut.sampling_rate)
    except UserError as error:
        return Failed(cut.id, str(error))
    started = time.perf_counter()
    hypothesis = recognise(samples)
    seconds = time.perf_counter() - started
    supervision = cut.supervisions[0]
    utterance = Utterance(
        cut.id, supervision.speaker, normalise(supervision.text or ""), normalise(hypothesis)
    )
    return Decoded(utterance, len(samples) / audio.SAMPLE_RATE, seconds)


def _at_model_rate(samples: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    """(S,) at `rate` -> (S',) at 16 kHz, resampled as a live stream would be."""
    resampler = audio.Resampler(rate)
    return np.concatenate([resampler.accept(samples), resampler.finish()])


def bundle_recogniser(bundle: Path, chunk_ms: float) -> Recognise:
    """The model of a bundle, one thread, fed `chunk_ms` at a time as a microphone would; 0: all at once."""
    torch.set_num_threads(1)  # the recurrence of one stream is too small to share
    recogniser = StreamingRecognizer(*load_bundle(bundle), chunk_ms=chunk_ms)
    return partial(_stream, recogniser, recogniser.chunk if chunk_ms else None)


def _stream(recogniser: StreamingRecognizer, chunk: int | None, samples: NDArray[np.float32]) -> str:
    recogniser.reset()
    step = chunk or max(1, len(samples))
    for start in range(0, len(samples), step):
        recogniser.accept(samples[start : start + step])
    return recogniser.finish().text
