"""`asr transcribe`: recordings in, text out, chunk by chunk as a live stream, with partial text meanwhile.

Text goes to standard output (or to files in --output-dir), everything else to standard error. A file that
cannot be read to its end is named, what was heard of it is kept, the others are done, and the exit status
is 1.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from asr import audio, formats
from asr.bundle import load_bundle
from asr.cli import at_least
from asr.decoding_options import add_options, recogniser_options
from asr.errors import UserError
from asr.live import Show, add_partials, partials
from asr.models import add_model
from asr.streaming import StreamingRecognizer
from asr.transcript import Transcript


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    torch.set_num_threads(args.threads)
    screen = Console(stderr=True, highlight=False, markup=False)
    bundle = load_bundle(args.model)
    screen.print(f"{args.model}: {bundle.model.describe()}", style="dim", soft_wrap=True)
    recognizer = StreamingRecognizer(*recogniser_options(args, bundle))
    failed = [path for path in args.files if not transcribe(path, recognizer, screen, args)]
    if failed and len(args.files) > 1:
        print(f"asr: {len(failed)} of {len(args.files)} files failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="asr transcribe", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help="audio of any rate and channels, or - for stdin"
    )
    add_model(parser)
    parser.add_argument("--format", choices=formats.FORMATS, default="text")
    parser.add_argument(
        "--output-dir", type=Path, metavar="DIR", help="write DIR/NAME.txt (.json, .srt, .vtt)"
    )
    parser.add_argument(
        "--chunk", type=at_least(0, float), default=320, metavar="MS", help="audio computed at once (320)"
    )
    add_partials(parser)
    parser.add_argument("--pace", action="store_true", help="hear the recording at the speed of speech")
    parser.add_argument(
        "--threads", type=at_least(1, int), default=1, help="for the model; one is best for one stream"
    )
    add_options(parser)
    args = parser.parse_args(argv)
    twice = [name for name, count in Counter(map(output_name, args.files)).items() if count > 1]
    if len(args.files) > 1 and args.format != "text" and not args.output_dir:
        parser.error(f"several files as {args.format} need --output-dir, one file each")
    if args.output_dir and twice:
        parser.error(
            f"two files would be written as {args.output_dir}/{twice[0]}; transcribe them in two calls"
        )
    return args


def transcribe(path: str, recognizer: StreamingRecognizer, screen: Console, args: argparse.Namespace) -> bool:
    """One recording: its text written, what is wrong with it said. Whether nothing was."""
    recognizer.reset()
    problem = None
    try:
        if path != "-":
            for remark in audio.remarks(audio.info(path)):
                print(f"{path}: {remark}", file=sys.stderr)
        blocks = audio.blocks(
            path, recognizer.chunk / audio.SAMPLE_RATE
        )  # as a microphone would have given it
        with partials(screen, args.partials) as show:
            sound = listen(paced(blocks) if args.pace else blocks, recognizer, show)
        if not sound:
            problem = f"{path}: every sample is zero; check the microphone or the export of this recording"
    except UserError as error:
        problem = str(error)
    transcript = recognizer.finish()
    if problem:
        print(f"asr: error: {problem}", file=sys.stderr)
    if transcript.text or not problem:
        write(transcript, path, args)
    return problem is None


def listen(blocks: Iterator[NDArray[np.float32]], recognizer: StreamingRecognizer, show: Show) -> bool:
    """Feed the recogniser; whether there was any sound."""
    heard, sound = 0, False
    for block in blocks:
        sound = sound or not audio.is_silent(block)
        heard += len(block)
        show(recognizer.accept(block), heard / audio.SAMPLE_RATE)
    return sound


def paced(blocks: Iterator[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
    """Each block when its last sample would have been spoken."""
    clock = time.monotonic()
    for block in blocks:
        clock += len(block) / audio.SAMPLE_RATE
        time.sleep(max(0.0, clock - time.monotonic()))
        yield block


def write(transcript: Transcript, path: str, args: argparse.Namespace) -> None:
    text = formats.render(transcript, args.format)
    if args.output_dir:
        args.output_dir.mkdir(parents=True, exist_ok=True)
        target = args.output_dir / f"{output_name(path)}.{formats.SUFFIXES[args.format]}"
        target.write_text(text, encoding="utf-8")
    else:
        name = f"{path}\t" if args.format == "text" and len(args.files) > 1 else ""
        print(name + text.rstrip("\n"), flush=True)


def output_name(path: str) -> str:
    return "stdin" if path == "-" else Path(path).stem
