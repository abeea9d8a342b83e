"""Word times that no CTC model has had a say in: PocketSphinx aligns the references of a corpus.

    pip install pocketsphinx espeakng-loader
    python -m data_prep.reference_alignment --cuts data/dev.jsonl.gz --output exp/dev.ctm --phones exp/p.ctm

What a recogniser says about its own times cannot be judged by a forced alignment of the same network: CTC
fires late in both. PocketSphinx is a hidden Markov model with three states a phone, trained on other speech;
it and the US English model that its wheel carries are under BSD 2-clause licences (Carnegie Mellon
University, Alpha Cephei). Words that its dictionary lacks are pronounced by espeak-ng. Utterances that cannot
be aligned are named on stderr, with the reason, and left out. The output is CTM: `utt_id 1 start duration
word`, in seconds.

`--phones` writes the phones inside the words too, which `asr train` takes as labels of frames. It takes a
second pass, over the phones of the first one's words, which finds no path in one utterance of four.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import os
import signal
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from lhotse.cut import Cut
from numpy.typing import NDArray

from asr.cli import at_least, run
from asr.data.manifest import load_audio, load_cuts
from asr.errors import UserError
from asr.evaluation.results import write_text
from asr.phones import INDEX, PHONES, SILENCE
from asr.pronounce import Espeak, UnknownSound, arpabet
from data_prep.common import progress, warn

DESCRIPTION = "Align the references of a manifest with PocketSphinx and write their word times as CTM."
RATE, HOP = 16000, 0.01  # Hz; seconds a frame of PocketSphinx
# A frame is a window of 25.625 ms that begins at its first sample: two frames meet between their centres.
BOUNDARY = 0.025625 / 2 - HOP / 2  # seconds from a frame's first sample to where it takes over from the last


class TimedWord(NamedTuple):
    text: str
    start: float  # seconds
    end: float


class Aligner:
    """PocketSphinx in its alignment mode; `guessed` holds the words that espeak-ng pronounced.

    A pause is as likely as the next word: by default every pause costs, and words swallow the short ones.
    What remains of it: the last word of an utterance in thirty reaches to the end of the recording.
    """

    def __init__(self) -> None:
        try:
            from pocketsphinx import Decoder
        except ImportError as error:
            raise UserError("the aligner is PocketSphinx 5: pip install pocketsphinx") from error
        self._decoder: Any = Decoder(lm=None, loglevel="FATAL", cmn="batch", lw=1.0, silprob=1.0)
        self._espeak: Espeak | None = None  # starts when the dictionary first lacks a word
        self.guessed: set[str] = set()

    def __call__(self, samples: NDArray[np.float32], words: Sequence[str]) -> list[TimedWord] | None:
        """samples (S,) at 16 kHz; None where no path through the words was found."""
        for word in words:
            if self._decoder.lookup_word(word) is None:
                self._pronounce(word)
        self._decoder.set_align_text(" ".join(words))
        if not self._listen(samples) or self._decoder.hyp() is None:
            return None
        found = timed_words((part.word, part.start_frame, part.end_frame) for part in self._decoder.seg())
        return found if [word.text for word in found] == list(words) else None

    def phones(self, samples: NDArray[np.float32]) -> list[TimedWord] | None:
        """The phones, silence too, of the words that were aligned last, in the same samples (S,)."""
        self._decoder.set_alignment()
        if not self._listen(samples):
            return None
        words = self._decoder.get_alignment()  # hyp() would end the process: this search has none
        if words is None:
            return None
        phones = [phone for word in words for phone in word]
        return [
            TimedWord(
                phone.name if phone.name in INDEX else PHONES[SILENCE],  # +NOISE+ and the like
                _boundary(phone.start),
                _boundary(phone.start + phone.duration),
            )
            for phone in phones
        ]

    def _listen(self, samples: NDArray[np.float32]) -> bool:
        pcm = (samples * 32767).round().clip(-32768, 32767).astype(np.int16)
        try:
            self._decoder.start_utt()
            self._decoder.process_raw(pcm.tobytes(), full_utt=True)
            self._decoder.end_utt()
        except RuntimeError:  # all that it says; the reason goes to its log
            return False
        return True

    def _pronounce(self, word: str) -> None:
        self._espeak = self._espeak or Espeak()
        self._decoder.add_word(word, arpabet(self._espeak.ipa(word, "en-us")), True)
        self.guessed.add(word)


def timed_words(segments: Any) -> list[TimedWord]:
    """(word, first frame, last frame) of PocketSphinx -> words in seconds, without its silences and noises.

    It marks other pronunciations as "the(2)", silences and noises as <sil> and [NOISE].
    """
    return [
        TimedWord(word.split("(")[0], _boundary(first), _boundary(last + 1))
        for word, first, last in segments
        if word[0] not in "<["
    ]


def _boundary(frame: int) -> float:
    """Seconds at which `frame` takes over."""
    return frame * HOP + BOUNDARY


def ctm(utt_id: str, words: Sequence[TimedWord]) -> str:
    return "".join(f"{utt_id} 1 {w.start:.3f} {w.end - w.start:.3f} {w.text}\n" for w in words)


def load(cut: Cut) -> NDArray[np.float32]:
    if cut.sampling_rate != RATE:
        raise UserError(f"{cut.id}: {cut.sampling_rate} Hz; the aligner needs recordings of {RATE} Hz")
    return load_audio(cut)


class Aligned(NamedTuple):
    """An utterance in lines of CTM; `words` is empty where `reason` says why it is left out."""

    words: str = ""
    phones: str = ""
    guessed: frozenset[str] = frozenset()  # its words that espeak-ng pronounced
    reason: str = ""


def align(cut: Cut, phones: bool) -> Aligned:
    """By the aligner of this process."""
    aligner, said = _aligner(), (cut.supervisions[0].text or "").split()
    samples = load(cut)
    try:
        words = aligner(samples, said)
    except UnknownSound as error:
        return Aligned(reason=str(error))
    if words is None:
        return Aligned(reason="no alignment found")
    inside = aligner.phones(samples) if phones else None
    guessed = frozenset(said) & aligner.guessed
    return Aligned(ctm(cut.id, words), ctm(cut.id, inside or ()), guessed)


@functools.cache
def _aligner() -> Aligner:
    return Aligner()


def align_in_processes(cuts: Iterable[Cut], phones: bool, jobs: int) -> Iterator[Aligned]:
    """`align` of each, in order, whatever the number of jobs."""
    ignored = (signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle: it ends the others
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), signal.signal, ignored)
    try:
        yield from pool.map(functools.partial(align, phones=phones), cuts, chunksize=8)
    except BrokenProcessPool as error:
        raise UserError(
            f"one of the {jobs} processes died, perhaps for want of memory; lower --jobs"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="data_prep.reference_alignment", description=DESCRIPTION)
    parser.add_argument("--cuts", type=Path, nargs="+", required=True, metavar="MANIFEST")
    parser.add_argument("--output", type=Path, required=True, metavar="CTM")
    parser.add_argument("--phones", type=Path, metavar="CTM", help="write the phones of the words too")
    parser.add_argument(
        "--jobs", type=at_least(1, int), default=os.cpu_count(), help="processes (default: one a core)"
    )
    args = parser.parse_args(argv)
    cuts = load_cuts(args.cuts)
    _aligner()  # what it lacks is said here, once
    found = []
    with progress() as bar:
        aligned = align_in_processes(cuts, args.phones is not None, args.jobs)
        for cut, one in zip(cuts, bar.track(aligned, total=len(cuts), description="aligning"), strict=True):
            if one.reason:
                warn(f"{cut.id}: {one.reason}; left out")
            found.append(one)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    write_text(args.output, "".join(one.words for one in found))
    left_out = sum(bool(one.reason) for one in found)
    guessed = len(frozenset[str]().union(*(one.guessed for one in found)))
    print(
        f"{args.output}: {len(found) - left_out} utterances, {left_out} left out;"
        f" {guessed} words were pronounced by espeak-ng"
    )
    if args.phones:
        write_text(args.phones, "".join(one.phones for one in found))
        print(f"{args.phones}: the phones of {sum(bool(one.phones) for one in found)} utterances")
    return 0


if __name__ == "__main__":
    run(main)
