"""Words and speed beside PocketSphinx 5 with its own US English model, on the same recordings in one run.

    pip install pocketsphinx
    python -m benchmarks.peers --cuts data/dev-clean.jsonl.gz [--model en-small] [--limit 200] [--output FILE]

Every utterance goes to each recogniser in turn, on one core, so that a busy machine is busy for all of them.
Ours hears it as a stream, in chunks; PocketSphinx gets it as a whole, with the language model, the dictionary
and the settings that it has when nothing is said, since that is what `pip install` gives.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from asr.audio import SAMPLE_RATE
from asr.bundle import load_bundle
from asr.cli import at_least, run
from asr.data.manifest import load_audio, load_cuts
from asr.decoding_options import add_options, recogniser_options
from asr.errors import UserError
from asr.evaluation.report import interval_text, people, percent, print_rows, verdict
from asr.evaluation.results import Results, compare, summarise
from asr.evaluation.wer import Utterance
from asr.models import add_model
from asr.streaming import StreamingRecognizer
from asr.text import normalise
from benchmarks.common import add_output, check_output, evenly, where, write_json

Recognise = Callable[[NDArray[np.float32]], str]
PEER = "PocketSphinx 5"


def pocketsphinx() -> Recognise:
    try:
        from pocketsphinx import Decoder
    except ImportError as error:
        raise UserError("the peer is PocketSphinx 5: pip install pocketsphinx") from error
    decoder: Any = Decoder(loglevel="FATAL")

    def recognise(samples: NDArray[np.float32]) -> str:
        pcm = (samples * 32767).round().clip(-32768, 32767).astype(np.int16)
        decoder.start_utt()
        decoder.process_raw(pcm.tobytes(), full_utt=True)
        decoder.end_utt()
        found = decoder.hyp()
        return normalise(found.hypstr) if found else ""

    return recognise


def streaming(recognizer: StreamingRecognizer) -> Recognise:
    def recognise(samples: NDArray[np.float32]) -> str:
        recognizer.reset()
        for start in range(0, len(samples), recognizer.chunk):
            recognizer.accept(samples[start : start + recognizer.chunk])
        return recognizer.finish().text

    return recognise


def measure(
    recognisers: dict[str, Recognise], cuts: Sequence[Any]
) -> tuple[dict[str, list[Utterance]], dict[str, float], float]:
    """What each said, the seconds of this process's CPU time that it took, and the seconds of audio."""
    said: dict[str, list[Utterance]] = {name: [] for name in recognisers}
    spent = dict.fromkeys(recognisers, 0.0)
    audio = 0.0
    for cut in cuts:
        if cut.sampling_rate != SAMPLE_RATE:
            raise UserError(
                f"{cut.id}: {cut.sampling_rate} Hz; the peer needs recordings of {SAMPLE_RATE} Hz"
            )
        samples, supervision = load_audio(cut), cut.supervisions[0]
        audio += len(samples) / SAMPLE_RATE
        for name, recognise in recognisers.items():
            began = time.process_time()
            text = recognise(samples)
            spent[name] += time.process_time() - began
            reference = normalise(supervision.text or "")
            said[name].append(Utterance(cut.id, supervision.speaker, reference, text))
    return said, spent, audio


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="benchmarks.peers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_model(parser)
    parser.add_argument("--cuts", type=Path, nargs="+", required=True, metavar="MANIFEST")
    parser.add_argument("--limit", type=at_least(1, int), metavar="N", help="utterances, evenly spread")
    parser.add_argument("--chunk", type=at_least(0, float), default=320, metavar="MS", help="ours (320)")
    add_output(parser)
    add_options(parser)
    args = parser.parse_args(argv)
    check_output(args.output)
    torch.set_num_threads(1)
    options = recogniser_options(args, load_bundle(args.model))
    recognisers = {PEER: pocketsphinx(), str(args.model): streaming(StreamingRecognizer(*options))}
    if options.bundle.tokenizer.lexicon is None:
        decoding = replace(options.bundle.decoding, beam=1)
        greedy = options._replace(bundle=replace(options.bundle, decoding=decoding, language_model=None))
        recognisers[f"{args.model}, greedy"] = streaming(StreamingRecognizer(*greedy))
    cuts = evenly(list(load_cuts(args.cuts)), args.limit)
    said, spent, audio = measure(recognisers, cuts)
    results = {name: summarise(utterances) for name, utterances in said.items()}
    screen = people(sys.stdout)
    print_rows(
        ("", "WER", "95 % interval", "CPU seconds a second of audio"),
        list(rows(results, spent, audio)),
        screen,
    )
    words, _, _ = compare(said[PEER], said[str(args.model)])
    print(f"A: {PEER}, B: {args.model}. {verdict(words)}")
    print(f"{len(cuts)} utterances, {audio / 60:.1f} min; {where()}")
    what = "words and speed beside PocketSphinx 5"
    write_json(args.output, "peers", what, argv, figures(results, spent, audio), utterances=len(cuts))
    return 0


def rows(results: dict[str, Results], spent: dict[str, float], audio: float) -> Any:
    for name, result in results.items():
        yield (
            name,
            percent(result.words.rate),
            interval_text(result.word_interval),
            f"{spent[name] / audio:.3f}",
        )


def figures(results: dict[str, Results], spent: dict[str, float], audio: float) -> list[dict[str, Any]]:
    return [
        {
            "recogniser": name,
            "wer": result.words.rate,
            "interval": [result.word_interval.low, result.word_interval.high]
            if result.word_interval
            else None,
            "cpu_seconds_a_second": spent[name] / audio,
        }
        for name, result in results.items()
    ]


if __name__ == "__main__":
    run(main)
