"""`asr average`: a model whose weights are the mean of several, which training has made of one another.

What a training began with and the checkpoints on its way lie in one valley, and their mean is often better
than each of them (arXiv 1803.05407, 2203.05482). MODEL is a bundle or a model of the package; tokenizer,
language models and settings of decoding are its own. OTHERS are bundles or checkpoints of the same sizes.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from asr.bundle import Bundle, load_bundle, save_bundle
from asr.errors import UserError
from asr.models import find_model
from asr.training.checkpoint import mean, read_checkpoint
from asr.training.identity import difference, identity


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="asr average", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, metavar="MODEL")
    parser.add_argument("others", type=Path, nargs="+", metavar="OTHERS")
    parser.add_argument(
        "--shares",
        type=float,
        nargs="+",
        metavar="SHARE",
        help="of each in the mean, MODEL first; all the same",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="the bundle to write")
    args = parser.parse_args(argv)
    shares = args.shares or [1.0] * (1 + len(args.others))
    if len(shares) != 1 + len(args.others) or not all(0 < share < math.inf for share in shares):
        raise UserError(f"--shares: give {1 + len(args.others)} numbers above 0, MODEL's first")
    if args.output.resolve() == find_model(args.model).resolve():
        raise UserError(f"{args.output}: is MODEL itself: give --output another directory")
    bundle = load_bundle(args.model)
    weights = [bundle.model.state_dict(), *(_weights(path, args.model, bundle) for path in args.others)]
    bundle.model.load_state_dict(mean(weights, [share / sum(shares) for share in shares]))
    save_bundle(args.output, replace(bundle, compact=False))
    print(f"{args.output}: the mean of {len(weights)} models")
    return 0


def _weights(path: Path, model: Path, bundle: Bundle) -> dict[str, Tensor]:
    if path.is_file():
        checkpoint = read_checkpoint(path, "give a checkpoint that asr train wrote, or a bundle")
        theirs = checkpoint["identity"]
        weights = {name.removeprefix("model."): value for name, value in checkpoint["state_dict"].items()}
    else:
        other = load_bundle(path)
        theirs, weights = identity(other.model, other.tokenizer), other.model.state_dict()
    ours = identity(bundle.model, bundle.tokenizer)
    if key := difference(theirs, ours):
        raise UserError(
            f"{path}: its {key} is {theirs.get(key)}, that of {model} {ours[key]}: a mean is of models of the"
            " same sizes and tokens"
        )
    return weights
