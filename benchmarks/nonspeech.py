"""Words where nobody speaks: noise clips, silence, hum, music; and what the VAD costs where somebody does.

    python -m benchmarks.nonspeech --model BUNDLE --clips noise/clips.tsv [--cuts dev-clean.jsonl.gz]

--clips: a table with the columns `class` and `path`, as ESC-10's, audio beside it or in its folder audio/.
The clips of a class make one stream, --minutes of each synthetic sound another, and words in it are counted
an hour, with VAD off and on. With --cuts, the utterances of a manifest are decoded too: what the VAD takes
away there is its price. The other options of decoding are those of `asr transcribe`.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import islice
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
from asr.vad import VadConfig
from benchmarks.common import add_output, check_output, write_json

Sound = Callable[[NDArray[np.float64], np.random.Generator], NDArray[np.float64]]  # of seconds (S,): samples


def hum(hertz: float) -> Sound:
    """Mains hum with its harmonics, whose level swells and whose pitch wanders by 0.2 %."""

    def sound(time: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
        wander = 2e-3 * 17 / (2 * np.pi) * np.cos(2 * np.pi * time / 17)
        phase = 2 * np.pi * hertz * (time - wander)
        tones = sum((np.sin(k * phase + k * k) / k for k in range(1, 13)), np.zeros(len(time)))
        return 0.05 * (1 + 0.5 * np.sin(2 * np.pi * time / 7)) * tones + white(1e-4)(time, random)

    return sound


def white(level: float) -> Sound:
    return lambda time, random: level * random.standard_normal(len(time))


def pink(level: float) -> Sound:
    """Power falls with frequency, as that of most rooms."""

    def sound(time: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
        spectrum = np.fft.rfft(random.standard_normal(len(time)))
        spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
        noise = np.fft.irfft(spectrum, len(time))
        return level * noise / noise.std()

    return sound


def music(time: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
    """Plucked chords (C, G, a, F, two seconds each), a melody of two notes a second, and a drum."""
    chords = np.array([[60, 64, 67], [55, 59, 62], [57, 60, 64], [53, 57, 60]])[(time // 2).astype(int) % 4]
    steps = np.array([0, 2, 1, 2, 0, 1, 2, 0])[(time * 2).astype(int) % 8]
    melody = 12 + np.take_along_axis(chords, steps[:, None], 1)
    sound = np.zeros(len(time))
    for notes, length in ((chords, 2.0), (melody, 0.5)):
        hertz, since = 440 * 2 ** ((notes - 69) / 12), time % length
        for k in range(1, 7):
            sound += (np.sin(2 * np.pi * k * hertz * since[:, None]).sum(1) / k) * np.exp(
                -3 * k * since / length
            )
    drum = random.standard_normal(len(time)) * np.exp(-30 * (time % 0.5))
    return 0.05 * sound + 0.05 * drum


SOUNDS: dict[str, Sound] = {
    "digital silence": white(0.0),
    "silence, -80 dB": white(1e-4),
    "hum, 50 Hz": hum(50),
    "hum, 100 Hz": hum(100),
    "white noise, -40 dB": white(1e-2),
    "white noise, -20 dB": white(1e-1),
    "pink noise, -40 dB": pink(1e-2),
    "pink noise, -20 dB": pink(1e-1),
    "music": music,
}


def clips(table: Path) -> dict[str, list[Path]]:
    """Files of each class. Raises UserError where the table or a file is missing."""
    found: dict[str, list[Path]] = defaultdict(list)
    try:
        with table.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file, delimiter="\t"):
                path = Path(row["path"])
                places = (table.parent / path, table.parent / "audio" / path.name)
                found[row["class"]].append(next((place for place in places if place.exists()), places[0]))
    except (OSError, KeyError) as error:
        raise UserError(f"{table}: not a table of clips with the columns class and path ({error})") from error
    return dict(sorted(found.items()))


def words(recogniser: StreamingRecognizer, samples: NDArray[np.float32]) -> list[str]:
    """What the stream says of its next samples, live."""
    said = []
    for start in range(0, len(samples), recogniser.chunk):
        transcript = recogniser.accept(samples[start : start + recogniser.chunk])
        said += [word.text for word in transcript.new_words]
    return said


def rest(recogniser: StreamingRecognizer) -> list[str]:
    """What it says at its end; another stream begins."""
    said = [word.text for word in recogniser.finish().new_words]
    recogniser.reset()
    return said


def made(sound: Sound, minutes: float) -> Iterator[NDArray[np.float32]]:
    """One minute after the other, without a break."""
    random = np.random.default_rng(1)
    time = np.arange(60 * audio.SAMPLE_RATE) / audio.SAMPLE_RATE
    for minute in range(max(1, round(minutes))):
        yield sound(60 * minute + time, random).astype(np.float32)


def line(
    name: str, sounds: Iterator[NDArray[np.float32]], recognisers: list[StreamingRecognizer]
) -> dict[str, object]:
    """Printed, and as a row of the figures."""
    seconds = 0.0
    said: list[list[str]] = [[] for _ in recognisers]
    for samples in sounds:
        seconds += len(samples) / audio.SAMPLE_RATE
        for recogniser, heard in zip(recognisers, said, strict=True):
            heard += words(recogniser, samples)
    for recogniser, heard in zip(recognisers, said, strict=True):
        heard += rest(recogniser)
    off, on = (3600 * len(heard) / seconds for heard in said)
    examples = (" ".join(heard[:3]) for heard in said)
    print(f"{name:26} {seconds / 60:8.1f} {off:9.1f} {on:9.1f}   {' | '.join(examples)}", flush=True)
    return {"sound": name, "minutes": seconds / 60, "words_an_hour_vad_off": off, "words_an_hour_vad_on": on}


def speech(
    cuts: list[Path], limit: int, recognisers: list[StreamingRecognizer]
) -> Iterator[dict[str, object]]:
    """A row for each recogniser."""
    wrong, heard, said = [0, 0], [0, 0], 0
    for cut in islice(load_cuts(cuts), limit):
        resampler = audio.Resampler(cut.sampling_rate)
        samples = np.concatenate([resampler.accept(load_audio(cut)), resampler.finish()])
        reference = normalise(cut.supervisions[0].text or "").split()
        said += len(reference)
        for index, recogniser in enumerate(recognisers):
            hypothesis = words(recogniser, samples) + rest(recogniser)
            heard[index] += len(hypothesis)
            wrong[index] += Levenshtein.distance(reference, hypothesis)
    for name, errors, count in zip(("off", "on"), wrong, heard, strict=True):
        print(f"speech, VAD {name:3}: WER {100 * errors / said:.2f} % of {said} words, {count} words heard")
        yield {"sound": f"speech, VAD {name}", "wer": errors / said, "words": said, "heard": count}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, metavar="BUNDLE")
    parser.add_argument("--clips", type=Path, metavar="TSV")
    parser.add_argument("--cuts", type=Path, nargs="+", metavar="MANIFEST")
    parser.add_argument("--limit", type=at_least(1, int), default=10**9, metavar="N", help="utterances")
    parser.add_argument(
        "--minutes", type=at_least(0, float), default=60.0, help="of each synthetic sound (60)"
    )
    parser.add_argument("--chunk", type=at_least(0, float), default=320, metavar="MS")
    add_output(parser)
    add_options(parser)
    args = parser.parse_args(argv)
    check_output(args.output)
    torch.set_num_threads(1)
    options = recogniser_options(args, load_bundle(args.model))
    recognisers = [StreamingRecognizer(*options._replace(vad=vad)) for vad in (None, VadConfig())]
    print(f"{'':26}  minutes   words an hour, VAD off and on, with the first words")
    rows = [
        line(name, map(audio.read, files), recognisers)
        for name, files in (clips(args.clips).items() if args.clips else ())
    ]
    if args.minutes:
        rows += [line(name, made(sound, args.minutes), recognisers) for name, sound in SOUNDS.items()]
    if args.cuts:
        rows += speech(args.cuts, args.limit, recognisers)
    write_json(args.output, "nonspeech", "words where nobody speaks", argv, rows)
    return 0


if __name__ == "__main__":
    run(main)
