"""Blocks that say nothing yet between those of a bundle, for what has more to learn than it has room for.

    python -m recipes.en_small.deepen asr/models/en-small --behind 3 6 9 11 --output exp/deeper

Behind the third block, the sixth and so on comes one more, without lookahead. What its gates and candidates
make of the input is zero at first, so its state stays zero and the model says what it said.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from asr.bundle import load_bundle, save_bundle
from asr.cli import run
from asr.errors import UserError
from asr.model import CtcModel

BLOCKS = "encoder.blocks."


def deepen(model: CtcModel, behind: list[int]) -> CtcModel:
    """behind: numbers of blocks from 1 on. Raises UserError for one that is not there."""
    lookahead, origins = [], []  # of each block to be: which of the old ones it is
    for number, frames in enumerate(model.config.encoder.lookahead):
        lookahead.append(frames)
        origins.append(number)
        if number + 1 in behind:
            lookahead.append(0)
            origins.append(-1)
    if len(origins) != len(model.config.encoder.lookahead) + len(behind):
        raise UserError(f"--behind {' '.join(map(str, behind))}: the model has no such blocks")
    encoder = replace(model.config.encoder, lookahead=tuple(lookahead))
    deeper = CtcModel(replace(model.config, encoder=encoder))
    old = model.state_dict()
    deeper.load_state_dict(
        {name: _origin(name, own, origins, old) for name, own in deeper.state_dict().items()}
    )
    return deeper.eval()


def _origin(name: str, own: Tensor, origins: list[int], old: dict[str, Tensor]) -> Tensor:
    if not name.startswith(BLOCKS):
        return old[name]
    number, _, parameter = name.removeprefix(BLOCKS).partition(".")
    origin = origins[int(number)]
    if origin >= 0:
        return old[f"{BLOCKS}{origin}.{parameter}"]
    return own.new_zeros(own.shape) if "weight_ih" in parameter or "bias" in parameter else own


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="recipes.en_small.deepen",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--behind", type=int, nargs="+", required=True, metavar="N", help="blocks, from 1 on")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    args = parser.parse_args(argv)
    torch.manual_seed(0)
    bundle = load_bundle(args.bundle)
    save_bundle(args.output, replace(bundle, model=deepen(bundle.model, args.behind), compact=False))
    return 0


if __name__ == "__main__":
    run(main)
