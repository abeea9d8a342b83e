"""The log-probabilities of a bundle for a dev set in one file: decoders are compared on the same ones.

    python -m benchmarks.emissions --model BUNDLE --cuts data/dev-clean.jsonl.gz --output exp/dev.npz

Reading such a file needs neither torch nor the bundle: benchmarks.decoding does so in its peers'
environment. T frames, V vocabulary, N frames of all utterances together.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asr.cli import at_least, run
from asr.decoding.config import DecodingConfig
from asr.errors import UserError

BATCH = 16  # utterances of like length
WEIGHTS = ("lm_weight", "word_bonus", "unknown_penalty")  # of DecodingConfig, that options can overrule


@dataclass(frozen=True)
class Spoken:
    """An utterance as decoders get it."""

    utt_id: str
    speaker: str | None
    reference: str
    seconds: float
    log_probs: NDArray[np.float32]  # (T, V)


@dataclass(frozen=True)
class Emissions:
    pieces: tuple[str, ...]  # of the tokenizer
    tokenizer: bytes  # its serialised SentencePiece model
    frame_seconds: float
    utterances: tuple[Spoken, ...]
    decoding: DecodingConfig  # the bundle's
    origin: str  # which bundle, which cuts

    @property
    def seconds(self) -> float:
        return sum(utterance.seconds for utterance in self.utterances)


def write_emissions(path: Path, emissions: Emissions) -> None:
    """An .npz of plain arrays; log_probs (N, V) in half precision: to a thousandth of their value."""
    spoken = emissions.utterances
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.partial.npz")
    np.savez(
        partial,
        log_probs=np.concatenate([each.log_probs for each in spoken]).astype(np.float16),
        lengths=np.array([len(each.log_probs) for each in spoken]),
        seconds=np.array([each.seconds for each in spoken]),
        utt_ids=np.array([each.utt_id for each in spoken]),
        speakers=np.array([each.speaker or "" for each in spoken]),
        references=np.array([each.reference for each in spoken]),
        pieces=np.array(emissions.pieces),
        tokenizer=np.frombuffer(emissions.tokenizer, np.uint8),
        frame_seconds=np.array(emissions.frame_seconds),
        decoding=np.array(json.dumps(asdict(emissions.decoding))),
        origin=np.array(emissions.origin),
    )
    partial.replace(path)


def read_emissions(path: Path, limit: int | None = None) -> Emissions:
    """All utterances, or `limit` of them spread evenly, so that all speakers are among them."""
    try:
        with np.load(path, allow_pickle=False) as file:
            data = {name: file[name] for name in file.files}
        ends = np.cumsum(data["lengths"])
        count = len(ends)
        chosen = range(count) if limit is None else sorted({i * count // limit for i in range(limit)})
        utterances = tuple(
            Spoken(
                str(data["utt_ids"][index]),
                str(data["speakers"][index]) or None,
                str(data["references"][index]),
                float(data["seconds"][index]),
                data["log_probs"][ends[index] - data["lengths"][index] : ends[index]].astype(np.float32),
            )
            for index in chosen
        )
        return Emissions(
            tuple(map(str, data["pieces"])),
            data["tokenizer"].tobytes(),
            float(data["frame_seconds"]),
            utterances,
            DecodingConfig(**json.loads(str(data["decoding"]))),
            str(data["origin"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: not a file of log-probabilities ({error}); make one with python -m benchmarks.emissions"
        ) from error


def compute(model_path: Path, cuts_path: Path) -> Emissions:
    """From the zero state, in batches: what streams of any chunks give (tests/test_model.py)."""
    import torch

    from asr.bundle import load_bundle
    from asr.data.manifest import load_audio, load_cuts
    from asr.text import normalise

    bundle, cuts = load_bundle(model_path), list(load_cuts([cuts_path]))
    model, tokenizer = bundle.model, bundle.tokenizer
    if tokenizer.lexicon is not None:
        raise UserError(
            f"{model_path}: its tokens are phones; decoders are compared on tokens that spell text"
        )
    order = sorted(range(len(cuts)), key=lambda index: cuts[index].duration)
    spoken: dict[int, Spoken] = {}
    for first in range(0, len(order), BATCH):
        rows = order[first : first + BATCH]
        audio = [torch.from_numpy(load_audio(cuts[row])) for row in rows]
        lengths = torch.tensor([len(samples) for samples in audio])
        with torch.inference_mode():
            log_probs, frames = model.offline(
                torch.nn.utils.rnn.pad_sequence(audio, batch_first=True), lengths
            )
        for row, values, length in zip(rows, log_probs, frames.tolist(), strict=True):
            said = cuts[row].supervisions[0]
            reference, seconds = normalise(said.text or ""), cuts[row].duration
            spoken[row] = Spoken(cuts[row].id, said.speaker, reference, seconds, values[:length].numpy())
    return Emissions(
        tuple(tokenizer.pieces),
        tokenizer.model,
        model.frame_seconds,
        tuple(spoken[row] for row in range(len(cuts))),
        bundle.decoding,
        f"{model_path}: {model.describe()}; {cuts_path}",
    )


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Options of benchmarks that decode: the log-probabilities, and what overrules their bundle."""
    parser.add_argument("--emissions", type=Path, required=True, metavar="NPZ")
    parser.add_argument("--beam", type=at_least(2, int), default=16)
    for name in WEIGHTS:
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=float, metavar="X", help="instead of the bundle's own")


def chosen_settings(args: argparse.Namespace, decoding: DecodingConfig) -> DecodingConfig:
    names = ("beam", "lm_weight", "word_bonus", "unknown_penalty")
    return replace(
        decoding, **{name: getattr(args, name) for name in names if getattr(args, name) is not None}
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.emissions", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, metavar="BUNDLE")
    parser.add_argument("--cuts", type=Path, required=True, metavar="MANIFEST")
    parser.add_argument("--output", type=Path, required=True, metavar="NPZ")
    args = parser.parse_args(argv)
    emissions = compute(args.model, args.cuts)
    write_emissions(args.output, emissions)
    print(
        f"{args.output}: {len(emissions.utterances)} utterances, {emissions.seconds:.0f} s;"
        f" {emissions.origin}"
    )
    return 0


if __name__ == "__main__":
    run(main)
