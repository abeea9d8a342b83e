"""What `asr transcribe` costs on one core, from samples to words, by stages; what precedes the first words.

    python -m benchmarks.end_to_end --audio LibriSpeech/dev-clean [--picture PNG] [--output FILE]

The real-time factor is the CPU time of this process, with one thread, for a second of audio: other work on
the machine takes caches and clock from it, but is not counted. Models: the package's with its own decoder,
and one of --millions parameters with random weights, a text tokenizer and greedy decoding; three of its
frames in four are blank, as in speech. Chunks are of a frame of the encoder, of 320 ms, and of all there is.

Every combination takes its turn in every round, and medians are taken; rounds with a clock around each stage
tell the shares. Front-end and convolutions are inside of the one call of C that computes a chunk: their time
is that of models which have nothing more. `Python and the rest` is what no stage accounts for.

The first words are those of a process of its own, in CPU time since it began, with chunks of 320 ms.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from copy import copy
from dataclasses import dataclass, replace
from itertools import pairwise, product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray

from asr import audio, streaming
from asr.bundle import Bundle, load_bundle, save_bundle
from asr.calibrate.plot import check_plot
from asr.cli import at_least, run
from asr.decoding.config import DecodingConfig
from asr.encoder import EncoderConfig
from asr.errors import UserError
from asr.frontend import FrontEndConfig
from asr.model import CtcModel, ModelConfig
from asr.models import DEFAULT
from asr.packed import PACKINGS, Packed, Packing
from asr.streaming import StreamingRecognizer
from asr.text import train_tokenizer
from benchmarks.common import add_output, check_output, markdown, where, write_json

CHANNELS, LAYERS, VOCABULARY = (192, 384), 7, 500  # of the model of random weights
BLANKS = 0.75  # share of its frames
OFFLINE = math.inf  # ms
TEN = "10 M, greedy"
WANTED = {40: 0.012, 320: 0.008, OFFLINE: 0.005}  # real-time factor of 10 M parameters, greedy, by chunk
FIRST_WORDS = 0.5  # seconds of work after the imports
STAGES = ("front-end", "convolutions", "recurrence and head", "VAD", "decoding", "Python and the rest")
REST = STAGES[-1]

# The process whose first words are timed; its arguments are model, packing, and a file of samples.
CHILD = """
import json, sys, time
marks = {"interpreter": time.process_time()}
def mark(name):
    marks[name] = time.process_time()
import torch
mark("import torch")
import numpy
from asr import transcribe
mark("other imports")
torch.set_num_threads(1)
model, packing, samples = sys.argv[1], sys.argv[2], numpy.load(sys.argv[3])
bundle = transcribe.load_bundle(model)
mark("model, tokenizer and language model")
args = transcribe.parse(["-", "--model", model, "--packing", packing])
recognizer = transcribe.StreamingRecognizer(*transcribe.recogniser_options(args, bundle))
mark("packing, decoder and VAD")
for start in range(0, len(samples), recognizer.chunk):
    if recognizer.accept(samples[start : start + recognizer.chunk]).text:
        break
mark("audio until the first words")
print(json.dumps({"marks": marks, "heard": (start + recognizer.chunk) / 16000}))
"""
# What the light path would still import without torch.
LIGHT = (
    "import numpy, soundfile, soxr, sentencepiece, yaml, safetensors.numpy, rich.console, argparse, ctypes"
)


@dataclass(frozen=True)
class Row:
    """chunk_ms: None is the whole recording. stages: CPU seconds a second of audio, which sum up to rtf.
    wanted: the real-time factor that is aimed at, where one is."""

    model: str
    packing: Packing
    chunk_ms: float | None
    rtf: float
    rounds: list[float]
    stages: dict[str, float]
    wanted: float | None


@dataclass(frozen=True)
class Contender:
    model: str
    bundle: Bundle
    packing: Packing
    chunk_ms: float
    recognizer: StreamingRecognizer


def speech(folder: Path, seconds: float) -> NDArray[np.float32]:
    """Recordings from all over a folder, one after the other."""
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".flac", ".wav"))
    if not files:
        raise UserError(f"{folder}: holds no .flac or .wav: name a folder of recordings")
    random.Random(1).shuffle(files)
    pieces: list[NDArray[np.float32]] = []
    for path in files:
        pieces.append(audio.read(path))
        if sum(map(len, pieces)) >= seconds * audio.SAMPLE_RATE:
            break
    return np.concatenate(pieces)[: round(seconds * audio.SAMPLE_RATE)]


def random_bundle(millions: float, samples: NDArray[np.float32], directory: Path) -> Bundle:
    """A model of about so many parameters, that speaks as often as one that was trained."""
    words = load_bundle(DEFAULT).tokenizer.lexicon
    assert words is not None
    tokenizer = train_tokenizer(list(words.ways)[::20], directory / "tokenizer.model", VOCABULARY)
    encoder, around = EncoderConfig(CHANNELS), CHANNELS[-1] + VOCABULARY  # products beside the blocks'
    fixed = sum(
        2 * own * encoder.kernel * before for own, before in zip(CHANNELS, (80, *CHANNELS), strict=False)
    )
    square = 4 * LAYERS  # weights of all blocks: square * width^2
    width = (math.sqrt(around**2 + 4 * square * (1e6 * millions - fixed)) - around) / (2 * square)
    size = max(16, 16 * round(width / 16))
    torch.manual_seed(1)
    encoder = replace(encoder, width=size, hidden=size, lookahead=(1,) * LAYERS, dropout=0.0)
    model = CtcModel(ModelConfig(VOCABULARY, FrontEndConfig(), encoder)).eval()
    some = torch.from_numpy(samples[: 20 * audio.SAMPLE_RATE])[None]
    with torch.inference_mode():
        features, _ = model.frontend.log_mel(
            some[:, : some.size(1) // 160 * 160], model.frontend.initial_state(1)
        )
        model.frontend.set_statistics(features.mean((0, 1)), features.std((0, 1)))
        log_probs, _ = model.offline(some, torch.tensor([some.size(1)]))
        lead = log_probs[0, :, 1:].amax(-1) - log_probs[0, :, 0]
        model.head.bias.data[0] += lead.quantile(BLANKS)
    return Bundle(model, tokenizer, DecodingConfig(beam=1))


def contenders(bundles: dict[str, Bundle], chunks: list[float]) -> list[Contender]:
    made = []
    for (name, bundle), packing in product(bundles.items(), PACKINGS):
        own = replace(bundle, model=copy(bundle.model))
        own.model.packed = Packed(own.model, packing)
        for chunk in chunks:
            recognizer = StreamingRecognizer(own, 0 if chunk == OFFLINE else chunk)
            made.append(Contender(name, own, packing, chunk, recognizer))
    return made


def transcribe(contender: Contender, samples: NDArray[np.float32]) -> float:
    """CPU seconds, of a stream from its beginning to its end."""
    recognizer = contender.recognizer
    step = len(samples) if contender.chunk_ms == OFFLINE else recognizer.chunk
    recognizer.reset()
    start = time.process_time()
    for first in range(0, len(samples), step):
        recognizer.accept(samples[first : first + step])
    recognizer.finish()
    return time.process_time() - start


@contextmanager
def clocks() -> Iterator[dict[str, float]]:
    """CPU seconds of the stages of whatever is transcribed meanwhile."""
    spent = dict.fromkeys(("model", "VAD", "decoding"), 0.0)

    def timed(stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            start = time.process_time()
            result = function(*args)
            spent[stage] += time.process_time() - start
            return result

        return call

    parts = [
        ("model", Packed, "__call__"),
        ("VAD", streaming, "hear"),
        ("decoding", streaming, "accept_words"),
        ("decoding", StreamingRecognizer, "transcript"),
    ]
    with ExitStack() as stack:
        for stage, owner, name in parts:
            stack.enter_context(patch.object(owner, name, timed(stage, getattr(owner, name))))
        yield spent


def without_blocks(model: CtcModel, packing: Packing, convolutions: bool) -> Packed:
    """The front-end, with the convolutions or with next to nothing after it."""
    encoder = model.config.encoder
    channels = encoder.channels if convolutions else (1,) * len(encoder.channels)
    small = replace(encoder, channels=channels, width=16, hidden=16, lookahead=())
    return Packed(CtcModel(replace(model.config, vocabulary=2, outputs=1, encoder=small)).eval(), packing)


@torch.inference_mode()
def alone(packed: Packed, samples: NDArray[np.float32], step: int) -> float:
    """CPU seconds of this model alone."""
    sound, rows = torch.from_numpy(samples)[None], torch.zeros(1, packed.state_size)
    start = time.process_time()
    for first in range(0, len(samples) - step + 1, step):
        _, rows = packed(sound[:, first : first + step], rows)
    return time.process_time() - start


def stages(contender: Contender, samples: NDArray[np.float32], rounds: int) -> dict[str, float]:
    """Shares of the CPU time, which sum up to one: of `rounds` rounds the one of the median time."""
    model = contender.bundle.model
    step = contender.recognizer.chunk
    if contender.chunk_ms == OFFLINE:
        step = len(samples) // model.step_samples * model.step_samples
    bare, convolved = (without_blocks(model, contender.packing, each) for each in (False, True))
    found = []
    for _ in range(rounds):
        with clocks() as spent:
            whole = transcribe(contender, samples)
        computed = spent["model"]
        front = min(alone(bare, samples, step), computed)
        convolutions = min(max(0.0, alone(convolved, samples, step) - front), computed - front)
        own = (front, convolutions, computed - front - convolutions, spent["VAD"], spent["decoding"])
        found.append((whole, [*own, whole - sum(own)]))
    whole, seconds = sorted(found)[rounds // 2]
    return {name: each / whole for name, each in zip(STAGES, seconds, strict=True)}


def measure(made: list[Contender], samples: NDArray[np.float32], rounds: int) -> list[Row]:
    seconds = len(samples) / audio.SAMPLE_RATE
    times: list[list[float]] = [[] for _ in made]
    for _ in range(rounds):
        for contender, own in zip(made, times, strict=True):
            transcribe(contender, samples[: 5 * audio.SAMPLE_RATE])  # weights and code come into the cache
            own.append(transcribe(contender, samples) / seconds)
    rows = []
    for contender, own in zip(made, times, strict=True):
        rtf = statistics.median(own)
        shares = stages(contender, samples, min(3, rounds))
        chunk = None if contender.chunk_ms == OFFLINE else contender.chunk_ms
        rows.append(
            Row(
                contender.model,
                contender.packing,
                chunk,
                rtf,
                own,
                {name: share * rtf for name, share in shares.items()},
                WANTED.get(contender.chunk_ms) if contender.model == TEN else None,
            )
        )
    return rows


def first_words(model: str, packing: Packing, samples: NDArray[np.float32], runs: int) -> dict[str, float]:
    """Medians of CPU seconds of what happens before the first words; `heard`: seconds of audio until then."""
    found: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "samples.npy"
        np.save(path, samples)
        for _ in range(runs):
            answer = json.loads(_python(CHILD, model, packing, str(path)))
            times = [0.0, *answer["marks"].values()]
            spans = (after - before for before, after in pairwise(times))
            found.append({**dict(zip(answer["marks"], spans, strict=True)), "heard": answer["heard"]})
    return {name: statistics.median(each[name] for each in found) for name in found[0]}


def light_imports(runs: int) -> float:
    """CPU seconds of what the light path imports beside torch."""
    code = f"import time; start = time.process_time(); {LIGHT}; print(time.process_time() - start)"
    return statistics.median(float(_python(code)) for _ in range(runs))


def _python(code: str, *arguments: str) -> str:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def name_of(chunk_ms: float | None) -> str:
    return "offline" if chunk_ms is None or chunk_ms == OFFLINE else f"{chunk_ms:g} ms"


def table(rows: list[Row]) -> str:
    header = ["model", "packing", "chunk", "RTF", "wanted", *STAGES]
    return markdown(
        header,
        [
            [
                row.model,
                row.packing,
                name_of(row.chunk_ms),
                f"{row.rtf:.4f}",
                row.wanted or "",
                *(f"{100 * row.stages[stage] / row.rtf:.0f} %" for stage in STAGES),
            ]
            for row in rows
        ],
    )


def picture(path: Path, rows: list[Row]) -> None:
    """A panel a model: bars of the real-time factor, cut into its stages."""
    from matplotlib.figure import Figure

    models = list(dict.fromkeys(row.model for row in rows))
    figure = Figure(figsize=(10, 1.2 + 2.6 * len(models)), layout="constrained")
    panels = figure.subplots(len(models), 1, squeeze=False)[:, 0]
    for axes, model in zip(panels, models, strict=True):
        own = [row for row in rows if row.model == model]
        labels = [f"{name_of(row.chunk_ms)}, {row.packing}" for row in own]
        left = np.zeros(len(own))
        for index, stage in enumerate(STAGES):
            widths = np.array([row.stages[stage] for row in own])
            axes.barh(labels, widths, left=left, label=stage, color=f"C{index}")
            left += widths
        for place, row in enumerate(own):
            if row.wanted:
                axes.plot([row.wanted] * 2, [place - 0.45, place + 0.45], color="black", linewidth=2)
            end = max(row.rtf, row.wanted or 0)
            text = f"{row.rtf:.4f}"
            axes.annotate(text, (end, place), (4, 0), textcoords="offset points", va="center")
        axes.invert_yaxis()
        axes.margins(x=0.1)
        lines = " (black lines: the most that is wanted)" if any(row.wanted for row in own) else ""
        axes.set_title(f"{model}{lines}", loc="left")
        axes.grid(axis="x", alpha=0.3)
        axes.set_axisbelow(True)
    panels[-1].set_xlabel("real-time factor on one core: seconds of CPU for a second of audio")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(STAGES))
    figure.savefig(path, dpi=120)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="benchmarks.end_to_end",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--audio", type=Path, required=True, metavar="FOLDER", help="of recordings of speech")
    parser.add_argument("--seconds", type=at_least(20, float), default=60, help="of them")
    parser.add_argument(
        "--millions", type=at_least(1, float), default=10, help="of the random model's parameters"
    )
    parser.add_argument(
        "--chunks", type=float, nargs="+", default=[40, 320, OFFLINE], metavar="MS", help="inf: offline"
    )
    parser.add_argument("--rounds", type=at_least(1, int), default=5, help="of which the median is taken")
    parser.add_argument("--picture", type=Path, metavar="PNG", help="the shares as a picture")
    add_output(parser)
    args = parser.parse_args(argv)
    check_output(args.output)
    if args.picture:
        check_plot(args.picture)
    torch.set_num_threads(1)
    samples = speech(args.audio, args.seconds)
    with tempfile.TemporaryDirectory() as directory:
        made = random_bundle(args.millions, samples, Path(directory))
        save_bundle(Path(directory) / "bundle", made)
        shipped = load_bundle(DEFAULT)
        own, other = f"{DEFAULT}, beam {shipped.decoding.beam}", f"{args.millions:g} M, greedy"
        rows = measure(contenders({own: shipped, other: made}, args.chunks), samples, args.rounds)
        print(table(rows), flush=True)
        paths = {own: DEFAULT, other: str(Path(directory) / "bundle")}
        firsts = {name: first_words(path, "f32", samples, args.rounds) for name, path in paths.items()}
    light = light_imports(args.rounds)
    print(f"\n{markdown(['CPU seconds', *firsts], list(first_rows(firsts)))}")
    print(f"\nwhat is imported beside torch takes {light:.2f} s; {where()}")
    if args.picture:
        picture(args.picture, rows)
    what = "the whole path of asr transcribe on one core, by stages"
    more = {"seconds": args.seconds, "first_words": firsts, "light_imports": light}
    write_json(args.output, "end_to_end", what, argv, rows, **more)
    return 0


def first_rows(firsts: dict[str, dict[str, float]]) -> Iterator[list[str]]:
    parts = [name for name in next(iter(firsts.values())) if name != "heard"]
    for part in parts:
        yield [part, *(f"{first[part]:.2f}" for first in firsts.values())]
    after = parts[parts.index("other imports") + 1 :]
    sums = (sum(first[part] for part in after) for first in firsts.values())
    yield [f"after imports (wanted: {FIRST_WORDS:g})", *(f"{each:.2f}" for each in sums)]
    yield ["audio heard by then, s", *(f"{first['heard']:.1f}" for first in firsts.values())]


if __name__ == "__main__":
    run(main)
