"""`asr transcribe`: recordings in, text out, chunk by chunk as a live stream would be, with partials on a terminal.

Text goes to standard output (or to files beside --output-dir), everything else to standard error. A file that
cannot be transcribed is named, the others are done, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.live import Live
from rich.text import Text

from asr import audio, formats
from asr.bundle import load_bundle
from asr.decoding.types import Transcript
from asr.errors import UserError
from asr.streaming import StreamingRecognizer


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    torch.set_num_threads(args.threads)
    screen = Console(stderr=True)
    model, tokenizer = load_bundle(args.model)
    if not args.quiet:
        screen.print(f"{args.model}: {model.describe()}", style="dim", highlight=False, soft_wrap=True)
    recognizer = StreamingRecognizer(model, tokenizer, args.chunk)
    failed: list[str] = []
    for path in args.files:
        try:
            transcript = transcribe(path, recognizer, screen, live=not args.quiet)
            write(transcript, path, args)
        except UserError as error:
            print(f"asr: error: {error}", file=sys.stderr)
            failed.append(path)
    if failed and len(args.files) > 1:
        print(f"asr: {len(failed)} of {len(args.files)} files failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="asr transcribe", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="audio of any rate and channel count, or - for stdin")
    parser.add_argument("--model", type=Path, required=True, help="bundle: a directory that training wrote")
    parser.add_argument("--format", choices=formats.FORMATS, default="text")
    parser.add_argument("--output-dir", type=Path, help="write NAME.txt, .json, .srt or .vtt there, not to stdout")
    parser.add_argument("--chunk", type=float, default=320, metavar="MS", help="audio computed at once (default 320)")
    parser.add_argument("--threads", type=int, default=1, help="for the model; one is best for one stream")
    parser.add_argument("--quiet", action="store_true", help="no partials, no notes: the text alone")
    return parser.parse_args(argv)


def transcribe(path: str, recognizer: StreamingRecognizer, screen: Console, live: bool) -> Transcript:
    """One recording through the recogniser, with partial text on the screen while it runs."""
    if live and path != "-":
        for remark in audio.remarks(audio.info(path)):
            print(f"{path}: {remark}", file=sys.stderr)
    recognizer.reset()
    silent = True
    with Live(console=screen, transient=True, refresh_per_second=12) as view:
        for block in pieces(path, recognizer.chunk):
            silent = silent and audio.is_silent(block)
            transcript = recognizer.accept(block)
            if live and screen.is_terminal:
                view.update(render(transcript))
        transcript = recognizer.finish()
    if silent:
        raise UserError(f"{path}: every sample is zero; check the microphone or the export of this recording")
    return transcript


def pieces(path: str, samples: int) -> Iterator[NDArray[np.float32]]:
    """The recording in the pieces in which a microphone would have given it."""
    for block in audio.blocks(path):
        for start in range(0, len(block), samples):
            yield block[start : start + samples]


def render(transcript: Transcript, tail: int = 400) -> Text:
    """Committed text plain, tentative text dim; the last `tail` characters, so that it fits a screen."""
    return Text.assemble(transcript.committed[-tail:], " ", (transcript.tentative, "dim"))


def write(transcript: Transcript, path: str, args: argparse.Namespace) -> None:
    text = formats.render(transcript, args.format)
    if args.output_dir is None:
        prefix = f"{path}\t" if args.format == "text" and len(args.files) > 1 else ""
        print(prefix + text.rstrip("\n"), flush=True)
        return
    args.output_dir.mkdir(parents=True, exist_ok=True)
    name = "stdin" if path == "-" else Path(path).stem
    (args.output_dir / f"{name}.{formats.SUFFIXES[args.format]}").write_text(text, encoding="utf-8")
