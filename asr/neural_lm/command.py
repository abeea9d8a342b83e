"""`asr neural-lm`: train a neural language model on text, to be mixed with one of n-grams.

    asr neural-lm books.txt.xz more.txt --lm lm.bin --dev dev.txt --output neural-lm.safetensors

It knows the most frequent words of the n-grams. What was stopped goes on when it is called again.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
from lightning.pytorch import Trainer, seed_everything

from asr.cli import at_least
from asr.decoding.language_model import LanguageModel
from asr.decoding.neural_model import MixedModel, NeuralModel
from asr.errors import UserError
from asr.lm import make_room, sentences
from asr.neural_lm.corpus import UNKNOWN, read
from asr.neural_lm.training import NeuralLmTraining, Sizes
from asr.training.callbacks import LAST, GentleStop, SaveLast
from asr.training.checkpoint import WholeCheckpoints
from asr.training.command import quieten
from asr.training.memory import keep_freed_memory
from asr.training.precision import precision

SAVED_EVERY = 500  # steps


def train(texts: Sequence[Path], ngrams: LanguageModel, output: Path, args: argparse.Namespace) -> bool:
    """Train, or go on, and write `output`; False where it was stopped before the end."""
    corpus = read(texts, args.words, ngrams)
    tokens = len(corpus.ids)
    known = 1 - int((corpus.ids == UNKNOWN).sum()) / tokens
    start = NeuralModel.load(args.init_from) if args.init_from else None
    sizes = Sizes(start.embeddings.shape[1], *start.layers["weight_out"].shape) if start else Sizes()
    asked = {field.name: getattr(args, field.name) for field in fields(Sizes)}
    sizes = replace(sizes, **{name: size for name, size in asked.items() if size})
    module = NeuralLmTraining(
        corpus, sizes, args.rate, args.epochs, args.batch, args.joined, args.dropout, args.seed, start
    )
    steps = module.steps
    print(
        f"{tokens:,} words and ends, {known:.1%} of them {len(corpus.words):,} that it learns; {steps} steps"
    )
    checkpoints = output.with_name(f"{output.name}.checkpoints")
    trainer = Trainer(
        max_steps=steps,
        max_epochs=-1,
        precision=precision(),
        gradient_clip_val=1.0,
        callbacks=[GentleStop(), SaveLast(checkpoints, SAVED_EVERY)],
        plugins=[WholeCheckpoints("call it again", "delete it to begin anew")],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    last = checkpoints / LAST
    trainer.fit(module, ckpt_path=str(last) if last.exists() else None)
    if trainer.global_step < steps:
        print(f"{last}: step {trainer.global_step} of {steps}; the same command goes on from there")
        return False
    module.network.export(corpus.words, 1.0).save(output)
    share = best_share(ngrams, MixedModel(ngrams, output), args.dev)
    module.network.export(corpus.words, share).save(output)
    shutil.rmtree(checkpoints, ignore_errors=True)  # not there where it took a few steps
    return True


def best_share(ngrams: LanguageModel, neural: LanguageModel, texts: Sequence[Path]) -> float:
    """Of the second model, for the lowest perplexity of texts, by expectation and maximisation."""
    lines = [line.decode() for text in texts for line in sentences(text)]
    one, other = (
        np.exp([score for line in lines if line for score in model.scores(line)])
        for model in (ngrams, neural)
    )
    if not len(one):
        raise UserError(f"{', '.join(map(str, texts))}: no word in it to fit the share on")
    share = 0.5
    for _ in range(50):
        mixed = share * other + (1 - share) * one
        share = float((share * other / mixed).mean())
    each = (("n-grams", one), ("neural", other), (f"both, with a share of {share:.2f}", mixed))
    print("; ".join(f"{name}: perplexity {np.exp(-np.log(p).mean()):.1f}" for name, p in each))
    return round(share, 2)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="asr neural-lm", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "texts", type=Path, nargs="+", metavar="TEXT", help="a sentence a line, also .gz or .xz"
    )
    parser.add_argument("--lm", type=Path, required=True, metavar="FILE", help="the n-grams, of asr lm")
    parser.add_argument(
        "--dev", type=Path, nargs="+", required=True, metavar="TEXT", help="unseen text, to fit the share on"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="neural-lm.safetensors")
    parser.add_argument(
        "--init-from",
        type=Path,
        metavar="FILE",
        help="a neural-lm.safetensors to go on from; its sizes hold where no larger ones are given",
    )
    whole = at_least(1, int)
    parser.add_argument(
        "--words", type=whole, default=20_000, metavar="N", help="that it knows (%(default)s)"
    )
    parser.add_argument("--epochs", type=at_least(0, float), default=1.0, help="over the text (%(default)s)")
    parser.add_argument("--batch", type=whole, default=4096, metavar="N", help="words a step (%(default)s)")
    parser.add_argument(
        "--joined",
        type=at_least(0, float),
        default=0.25,
        metavar="SHARE",
        help="of lines that go on in the next one, as speech does (%(default)s)",
    )
    parser.add_argument("--rate", type=at_least(0, float), default=1e-2, help="Muon's highest (%(default)s)")
    parser.add_argument(
        "--dropout",
        type=at_least(0, float),
        default=0.0,
        metavar="SHARE",
        help="against learning the text by heart (%(default)s)",
    )
    for field in fields(Sizes):
        parser.add_argument(f"--{field.name}", type=whole, metavar="N", help=f"({field.default})")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    make_room(args.output)
    quieten()
    keep_freed_memory()
    seed_everything(args.seed, verbose=False)
    return 0 if train(args.texts, LanguageModel.open(args.lm), args.output, args) else 130
