"""When each phone of a transcript was said, by a model's own phone layer: for what an aligner left out.

    python -m data_prep.phone_alignment --model exp/phones/bundle --cuts data/train.jsonl.gz \\
        --lexicon exp/lexicon.txt --known exp/phones.ctm --output exp/more-phones.ctm

PocketSphinx finds no path through the phones of one utterance in four (`data_prep.reference_alignment`). A
phone layer that was trained on the others does. Of a word's pronunciations the first is taken; silence may
stand at the ends and between words. Utterances with a word that the lexicon lacks are left out.

K slots of the phone layer, P phones, N phones of an utterance.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asr.cli import run
from asr.data.datamodule import read_phone_times
from asr.data.dataset import Utterances
from asr.data.manifest import load_cuts
from asr.data.spoken_text import Pronunciations, read_lexicon
from asr.evaluation.results import write_text
from asr.phones import PHONES, SILENCE
from data_prep.common import progress
from data_prep.phone_bank import load, posteriors
from data_prep.reference_alignment import TimedWord, ctm

DESCRIPTION = "Align phones with a model's phone layer and write their times as CTM."


def expected(text: str, lexicon: dict[str, Pronunciations]) -> list[int]:
    """Phones of a text, silence before, between and after its words. KeyError for an unknown word."""
    phones = [SILENCE]
    for word in text.split():
        phones += [*lexicon[word][0], SILENCE]
    return phones


def viterbi(log_probs: NDArray[np.float32], phones: Sequence[int]) -> list[tuple[int, int, int]] | None:
    """The best path of log_probs (K, P) through `phones` (N,), each a slot at least, silence optional.

    Returns phone, first slot, and the slot after the last; None if there are fewer slots than phones.
    """
    names = np.array(phones)
    scores = log_probs[:, names]  # (K, N)
    count, size = scores.shape
    optional = names == SILENCE
    best = np.full(size, -np.inf)
    best[: 2 if optional[0] else 1] = scores[0, : 2 if optional[0] else 1]
    steps = np.zeros((count, size), np.int8)  # how many phones back the path comes from
    skippable = np.append(False, optional[:-1])
    for slot in range(1, count):
        ways = np.full((3, size), -np.inf)
        ways[0] = best
        ways[1, 1:] = best[:-1]
        ways[2, 2:] = np.where(skippable[2:], best[:-2], -np.inf)
        steps[slot] = ways.argmax(0)
        best = ways.max(0) + scores[slot]
    last = size - 1
    if optional[last] and best[last - 1] > best[last]:
        last -= 1
    if not np.isfinite(best[last]):
        return None
    path = [last]
    for slot in range(count - 1, 0, -1):
        path.append(path[-1] - int(steps[slot, path[-1]]))
    path.reverse()
    edges = [0, *(np.flatnonzero(np.diff(path)) + 1).tolist(), count]
    return [(int(names[path[a]]), a, b) for a, b in pairwise(edges)]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="data_prep.phone_alignment", description=DESCRIPTION)
    parser.add_argument("--model", type=Path, required=True, metavar="BUNDLE")
    parser.add_argument("--cuts", type=Path, nargs="+", required=True, metavar="MANIFEST")
    parser.add_argument("--lexicon", type=Path, required=True)
    parser.add_argument("--known", type=Path, nargs="*", default=[], metavar="CTM", help="leave these out")
    parser.add_argument("--output", type=Path, required=True, metavar="CTM")
    args = parser.parse_args(argv)
    (model, seconds), lexicon = load(args.model), read_lexicon(args.lexicon)
    known = read_phone_times(args.known)
    cuts = [cut for cut in load_cuts(args.cuts) if cut.id not in known and cut.supervisions[0].text]
    utterances = Utterances(cuts, [[]] * len(cuts), model.config.frontend.rate)
    lines, left_out = [], 0
    with progress() as bar:
        for row in bar.track(range(len(cuts)), description="aligning"):
            try:
                phones = expected(cuts[row].supervisions[0].text or "", lexicon)
            except KeyError:
                left_out += 1
                continue
            audio = utterances.audio(row)
            slots = -(-len(audio) // round(seconds * model.config.frontend.rate))
            heard = posteriors(model, audio)[:slots]
            path = viterbi(np.log((heard + 0.5) / 255).astype(np.float32), phones)
            if path is None:
                left_out += 1
                continue
            timed = [TimedWord(PHONES[phone], a * seconds, b * seconds) for phone, a, b in path]
            lines.append(ctm(cuts[row].id, timed))
    args.output.parent.mkdir(parents=True, exist_ok=True)
    write_text(args.output, "".join(lines))
    print(f"{args.output}: {len(lines)} utterances, {left_out} left out")
    return 0


if __name__ == "__main__":
    run(main)
