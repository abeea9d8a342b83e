"""Words wrong where speech is not clean: noise, a telephone, a low bit rate, a room, too loud, too soft.

    python -m benchmarks.conditions --cuts dev.jsonl.gz --limit 60 [--noises sounds.jsonl.gz] \\
        [--rooms rooms.jsonl.gz others.jsonl.gz]

The same utterances are heard as they are and under each condition, as a stream, in chunks. What is added is
drawn anew for each utterance, the same in each run. Every condition is compared with the utterances as they
are (paired bootstrap). The other options of decoding are those of `asr transcribe`.
"""

from __future__ import annotations

import argparse
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from asr import audio
from asr.bundle import load_bundle
from asr.cli import at_least, run
from asr.data.augment import add_noise, compress, hiss, resample, reverberate, telephone
from asr.data.manifest import load_audio, load_cuts
from asr.decoding_options import add_options, recogniser_options
from asr.evaluation.report import interval_text, percent
from asr.evaluation.results import compare, summarise
from asr.evaluation.wer import Utterance
from asr.models import add_model
from asr.streaming import StreamingRecognizer
from asr.text import normalise
from benchmarks.common import add_output, check_output, evenly, where, write_json
from benchmarks.peers import streaming

Samples = NDArray[np.float32]
Condition = Callable[[Samples, np.random.Generator], Samples]  # (S,) at 16 kHz -> (S',)

AS_IT_IS = "as it is"
BEFORE = 10  # seconds of noise


def noisy(noises: list[Samples], snr_db: float) -> Condition:
    def heard(samples: Samples, random: np.random.Generator) -> Samples:
        return add_noise(samples, noises[random.integers(len(noises))], snr_db, random)

    return heard


def hissing(slope: float, snr_db: float, before: int = 0) -> Condition:
    """Noise that falls by `slope` dB an octave, and so many seconds of it before the speech."""

    def heard(samples: Samples, random: np.random.Generator) -> Samples:
        noise = hiss(len(samples) + before * audio.SAMPLE_RATE, slope, random)
        power = np.square(samples).mean() / np.square(noise).mean()
        noise *= np.float32(np.sqrt(power * 10 ** (-snr_db / 10)))
        noise[before * audio.SAMPLE_RATE :] += samples
        return noise

    return heard


def louder(gain_db: float) -> Condition:
    """Clipped at full scale, and rounded to 16 bits."""

    def heard(samples: Samples, random: np.random.Generator) -> Samples:
        scaled = (samples * 10 ** (gain_db / 20)).clip(-1, 1)
        return (np.rint(scaled * 32767) / 32767).astype(np.float32)

    return heard


def echoing(rooms: list[Samples]) -> Condition:
    return lambda samples, random: reverberate(samples, rooms[random.integers(len(rooms))])


def conditions(noises: list[Samples], rooms: dict[str, list[Samples]]) -> dict[str, Condition]:
    """rooms: by the name of their manifest."""
    found: dict[str, Condition] = {
        AS_IT_IS: lambda samples, random: samples,
        **{f"white noise, {snr} dB below": hissing(0, snr) for snr in (30, 20, 10)},
        f"white noise, 20 dB below, {BEFORE} s before": hissing(0, 20, BEFORE),
        **{f"pink noise, {snr} dB below": hissing(3, snr) for snr in (20, 10)},
    }
    if noises:
        found |= {f"sounds of --noises, {snr} dB below": noisy(noises, snr) for snr in (20, 10, 5)}
    found |= {f"one of {len(some)} rooms, {name}": echoing(some) for name, some in rooms.items()}
    return found | {
        "telephone (G.711, 300-3400 Hz)": lambda samples, random: telephone(samples, audio.SAMPLE_RATE),
        "MP3 of 16 kbit/s": lambda samples, random: compress(samples, audio.SAMPLE_RATE, 16),
        "30 dB softer": louder(-30),
        "20 dB louder, clipped": louder(20),
        "10 % faster and higher": lambda samples, random: resample(
            samples, audio.SAMPLE_RATE, audio.SAMPLE_RATE, 1.1
        ),
        "10 % slower and lower": lambda samples, random: resample(
            samples, audio.SAMPLE_RATE, audio.SAMPLE_RATE, 0.9
        ),
    }


def recordings(manifests: list[Path], limit: int | None = None) -> list[tuple[Any, Samples]]:
    """Cuts and their samples at 16 kHz; with a limit so many, evenly spread."""
    cuts = evenly(list(load_cuts(manifests)), limit) if manifests else []
    return [(cut, resample(load_audio(cut), cut.sampling_rate, audio.SAMPLE_RATE, 1.0)) for cut in cuts]


def recognised(
    speech: list[tuple[Any, Samples]], condition: Condition, recognise: Callable[[Samples], str]
) -> list[Utterance]:
    said = []
    for cut, samples in speech:
        heard = condition(samples, np.random.default_rng(zlib.crc32(cut.id.encode())))
        supervision = cut.supervisions[0]
        reference = normalise(supervision.text or "")
        said.append(Utterance(cut.id, supervision.speaker, reference, recognise(heard)))
    return said


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="benchmarks.conditions",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_model(parser)
    parser.add_argument("--cuts", type=Path, nargs="+", required=True, metavar="MANIFEST")
    parser.add_argument(
        "--noises", type=Path, nargs="+", default=[], metavar="MANIFEST", help="sounds to add"
    )
    parser.add_argument(
        "--rooms",
        type=Path,
        nargs="+",
        default=[],
        metavar="MANIFEST",
        help="impulse responses, each a condition",
    )
    parser.add_argument("--limit", type=at_least(1, int), metavar="N", help="utterances, evenly spread")
    parser.add_argument("--chunk", type=at_least(0, float), default=320, metavar="MS", help="(320)")
    add_output(parser)
    add_options(parser)
    args = parser.parse_args(argv)
    check_output(args.output)
    torch.set_num_threads(1)
    recognise = streaming(StreamingRecognizer(*recogniser_options(args, load_bundle(args.model))))
    noises = [samples for _, samples in recordings(args.noises)]
    rooms = {path.name.split(".")[0]: [samples for _, samples in recordings([path])] for path in args.rooms}
    speech = recordings(args.cuts, args.limit)
    clean: list[Utterance] = []
    rows = []
    for name, condition in conditions(noises, rooms).items():
        said = recognised(speech, condition, recognise)
        clean = clean or said
        result, (words, _, _) = summarise(said), compare(clean, said)
        rate, interval = percent(result.words.rate), interval_text(result.word_interval)
        more, around = 100 * words.difference, words.interval
        print(
            f"{name:40} {rate:>8}  {interval:16} {more:+6.1f}"
            f" ({100 * around.low:+.1f} to {100 * around.high:+.1f})",
            flush=True,
        )
        rows.append(
            {
                "condition": name,
                "wer": result.words.rate,
                "interval": result.word_interval,
                "difference": words.difference,
                "difference_interval": words.interval,
            }
        )
    print(f"{len(speech)} utterances; {where()}")
    what = "words wrong where speech is not clean"
    write_json(args.output, "conditions", what, argv, rows, utterances=len(speech))
    return 0


if __name__ == "__main__":
    run(main)
