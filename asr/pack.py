"""`asr pack`: a bundle to give away, with its weights as 8-bit integers: a quarter of the space.

The copy holds the settings of decoding and the language model too. Calibrate first.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from asr.bundle import load_bundle, save_bundle
from asr.errors import UserError
from asr.models import add_model, find_model


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="asr pack", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_model(parser)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="the directory to write")
    args = parser.parse_args(argv)
    if args.output.resolve() == find_model(args.model).resolve():
        raise UserError(f"{args.output}: is the model itself: give --output another directory")
    save_bundle(args.output, replace(load_bundle(args.model), compact=True))
    size = sum(path.stat().st_size for path in args.output.iterdir() if path.is_file())
    print(f"{args.output}: {size / 1e6:.1f} MB")
    return 0
