"""Hours of speech through one recogniser: memory, times, speed and errors, beside utterances on their own.

    python -m benchmarks.long_form --model BUNDLE --cuts data/librispeech/dev-clean.jsonl.gz [--hours 3]

The utterances of the manifests, one after the other and again from the first until the hours are full, are
one stream that comes in pieces of --chunk, as from a microphone, to a server that sends what is new. A line
is printed every --every minutes of audio: the resident size, the CPU time of an `accept`, words and endpoints
so far. Every word is checked when it is committed: it starts where the one before ended or later, and lies
inside what has been heard. At the end the errors of the whole stream against all references are put beside
those of the same utterances, each by a recogniser that was reset. The options of decoding are those of `asr
transcribe`.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import time
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein

from asr import audio
from asr.bundle import load_bundle
from asr.cli import at_least, run
from asr.data.manifest import load_audio, load_cuts
from asr.decoding_options import add_options, recogniser_options
from asr.errors import UserError
from asr.streaming import StreamingRecognizer
from asr.text import normalise
from asr.transcript import Word
from benchmarks.common import add_output, check_output, write_json

Spoken = tuple[NDArray[np.float32], list[str]]  # samples and words of the reference


def utterances(cuts: list[Path]) -> Iterator[Spoken]:
    """Those of the manifests, again and again."""
    for cut in cycle(load_cuts(cuts)):
        resampler = audio.Resampler(cut.sampling_rate)
        samples = np.concatenate([resampler.accept(load_audio(cut)), resampler.finish()])
        yield samples, normalise(cut.supervisions[0].text or "").split()


class Listener:
    """The other end of the stream: keeps the text, and checks what no word may do."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.segments = 0
        self._last = Word("", 0.0, 0.0, 1.0)

    def hear(self, words: tuple[Word, ...], segments: int, heard: float) -> None:
        for word in words:
            if not self._last.end <= word.start <= word.end <= heard + 1e-6:
                raise UserError(f"times are out of order: {word} after {self._last}, {heard:.2f} s heard")
            self._last = word
            self.words.append(word.text)
        self.segments += segments


def errors(reference: list[str], hypothesis: list[str]) -> int:
    return int(Levenshtein.distance(reference, hypothesis))


def resident() -> float:
    """MiB of this process that are in memory now; where the system does not tell, at most so far."""
    status = Path("/proc/self/statm")
    if status.exists():
        return int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def long_form(
    recogniser: StreamingRecognizer, args: argparse.Namespace, rows: list[dict[str, float]]
) -> tuple[list[str], list[str]]:
    """References and hypothesis of the stream, with its lines printed, and added to `rows`."""
    listener = Listener()
    reference: list[str] = []
    spent: list[float] = []  # milliseconds of each accept since the last line
    heard, told, busy = 0, 0, 0.0  # samples, samples, milliseconds
    step, minute = recogniser.chunk, 60 * audio.SAMPLE_RATE
    print(" minutes   MiB    accept, median and p99 ms    words  endpoints    RTF")
    for samples, words in utterances(args.cuts):
        reference += words
        for start in range(0, len(samples), step):
            piece = samples[start : start + step]
            before = time.process_time()
            transcript = recogniser.accept(piece)
            spent.append(1000 * (time.process_time() - before))
            busy += spent[-1]
            heard += len(piece)
            listener.hear(transcript.new_words, len(transcript.new_endpoints), heard / audio.SAMPLE_RATE)
        over = heard >= args.hours * 60 * minute
        if heard - told >= args.every * minute or over:
            told = heard
            p99 = float(np.percentile(spent, 99))
            rtf = busy / 1000 * audio.SAMPLE_RATE / heard
            print(
                f"{heard / minute:8.1f} {resident():5.0f} {statistics.median(spent):12.2f} {p99:9.2f}"
                f" {len(listener.words):16} {listener.segments:10} {rtf:6.4f}",
                flush=True,
            )
            rows.append(
                {
                    "minutes": heard / minute,
                    "resident_mib": resident(),
                    "accept_ms_median": statistics.median(spent),
                    "accept_ms_p99": p99,
                    "words": len(listener.words),
                    "endpoints": listener.segments,
                    "rtf": rtf,
                }
            )
            spent.clear()
        if over:
            break
    final = recogniser.finish()
    listener.hear(final.new_words, len(final.new_endpoints), heard / audio.SAMPLE_RATE)
    return reference, listener.words


def apart(recogniser: StreamingRecognizer, args: argparse.Namespace) -> tuple[int, int]:
    """Errors and words of the same utterances, each for itself."""
    wrong = said = heard = 0
    for samples, words in utterances(args.cuts):
        recogniser.reset()
        for start in range(0, len(samples), recogniser.chunk):
            recogniser.accept(samples[start : start + recogniser.chunk])
        wrong += errors(words, recogniser.finish().text.split())
        said, heard = said + len(words), heard + len(samples)
        if heard >= args.hours * 3600 * audio.SAMPLE_RATE:
            return wrong, said
    raise AssertionError("utterances never end")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, metavar="BUNDLE")
    parser.add_argument("--cuts", type=Path, nargs="+", required=True, metavar="MANIFEST")
    parser.add_argument("--hours", type=at_least(0, float), default=3.0)
    parser.add_argument("--every", type=at_least(0, float), default=10.0, metavar="MINUTES")
    parser.add_argument("--chunk", type=at_least(0, float), default=320, metavar="MS")
    parser.add_argument("--stream-only", action="store_true", help="leave the utterances on their own away")
    add_output(parser)
    add_options(parser)
    args = parser.parse_args(argv)
    check_output(args.output)
    torch.set_num_threads(1)
    options = recogniser_options(args, load_bundle(args.model))
    rows: list[dict[str, float]] = []
    reference, hypothesis = long_form(StreamingRecognizer(*options), args, rows)
    wrong = errors(reference, hypothesis)
    rates = {"wer_one_stream": wrong / len(reference)}
    print(
        f"one stream:         WER {100 * wrong / len(reference):6.2f} %  ({wrong} of {len(reference)} words)"
    )
    if not args.stream_only:
        wrong, said = apart(StreamingRecognizer(*options), args)
        rates["wer_utterances_apart"] = wrong / said
        print(f"utterances apart:   WER {100 * wrong / said:6.2f} %  ({wrong} of {said} words)")
    write_json(args.output, "long_form", "hours of speech through one recogniser", argv, rows, **rates)
    return 0


if __name__ == "__main__":
    run(main)
