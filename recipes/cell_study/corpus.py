"""Speech as features and labels in memory: the front-end is the same for all contenders, so it runs once.

    python -m recipes.cell_study.corpus --train MANIFEST --dev MANIFEST --phones CTM ... --output FILE.npz

An utterance is whole steps of 40 ms, the silence after it that lets the lookahead out included. Training
takes those whose phones are known, end to end as a few long streams; the dev set is judged utterance by
utterance.

U utterances, N steps, M mel bands, B streams, T steps of a batch.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from lhotse.cut import Cut
from numpy.typing import NDArray
from torch import Tensor

from asr.cli import run
from asr.data.dataset import Utterances
from asr.data.manifest import load_cuts
from asr.data.phones import PhoneTimes, read_phone_times
from asr.frontend import FrontEndConfig, LogMel
from asr.phones import SILENCE, UNKNOWN
from asr.text import normalise
from asr.training.module import STATISTICS_UTTERANCES, measure_statistics
from recipes.cell_study.contenders import LOOKAHEAD, OUTPUTS, SUBSAMPLING

FRONTEND = FrontEndConfig()
STEP = FRONTEND.hop * SUBSAMPLING  # samples


class Speech(NamedTuple):
    features: NDArray[np.float16]  # (N, SUBSAMPLING, M), normalised
    labels: NDArray[np.int8]  # (N, OUTPUTS), a phone or UNKNOWN
    starts: NDArray[np.int64]  # (U + 1,): the step at which each utterance begins, and at which the last ends
    ids: NDArray[np.str_]  # (U,), as the other two
    texts: NDArray[np.str_]
    speakers: NDArray[np.str_]


class Corpus(NamedTuple):
    train: Speech
    dev: Speech
    mean: NDArray[np.float32]  # (M,), of the front-end, and ...
    std: NDArray[np.float32]  # ... its deviation


@torch.inference_mode()
def prepare(cuts: Sequence[Cut], times: Mapping[str, PhoneTimes], frontend: LogMel) -> Speech:
    audio = Utterances(cuts, [[]] * len(cuts), FRONTEND.rate)
    features, labels, starts = [], [], [0]
    for row, cut in enumerate(cuts):
        samples = torch.from_numpy(audio.audio(row))
        steps = -(-len(samples) // STEP) + LOOKAHEAD
        samples = torch.nn.functional.pad(samples, (0, steps * STEP - len(samples)))
        made, _ = frontend(samples[None], frontend.initial_state(1))
        features.append(made[0].half().numpy().reshape(steps, SUBSAMPLING, -1))
        middles = (np.arange(steps * OUTPUTS) + 0.5) * STEP / OUTPUTS / FRONTEND.rate
        known = times.get(cut.id)
        said = np.full(len(middles), UNKNOWN) if known is None else known.labels(middles)
        labels.append(said.astype(np.int8).reshape(steps, OUTPUTS))
        starts.append(starts[-1] + steps)
    supervisions = [cut.supervisions[0] for cut in cuts]
    return Speech(
        np.concatenate(features),
        np.concatenate(labels),
        np.array(starts),
        np.array([cut.id for cut in cuts]),
        np.array([normalise(each.text or "") for each in supervisions]),
        np.array([each.speaker for each in supervisions]),
    )


def streams(
    speech: Speech, count: int, steps: int, generator: np.random.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Without end: features (B, T * SUBSAMPLING, M), labels (B, T, OUTPUTS). A row goes on where it ended in
    the batch before; each epoch has another order of utterances."""
    while True:
        spans = np.stack([speech.starts[:-1], speech.starts[1:]], 1)
        order = np.concatenate([np.arange(*span) for span in generator.permutation(spans)])
        rows = order[: len(order) // count * count].reshape(count, -1)  # (B, steps of an epoch)
        for start in range(0, rows.shape[1] - steps + 1, steps):
            chosen = rows[:, start : start + steps]
            features = torch.from_numpy(speech.features[chosen]).float().flatten(1, 2)
            yield features, torch.from_numpy(speech.labels[chosen]).long()


def save(corpus: Corpus, path: Path) -> None:
    arrays = {"mean": corpus.mean, "std": corpus.std}
    for name, speech in (("train", corpus.train), ("dev", corpus.dev)):
        arrays |= {f"{name}_{key}": value for key, value in speech._asdict().items()}
    np.savez(path, **arrays)


def load(path: Path) -> Corpus:
    with np.load(path) as arrays:
        sets = [Speech(*(arrays[f"{name}_{key}"] for key in Speech._fields)) for name in ("train", "dev")]
        return Corpus(*sets, arrays["mean"], arrays["std"])


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="recipes.cell_study.corpus", description=__doc__)
    parser.add_argument("--train", type=Path, required=True, metavar="MANIFEST")
    parser.add_argument("--dev", type=Path, required=True, metavar="MANIFEST")
    parser.add_argument("--phones", type=Path, nargs="+", required=True, metavar="CTM")
    parser.add_argument("--output", type=Path, required=True, metavar="NPZ")
    args = parser.parse_args(argv)
    times = read_phone_times(args.phones)
    train = [cut for cut in load_cuts([args.train]) if cut.id in times]
    dev = list(load_cuts([args.dev]))
    frontend = LogMel(FRONTEND)
    recorded = Utterances(train, [[]] * len(train), FRONTEND.rate)
    every = max(1, len(train) // STATISTICS_UTTERANCES)
    audio = (torch.from_numpy(recorded.audio(row)) for row in range(0, len(train), every))
    frontend.set_statistics(*measure_statistics(frontend, audio))
    sets = [prepare(cuts, times, frontend) for cuts in (train, dev)]
    save(Corpus(*sets, frontend.mean.numpy(), frontend.std.numpy()), args.output)
    for name, speech in zip(("train", "dev"), sets, strict=True):
        known = (speech.labels != UNKNOWN).mean()
        quiet = (speech.labels == SILENCE).sum() / (speech.labels != UNKNOWN).sum()
        hours = len(speech.labels) * STEP / FRONTEND.rate / 3600
        print(
            f"{args.output}: {name}: {len(speech.ids)} utterances, {hours:.2f} h with the silence after them;"
            f" {100 * known:.0f} % of the frames are known, {100 * quiet:.0f} % of these are silent"
        )
    return 0


if __name__ == "__main__":
    run(main)
