"""Hypotheses for the utterances of a manifest; audio that cannot be read is told, and the rest goes on.

The recogniser is any function that hears an utterance; `asr.evaluation.recogniser` has ours.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np
from lhotse.cut import Cut
from numpy.typing import NDArray

from asr import audio
from asr.data.manifest import load_audio
from asr.errors import UserError
from asr.evaluation.latency import Heard
from asr.evaluation.wer import Utterance
from asr.text import normalise


class Spoken(NamedTuple):
    """An utterance to be recognised: samples (S,) at 16 kHz, and its normalised reference, to be aligned."""

    utt_id: str
    samples: NDArray[np.float32]
    reference: str


Recognise = Callable[[Spoken], Heard]


@dataclass(frozen=True)
class Decoded:
    utterance: Utterance
    heard: Heard


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
    supervision = cut.supervisions[0]
    reference = normalise(supervision.text or "")
    heard = recognise(Spoken(cut.id, samples, reference))
    hypothesis = " ".join(word.text for word in heard.stream.words)
    return Decoded(Utterance(cut.id, supervision.speaker, reference, hypothesis), heard)


def _at_model_rate(samples: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    """(S,) at `rate` -> (S',) at 16 kHz, resampled as a live stream would be."""
    resampler = audio.Resampler(rate)
    return np.concatenate([resampler.accept(samples), resampler.finish()])
