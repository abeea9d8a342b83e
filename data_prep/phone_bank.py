"""How a model's phone layer heard each phone of aligned recordings: what text is said with in training.

    python -m data_prep.phone_bank --model exp/phones/bundle --cuts data/train.jsonl.gz \\
        --phones data/phones.ctm --output exp/bank.npz

The recordings are perturbed as in training, or the model, which knows them, would make fewer errors than it
makes on others.
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from asr.bundle import load_bundle
from asr.cli import at_least, run
from asr.data.augment import Augmentation
from asr.data.datamodule import read_phone_times
from asr.data.dataset import PhoneTimes, Utterances
from asr.data.manifest import load_cuts
from asr.data.spoken_text import PhoneBank
from asr.errors import UserError
from asr.model import CtcModel
from asr.phones import SILENCE
from data_prep.common import progress

DESCRIPTION = "Keep what a model's phone layer says of aligned recordings."


Segment = tuple[int, int, int, int, int]  # phone, left and right neighbour, first slot, slots


def load(bundle: Path) -> tuple[CtcModel, float]:
    """A model with a phone layer, and the seconds of a slot. UserError where it has none."""
    model = load_bundle(bundle).model
    layer = model.config.encoder.phone_layer
    if layer is None:
        raise UserError(f"{bundle}: has no phone layer; train one with model.encoder.phone_layer")
    return model, model.frame_seconds / layer.slots


def segments(times: PhoneTimes, slots: int, seconds: float, first: int) -> list[Segment]:
    """PhoneBank's rows of an utterance of so many slots of `seconds`, its first being slot `first`."""
    edges = np.append(times.starts, times.end)
    # a slot belongs to the phone in its middle
    cuts = np.clip(np.ceil(edges / seconds - 0.5).astype(int), 0, slots)
    around = [SILENCE, *times.ids.tolist(), SILENCE]
    return [
        (around[i + 1], around[i], around[i + 2], first + int(a), int(b - a))
        for i, (a, b) in enumerate(pairwise(cuts))
        if b > a
    ]


@torch.inference_mode()
def posteriors(model: CtcModel, audio: NDArray[np.float32]) -> NDArray[np.uint8]:
    """audio (S,) -> (K, P), in units of 1 / 255."""
    encoder = model.encoder
    assert encoder.phones is not None
    samples = model.pad_for_lookahead(torch.from_numpy(audio)[None])
    state = model.initial_state(1)
    features, _ = model.frontend(samples, state.frontend)
    heard, _, _ = encoder.hear(features, state.encoder)
    likely = encoder.phones.logits(heard)[0, encoder.hearing :].softmax(-1)
    return (likely.flatten(0, 1) * 255).round().to(torch.uint8).numpy()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="data_prep.phone_bank", description=DESCRIPTION)
    parser.add_argument("--model", type=Path, required=True, metavar="BUNDLE")
    parser.add_argument("--cuts", type=Path, nargs="+", required=True, metavar="MANIFEST")
    parser.add_argument("--phones", type=Path, nargs="+", required=True, metavar="CTM")
    parser.add_argument("--noises", type=Path, nargs="*", default=[], metavar="MANIFEST")
    parser.add_argument("--output", type=Path, required=True, metavar="NPZ")
    parser.add_argument("--limit", type=at_least(1, float), help="hours of audio, spread over the manifests")
    args = parser.parse_args(argv)
    model, seconds = load(args.model)
    times = read_phone_times(args.phones)
    cuts = [cut for cut in load_cuts(args.cuts) if cut.id in times and (cut.supervisions[0].text or "")]
    hours = sum(cut.duration for cut in cuts) / 3600
    if args.limit and hours > args.limit:
        rng = np.random.default_rng(0)
        cuts = [cut for cut in cuts if rng.random() < args.limit / hours]
    share = 0.3 if args.noises else 0.0
    noise = Augmentation((1.0,), (-12.0, 6.0), tuple(args.noises), share, cutoff_share=0.5)
    utterances = Utterances(cuts, [[]] * len(cuts), model.config.frontend.rate, noise)
    kept: list[NDArray[np.uint8]] = []
    rows: list[Segment] = []
    count = 0
    with progress() as bar:
        for row in bar.track(range(len(cuts)), description="hearing"):
            heard = posteriors(model, utterances.audio(row))
            rows += segments(times[cuts[row].id], len(heard), seconds, count)
            kept.append(heard)
            count += len(heard)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    PhoneBank(np.concatenate(kept), np.array(rows)).save(args.output)
    print(f"{args.output}: {len(rows)} phones of {len(cuts)} utterances")
    return 0


if __name__ == "__main__":
    run(main)
