"""`asr inspect`: a picture of what a model does with a recording, from its sound to its words.

    asr inspect talk.wav
    asr inspect talk.wav --start 61.5 --seconds 6 --layers 1 5 --output talk.pdf

From below: the log-mel spectrogram, the gates of each recurrent layer, the posteriors of CTC, the words. All
stand where their sound is: what lookahead delays is moved back.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from rich.console import Console

from asr import audio
from asr.bundle import load_bundle
from asr.cli import at_least
from asr.errors import UserError
from asr.inspect.listen import listen
from asr.models import add_model

FORMATS = (".png", ".svg", ".pdf")
MOST = 60.0  # seconds of a picture, which is 9,000 pixels wide then


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    torch.set_num_threads(1)
    output = args.output or Path(Path(args.file).stem + ".png")
    check_output(output)
    from asr.inspect.plot import draw  # after the check: it needs matplotlib

    for remark in audio.remarks(audio.info(args.file)):
        print(f"{args.file}: {remark}", file=sys.stderr)
    bundle = load_bundle(args.model)
    screen = Console(stderr=True, highlight=False, markup=False)
    screen.print(f"{args.model}: {bundle.model.describe()}", style="dim", soft_wrap=True)
    layers = range(1, len(bundle.model.encoder.blocks) + 1)
    if args.layers and max(args.layers) not in layers:
        raise UserError(f"--layers {max(args.layers)}: the model has {len(layers)}")
    found = listen(args.file, bundle, args.start, args.seconds)
    title = f"{Path(args.file).name}, {found.start:.2f} - {found.end:.2f} of {found.duration:.2f} s"
    draw(output, found, bundle.tokenizer, args.layers or layers, f"{title}; {args.model}")
    print(f"{output}: {title}")
    return 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="asr inspect", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", metavar="FILE", help="audio of any rate and channels")
    add_model(parser)
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help=f"{', '.join(FORMATS)} (FILE's name with .png, here)"
    )
    parser.add_argument(
        "--start", type=at_least(0, float), default=0.0, metavar="SECONDS", help="of the picture (0)"
    )
    parser.add_argument(
        "--seconds", type=float, default=10.0, metavar="SECONDS", help=f"its length (10), at most {MOST:g}"
    )
    parser.add_argument(
        "--layers", type=at_least(1, int), nargs="+", metavar="N", help="only these; 1 is the lowest"
    )
    args = parser.parse_args(argv)
    if not 0 < args.seconds <= MOST:
        parser.error(f"--seconds {args.seconds:g}: more than 0 and at most {MOST:g}")
    return args


def check_output(path: Path) -> None:
    """Before the work: UserError where the picture cannot be drawn or written."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UserError("asr inspect needs matplotlib: pip install 'asr[plot]'") from error
    if path.suffix not in FORMATS:
        raise UserError(f"{path}: a picture is one of {', '.join(FORMATS)}")
    if not path.parent.is_dir():
        raise UserError(f"{path}: its folder does not exist; make it")
