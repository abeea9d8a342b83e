"""When each phone of a transcript was said, by a model of phones: for what an aligner left out.

    python -m data_prep.phone_alignment --model exp/phones/bundle --cuts data/train.jsonl.gz \\
        --known exp/phones.ctm --output exp/more-phones.ctm

PocketSphinx finds no path through the phones of one utterance in four (`data_prep.reference_alignment`). A
model that was trained on the others (`asr train --model.objective.frames 1`) does. Of a word's pronunciations
the likeliest one is taken; silence may stand at the ends and between words. Utterances with a word that the
lexicon lacks are left out.

T frames, V tokens.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from asr.align.emissions import emissions
from asr.align.forced import align_tokens
from asr.align.ways import choose_ways
from asr.bundle import load_bundle
from asr.cli import run
from asr.data.dataset import Utterances
from asr.data.manifest import load_cuts
from asr.data.phones import phone_log_probs, read_phone_times
from asr.errors import UserError
from asr.evaluation.results import write_text
from asr.lexicon import Lexicon, PhoneTokenizer
from asr.phones import INDEX, NAMES, PHONES, SILENCE
from data_prep.common import progress
from data_prep.reference_alignment import TimedWord, ctm

DESCRIPTION = "Align phones with a model of phones and write their times as CTM."


def pronounce(text: str, lexicon: Lexicon) -> list[list[list[int]]]:
    """Of each word the ways to say it, in phones. KeyError for a word that the lexicon lacks."""
    return [[[INDEX[NAMES[letter]] for letter in way] for way in lexicon.ways[word]] for word in text.split()]


def align_phones(
    log_probs: NDArray[np.float32], ways: Sequence[Sequence[Sequence[int]]], seconds: float
) -> list[TimedWord]:
    """log_probs (T, V) in frames of `seconds`, of each word the ways to say it -> the phones that were said,
    and silence around the words.

    Inside a word a phone lasts until the next begins. UserError where there are fewer frames than phones.
    """
    # where a word begins is known, so it does not matter which of a phone's tokens the model prefers
    heard = phone_log_probs(torch.from_numpy(log_probs)).numpy()
    words = choose_ways(heard, ways)
    spans = align_tokens(heard, [phone for word in words for phone in word])
    last = {end - 1 for end in np.cumsum([len(word) for word in words]).tolist()}
    starts = [span.start for span in spans]
    ends = [
        span.end if index in last else after
        for index, (span, after) in enumerate(zip(spans, [*starts[1:], 0], strict=True))
    ]
    edges = [0, *(edge for pair in zip(starts, ends, strict=True) for edge in pair), len(log_probs)]
    labels = [SILENCE, *(label for span in spans for label in (span.token, SILENCE))]
    return [
        TimedWord(PHONES[label], start * seconds, end * seconds)
        for label, (start, end) in zip(labels, pairwise(edges), strict=True)
        if end > start
    ]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="data_prep.phone_alignment", description=DESCRIPTION)
    parser.add_argument("--model", type=Path, required=True, metavar="BUNDLE")
    parser.add_argument("--cuts", type=Path, nargs="+", required=True, metavar="MANIFEST")
    parser.add_argument("--known", type=Path, nargs="*", default=[], metavar="CTM", help="leave these out")
    parser.add_argument("--lexicon", type=Path, metavar="LEXICON", help="in place of the model's")
    parser.add_argument("--output", type=Path, required=True, metavar="CTM")
    args = parser.parse_args(argv)
    bundle = load_bundle(args.model)
    model, tokenizer = bundle.model, bundle.tokenizer
    if not isinstance(tokenizer, PhoneTokenizer):
        raise UserError(f"{args.model}: its tokens are no phones; train a model with a lexicon as tokenizer")
    lexicon = Lexicon.load(args.lexicon) if args.lexicon else tokenizer.lexicon
    known = read_phone_times(args.known)
    cuts = [cut for cut in load_cuts(args.cuts) if cut.id not in known and cut.supervisions[0].text]
    utterances = Utterances(cuts, [[]] * len(cuts), model.config.frontend.rate)
    lines, left_out = [], 0
    with progress() as bar:
        for row in bar.track(range(len(cuts)), description="aligning"):
            try:
                words = pronounce(cuts[row].supervisions[0].text or "", lexicon)
            except KeyError:
                left_out += 1
                continue
            log_probs = emissions(model, [utterances.audio(row)])
            try:
                phones = align_phones(log_probs, words, model.frame_seconds)
            except UserError:
                left_out += 1
                continue
            lines.append(ctm(cuts[row].id, phones))
    args.output.parent.mkdir(parents=True, exist_ok=True)
    write_text(args.output, "".join(lines))
    print(f"{args.output}: {len(lines)} utterances, {left_out} left out")
    return 0


if __name__ == "__main__":
    run(main)
