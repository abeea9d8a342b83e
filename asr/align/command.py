"""`asr align`: when was each word of a known text said?

    asr align --model exp/mini/bundle talk.wav --text talk.txt --format textgrid > talk.TextGrid
    asr align --model exp/mini/bundle --cuts data/dev.jsonl.gz > dev.ctm

Without --text the words of talk.wav are read from talk.txt beside it. A recording that cannot be aligned is
named, the others are done, and the exit status is 1. Alignments go to standard output, or to --output-dir.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from asr import audio, formats
from asr.align.ctm import write_ctm
from asr.align.emissions import emissions
from asr.align.forced import Timing, align, spell
from asr.align.textgrid import write_textgrid
from asr.bundle import Bundle, load_bundle
from asr.cli import at_least
from asr.errors import UserError
from asr.models import add_model
from asr.transcript import Transcript, Word

FORMATS = {"ctm": "ctm", "textgrid": "TextGrid", "json": "json", "srt": "srt", "vtt": "vtt"}  # to suffixes


class Recording(NamedTuple):
    """What is to be aligned. `samples` and `text` read when they are called, and raise UserError."""

    name: str
    samples: Callable[[], Iterable[NDArray[np.float32]]]  # at 16 kHz
    text: Callable[[], str]


class Aligned(NamedTuple):
    name: str
    words: list[Word]
    duration: float  # seconds


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    torch.set_num_threads(args.threads)
    screen = Console(stderr=True, highlight=False, markup=False)
    bundle = load_bundle(args.model)
    screen.print(f"{args.model}: {bundle.model.describe()}", style="dim", soft_wrap=True)
    recordings = from_manifests(args.cuts) if args.cuts else from_files(args.files, args.text)
    failed = 0
    shown = track(recordings, "aligning", console=screen, disable=not (args.cuts and screen.is_terminal))
    for recording in shown:
        try:
            write(align_recording(recording, bundle), args)
        except UserError as error:
            print(f"asr: error: {_naming(recording.name, error)}", file=sys.stderr)
            failed += 1
    if failed and len(recordings) > 1:
        print(f"asr: {failed} of {len(recordings)} recordings failed", file=sys.stderr)
    return 1 if failed else 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="asr align", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="*", metavar="FILE", help="audio of any rate and channels")
    parser.add_argument(
        "--text", nargs="+", metavar="FILE", help="the words of each recording (NAME.txt beside NAME.wav)"
    )
    parser.add_argument("--cuts", type=Path, nargs="+", metavar="MANIFEST", help="instead of files and texts")
    add_model(parser)
    parser.add_argument("--format", choices=FORMATS, default="ctm")
    parser.add_argument("--output-dir", type=Path, metavar="DIR", help="write DIR/NAME.ctm (.TextGrid, ...)")
    parser.add_argument("--threads", type=at_least(1, int), default=1, metavar="N", help="for the model (1)")
    args = parser.parse_args(argv)
    if bool(args.files) == bool(args.cuts):
        parser.error("give audio files, or manifests with --cuts")
    if args.text and len(args.text) != len(args.files):
        parser.error(f"{len(args.files)} recordings need as many files of text, not {len(args.text)}")
    if args.format != "ctm" and not args.output_dir and (args.cuts or len(args.files) > 1):
        parser.error(f"several recordings as {args.format} need --output-dir, one file each")
    return args


def from_files(files: list[str], texts: list[str] | None) -> list[Recording]:
    names = [Path(file).stem for file in files]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"two recordings are named {twice[0]}; align them in two calls")
    sources = texts or [str(Path(file).with_suffix(".txt")) for file in files]
    return [
        Recording(name, partial(audio.blocks, file, 10.0), partial(read_text, source))
        for name, file, source in zip(names, files, sources, strict=True)
    ]


def from_manifests(paths: list[Path]) -> list[Recording]:
    from asr.data.manifest import load_audio, load_cuts  # Lhotse takes a second to load

    def samples(cut: Any) -> Iterator[NDArray[np.float32]]:
        resampler = audio.Resampler(cut.sampling_rate)
        yield resampler.accept(load_audio(cut))
        yield resampler.finish()

    def text(cut: Any) -> str:
        return cut.supervisions[0].text or ""

    return [Recording(cut.id, partial(samples, cut), partial(text, cut)) for cut in load_cuts(paths)]


def read_text(path: str) -> str:
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such text; name it with --text") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as text in UTF-8 ({error}); save it again") from error
    if not text.split():
        raise UserError(f"{path}: holds no words; nothing can be aligned")
    return text


def align_recording(recording: Recording, bundle: Bundle) -> Aligned:
    """Raises UserError for audio, a text or a pair of both that cannot be aligned."""
    words = spell(recording.text(), bundle.tokenizer)
    log_probs = emissions(bundle.model, recording.samples())
    config = bundle.decoding
    timing = Timing(bundle.model.frame_seconds, config.start_offset, config.end_offset)
    return Aligned(recording.name, align(log_probs, words, timing), len(log_probs) * timing.frame)


def write(aligned: Aligned, args: argparse.Namespace) -> None:
    text = render(aligned, args.format)
    if args.output_dir:
        args.output_dir.mkdir(parents=True, exist_ok=True)
        target = args.output_dir / f"{aligned.name}.{FORMATS[args.format]}"
        target.write_text(text, encoding="utf-8")
    else:
        print(text, end="", flush=True)


def render(aligned: Aligned, format: str) -> str:
    if format == "ctm":
        return write_ctm(aligned.name, aligned.words)
    if format == "textgrid":
        return write_textgrid(aligned.words, aligned.duration)
    return formats.render(Transcript.of(aligned.words), format)


def _naming(name: str, error: UserError) -> str:
    """Errors of audio name their file already."""
    message = str(error)
    return message if name in message.split(": ")[0] else f"{name}: {message}"
