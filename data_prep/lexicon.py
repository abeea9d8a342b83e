"""How the words of a text are pronounced: CMUdict, and espeak-ng for what it lacks.

    pip install pocketsphinx espeakng-loader
    python -m data_prep.lexicon --text books.txt.xz --output exp/lexicon.txt

PocketSphinx's wheel carries the dictionary (BSD 2-clause, Carnegie Mellon University). The output has a line
a pronunciation, `word phone phone ...`, in CMUdict's phones without stress.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from pathlib import Path

from asr.cli import at_least, run
from asr.errors import UserError
from asr.evaluation.results import write_text
from asr.lm import sentences
from data_prep.common import progress
from data_prep.demo import Espeak
from data_prep.reference_alignment import arpabet

DESCRIPTION = "Write a lexicon of the words of texts."


def cmudict() -> dict[str, list[str]]:
    """Word -> its pronunciations, phones joined by spaces."""
    try:
        from pocketsphinx import get_model_path
    except ImportError as error:
        raise UserError("the dictionary comes with PocketSphinx 5: pip install pocketsphinx") from error
    words: dict[str, list[str]] = {}
    for line in Path(get_model_path("en-us/cmudict-en-us.dict")).read_text(encoding="utf-8").splitlines():
        word, *phones = line.split()
        words.setdefault(re.sub(r"\(\d+\)$", "", word), []).append(" ".join(phones))
    return words


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="data_prep.lexicon", description=DESCRIPTION)
    parser.add_argument(
        "--text", type=Path, nargs="+", required=True, metavar="FILE", help=".txt, .gz or .xz"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="LEXICON")
    parser.add_argument(
        "--least", type=at_least(1, int), default=3, help="how often espeak-ng's words have to occur (3)"
    )
    args = parser.parse_args(argv)
    known, counts = cmudict(), Counter[str]()
    for path in args.text:
        for line in sentences(path):
            counts.update(line.decode().split())
    espeak: Espeak | None = None
    lines: list[str] = []
    guessed, unknown = 0, 0
    with progress() as bar:
        for word in bar.track(sorted(counts), description="pronouncing"):
            ways = known.get(word, [])
            if not ways and counts[word] >= args.least:
                espeak = espeak or Espeak()
                try:
                    ways = [arpabet(espeak.ipa(word, "en-us"))]
                    guessed += 1
                except UserError:  # a sound that English has not
                    unknown += 1
            lines += [f"{word} {phones}\n" for phones in ways if phones]
    args.output.parent.mkdir(parents=True, exist_ok=True)
    write_text(args.output, "".join(lines))
    print(
        f"{args.output}: {len(lines)} pronunciations, {guessed} words by espeak-ng; {unknown} it cannot say"
    )
    return 0


if __name__ == "__main__":
    run(main)
