"""`asr calibrate`: fit a bundle's decoding settings on development data, and say what they are worth.

    asr calibrate --model exp/mini/bundle --cuts data/dev.jsonl.gz --lm lm.bin --alignments dev.ctm --plot
    dev.png

In this order: the language model's weight, word bonus and penalty of unknown words, by word error rate; the
offsets of word times, by their error against --alignments (or, without, against forced alignment with the
same model); the temperature of confidences, and a logistic map where it pays, by likelihood on half of the
speakers. --fit confidences leaves the others as they are. Writes decoding.yaml into the bundle. Figures in
the column "held out" come from speakers that the fit has not seen.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from asr.bundle import DECODING, Bundle, load_bundle, save_bundle
from asr.calibrate.development import Decoding, Example, TimeError, decode, example, speakers
from asr.calibrate.fit import (
    Point,
    cross_validated_choice,
    cross_validated_offset,
    folds,
    logistic,
    minimum,
    offset,
    search,
)
from asr.calibrate.plot import check_plot, reliability_diagram
from asr.cli import at_least
from asr.decoding.config import DecodingConfig
from asr.decoding_options import choose_language_model
from asr.errors import UserError
from asr.evaluation.confidence import Calibration, calibration, judged
from asr.evaluation.recogniser import Alignments
from asr.evaluation.report import people, print_rows

FITS = ("weights", "offsets", "confidences")
FOLDS = 5
COLDEST, HOTTEST = 0.2, 50.0  # temperatures tried
LEAST_SCALE = 0.05  # of the logistic map: the order of the words stays
PAYS = 0.005  # nats a word by which the logistic map has to better the likelihood of the other half


FITTED = (
    "lm_weight",
    "word_bonus",
    "unknown_penalty",
    "start_offset",
    "end_offset",
    "temperature",
    "confidence_scale",
    "confidence_bias",
)


# Of the language model: the first step of the search, least and most.
WEIGHTS: dict[str, tuple[float, tuple[float, float]]] = {
    "lm_weight": (0.2, (0.0, math.inf)),
    "word_bonus": (0.5, (-math.inf, math.inf)),
    "unknown_penalty": (4.0, (-math.inf, 0.0)),
}


class Row(NamedTuple):
    """A line of the table: a figure before and after the fit, and after a fit on other speakers."""

    name: str
    before: str
    after: str
    held_out: str


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    torch.set_num_threads(1)
    note = Console(stderr=True, highlight=False, markup=False)
    if args.plot:
        check_plot(args.plot)
    bundle = _bundle(args)
    note.print(f"{args.model}: {bundle.model.describe()}", style="dim", soft_wrap=True)
    examples, failed = load(args, bundle, note)
    fit = Fit(bundle, examples, note)
    kind = "timed" if args.alignments else "forced"
    fits = {"weights": fit.weights, "offsets": lambda: fit.offsets(kind), "confidences": fit.confidences}
    rows = [row for name, rows in fits.items() if name in args.fit for row in rows()]
    if rows:
        print_rows(("", "before", "after", "held out"), rows, people(sys.stdout))
    print("\n".join(fit.remarks))
    if args.plot and fit.reliability:
        reliability_diagram(args.plot, fit.reliability)
    kept = replace(load_bundle(args.model), decoding=fit.decoding)
    save_bundle(args.model, replace(kept, language_model=bundle.language_model) if args.install_lm else kept)
    changed = [f"{name} {value:g}" for name, value in asdict(fit.decoding).items() if name in FITTED]
    print(f"wrote {args.model / DECODING}: {', '.join(changed)}")
    return 1 if failed else 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="asr calibrate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, metavar="BUNDLE", help="is written to")
    parser.add_argument(
        "--cuts", type=Path, nargs="+", required=True, metavar="MANIFEST", help="not for testing"
    )
    parser.add_argument("--lm", metavar="FILE", help="language model to fit with (the bundle's)")
    parser.add_argument("--neural-lm", metavar="FILE", help="mixed with it (the bundle's, without --lm)")
    parser.add_argument("--install-lm", action="store_true", help="copy them into the bundle")
    parser.add_argument("--beam", type=at_least(1, int), metavar="N", help="hypotheses kept (the bundle's)")
    parser.add_argument("--alignments", type=Path, metavar="CTM", help="word times from another aligner")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="a reliability diagram of the held-out half")
    parser.add_argument(
        "--limit", type=at_least(2, int), metavar="N", help="only N utterances, from all over the manifests"
    )
    parser.add_argument(
        "--fit", nargs="+", choices=FITS, default=FITS, metavar="NAME", help=f"of {', '.join(FITS)} (all)"
    )
    args = parser.parse_args(argv)
    if args.install_lm and not (args.lm or args.neural_lm):
        parser.error("--install-lm needs --lm FILE or --neural-lm FILE")
    return args


def _bundle(args: argparse.Namespace) -> Bundle:
    """As it is to be fitted."""
    bundle = load_bundle(args.model)
    if args.beam:
        bundle = replace(bundle, decoding=replace(bundle.decoding, beam=args.beam))
    return replace(bundle, language_model=choose_language_model(bundle, args.lm, args.neural_lm))


def load(args: argparse.Namespace, bundle: Bundle, note: Console) -> tuple[list[Example], int]:
    """The examples, and how many there could not be."""
    from asr.data.manifest import load_cuts

    cuts = list(load_cuts(args.cuts))
    if args.limit and args.limit < len(cuts):
        cuts = [cuts[row] for row in np.linspace(0, len(cuts) - 1, args.limit).astype(int)]
    alignments = Alignments(args.alignments) if args.alignments else None
    examples: list[Example] = []
    failed = 0
    for cut in track(cuts, "log-probabilities", console=note, disable=not note.is_terminal):
        try:
            found = example(cut, bundle)
        except UserError as error:
            print(f"asr: error: {cut.id}: {error}", file=sys.stderr)
            failed += 1
            continue
        timed = alignments.words(found.utt_id, found.reference) if alignments else None
        examples.append(replace(found, timed=timed))
    if not any(each.reference for each in examples):
        raise UserError("there are no words to calibrate on; give manifests with speech and texts")
    return examples, failed


class Fit:
    """One fit after another; each begins with what those before it have found."""

    def __init__(self, bundle: Bundle, examples: Sequence[Example], note: Console) -> None:
        self.bundle, self.examples, self.note = bundle, list(examples), note
        self.decoding = bundle.decoding
        self.groups = speakers(self.examples)
        self.fold = folds(self.groups, FOLDS)
        self.remarks = [
            f"{len(self.examples)} utterances of {self.groups.number} {self.groups.unit}; held out: {FOLDS}"
            " folds of them for weights and offsets, half of them for confidences"
        ]
        self.reliability: dict[str, Calibration] = {}

    def decode(self, decoding: DecodingConfig, examples: Sequence[Example] | None = None) -> Decoding:
        return decode(self.examples if examples is None else examples, self.bundle, decoding)

    def weights(self) -> Iterator[Row]:
        """Those of the language model, by word errors."""
        if self.decoding.beam == 1 or self.bundle.language_model is None:
            self.remarks.append("no weights to fit without a beam and a language model")
            return
        closed = self.bundle.tokenizer.lexicon is not None  # no words but the lexicon's
        names = tuple(name for name in WEIGHTS if not (closed and name == "unknown_penalty"))
        tried: dict[Point, list[int]] = {}

        def cost(point: Point) -> float:
            changes: dict[str, Any] = dict(zip(names, point, strict=True))
            tried[point] = self.decode(replace(self.decoding, **changes)).errors
            settings = ", ".join(f"{name} {value:g}" for name, value in changes.items())
            self.note.print(f"{settings}: {percent(sum(tried[point]))}", style="dim")
            return sum(tried[point])

        words = sum(len(each.reference.split()) for each in self.examples)

        def percent(errors: float) -> str:
            return f"{100 * errors / words:.2f} %"

        start = tuple(float(getattr(self.decoding, name)) for name in names)
        steps, bounds = zip(*(WEIGHTS[name] for name in names), strict=True)
        best = search(start, steps, bounds, cost)
        found: dict[str, Any] = dict(zip(names, best, strict=True))
        self.decoding = replace(self.decoding, **found)
        held_out = cross_validated_choice(tried, self.fold)
        yield Row("WER", percent(sum(tried[start])), percent(sum(tried[best])), percent(held_out))

    def offsets(self, kind: str) -> Iterator[Row]:
        """start_offset and end_offset, by mean absolute error against the words `timed` or `forced`."""
        before = self.decoding
        plain = self.decode(replace(before, start_offset=0.0, end_offset=0.0))
        errors = plain.time_errors(lambda each: getattr(each, kind))
        if not any(errors):
            raise UserError(
                "no correct word has a reference time: do the alignments belong to these manifests?"
            )
        shifts = [offset([error[side] for own in errors for error in own]) for side in (0, 1)]
        self.decoding = replace(before, start_offset=round(shifts[0], 3), end_offset=round(shifts[1], 3))
        after = self.decode(self.decoding).time_errors(lambda each: getattr(each, kind))
        earlier = self.decode(before).time_errors(lambda each: getattr(each, kind))
        for side, name in enumerate(("start", "end")):
            left = cross_validated_offset([[error[side] for error in own] for own in errors], self.fold)
            yield Row(
                f"{name} of words, mean absolute error",
                milliseconds(mean_absolute(earlier, side)),
                milliseconds(mean_absolute(after, side)),
                milliseconds(left),
            )
        known = sum(getattr(each, kind) is not None for each in self.examples)
        of = f"{known} of {len(self.examples)} utterances"
        if kind == "timed":
            own = plain.time_errors(lambda each: each.forced)
            start, end = (milliseconds(mean_absolute(own, side)) for side in (0, 1))
            self.remarks.append(
                f"times are those of --alignments ({of}); against forced alignment with the same model,"
                f" without offsets, the errors are {start} (start) and {end} (end)"
            )
        else:
            self.remarks.append(
                f"times are those of forced alignment with the same model ({of}), which fires as late as the"
                " decoder does: give --alignments of another aligner"
            )

    def confidences(self) -> Iterator[Row]:
        """temperature (with a beam) and, where it pays, a logistic map: fitted on one half of the speakers,
        reported on the other."""
        half = folds(self.groups, 2)
        fitting, others = (
            [each for each, own in zip(self.examples, half, strict=True) if own == side] for side in (0, 1)
        )
        if not (fitting and others):
            self.remarks.append("confidences need two speakers or more; they stay as they are")
            return
        old = judge(*judgements(self.decode(self.decoding, others)))
        plain, candidate = self._likeliest(fitting)
        new, mapped = (judge(*judgements(self.decode(each, others))) for each in (plain, candidate))
        pays = new.likelihood - mapped.likelihood
        self.remarks.append(
            f"logistic map of confidences (scale {candidate.confidence_scale:g}, bias"
            f" {candidate.confidence_bias:g}): {'kept' if pays > PAYS else 'left out'}, as it betters the"
            f" likelihood of the held-out half by {pays:.4f} nats (at least {PAYS})"
        )
        self.decoding, new = (candidate, mapped) if pays > PAYS else (plain, new)
        self.reliability = {"before": old, "after": new}
        for name, show in FIGURES.items():
            yield Row(name, show(old), "", show(new))

    def _likeliest(self, fitting: Sequence[Example]) -> tuple[DecodingConfig, DecodingConfig]:
        """Of the greatest likelihood: the temperature (with a beam) alone, and one with a logistic map."""
        plain = replace(self.decoding, confidence_scale=1.0, confidence_bias=0.0)

        @cache
        def heard(temperature: float) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
            return judgements(self.decode(replace(plain, temperature=temperature), fitting))

        def settings(temperature: float, mapped: bool) -> DecodingConfig:
            found = replace(plain, temperature=temperature)
            if not mapped:
                return found
            scale, bias = logistic(*heard(temperature))
            scale = max(LEAST_SCALE, scale)
            return replace(found, confidence_scale=round(scale, 4), confidence_bias=round(bias, 4))

        def likeliest(mapped: bool) -> DecodingConfig:
            def cost(temperature: float) -> float:
                temperature = three_digits(temperature)
                confidences, right = heard(temperature)
                show = np.vectorize(settings(temperature, mapped).calibrated, otypes=[float])
                found = judge(show(confidences), right).likelihood
                how = " with a map" if mapped else ""
                self.note.print(f"temperature {temperature:g}{how}: {found:.4f} nats a word", style="dim")
                return found

            if plain.beam == 1:
                return settings(plain.temperature, mapped)
            return settings(three_digits(minimum(cost, COLDEST, HOTTEST)), mapped)

        return likeliest(False), likeliest(True)


def judgements(decoding: Decoding) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Confidence of each recognised word, and whether it is right, both (N,)."""
    confidences = [word.confidence for words in decoding.words for word in words]
    right = [right for score in decoding.scores for right in judged(score.alignment)]
    return np.array(confidences), np.array(right, bool)


def judge(confidences: NDArray[np.float64], right: NDArray[np.bool_]) -> Calibration:
    """UserError where no word was recognised."""
    found = calibration(confidences, right)
    if found is None:
        raise UserError("no word was recognised; train longer, or calibrate on more speech")
    return found


FIGURES: dict[str, Callable[[Calibration], str]] = {
    "calibration error of confidences": lambda found: f"{found.error:.3f}",
    "negative log-likelihood, nats a word": lambda found: f"{found.likelihood:.3f}",
    "AUC": lambda found: "-" if found.ranking is None else f"{found.ranking:.3f}",
}


def mean_absolute(errors: Sequence[Sequence[TimeError]], side: int) -> float | None:
    values = [abs(error[side]) for own in errors for error in own]
    return sum(values) / len(values) if values else None


def three_digits(value: float) -> float:
    return float(f"{value:.3g}")


def milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1000 * seconds:.0f} ms"
