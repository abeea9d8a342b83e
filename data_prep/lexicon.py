"""How the words of texts and transcripts are pronounced: CMUdict, and espeak-ng for what it lacks.

    pip install pocketsphinx espeakng-loader
    python -m data_prep.lexicon --text books.txt.xz --cuts data/train.jsonl.gz --whole-dictionary \\
        --output exp/lexicon.txt
    python -m data_prep.lexicon --known asr/models/en-small/lexicon.txt --cuts data/mine/train.jsonl.gz \\
        --output exp/mine/lexicon.txt

PocketSphinx's wheel carries the dictionary (BSD 2-clause, Carnegie Mellon University). The output has a line
a pronunciation, `word phone phone ...`, in CMUdict's phones without stress, a word's usual one first. What
`--known` has stands before all else, as it is; where that is every word, neither package is needed.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from pathlib import Path

from asr.cli import at_least, run
from asr.data.manifest import load_cuts
from asr.errors import UserError
from asr.evaluation.results import write_text
from asr.lexicon import Lexicon
from asr.lm import sentences
from asr.pronounce import Espeak, UnknownSound, arpabet
from asr.text import normalise
from data_prep.common import progress, warn

DESCRIPTION = "Write a lexicon of the words of texts and of the transcripts of manifests."


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


def counted(texts: list[Path]) -> Counter[str]:
    """The words of texts, and how often each occurs."""
    counts = Counter[str]()
    for path in texts:
        for line in sentences(path):
            counts.update(line.decode().split())
    return counts


def transcribed(manifests: list[Path]) -> set[str]:
    """The words of the transcripts of manifests."""
    cuts = load_cuts(manifests) if manifests else ()
    return {word for cut in cuts for word in (cut.supervisions[0].text or "").split()}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="data_prep.lexicon", description=DESCRIPTION)
    parser.add_argument("--text", type=Path, nargs="+", default=[], metavar="FILE", help=".txt, .gz or .xz")
    parser.add_argument(
        "--cuts", type=Path, nargs="+", default=[], metavar="MANIFEST", help="all words of their transcripts"
    )
    parser.add_argument("--known", type=Path, metavar="LEXICON", help="to add to what this one has")
    parser.add_argument(
        "--whole-dictionary", action="store_true", help="also the words of CMUdict that occur in none of them"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="LEXICON")
    parser.add_argument(
        "--least",
        type=at_least(1, int),
        default=3,
        help="how often espeak-ng's words have to occur in --text (3)",
    )
    args = parser.parse_args(argv)
    if not args.text and not args.cuts:
        parser.error("give --text FILE or --cuts MANIFEST")
    known = Lexicon.load(args.known) if args.known else Lexicon({})
    counts, said = counted(args.text), transcribed(args.cuts)
    wanted = counts.keys() | said
    dictionary = cmudict() if args.whole_dictionary or wanted - known.ways.keys() else {}
    if args.whole_dictionary:  # not its spellings with dots or hyphens, which transcripts cannot have
        wanted |= {word for word in dictionary if normalise(word) == word}
    missing = sorted(wanted - known.ways.keys())
    espeak: Espeak | None = None
    lines = [*known.lines()]
    guessed, unknown = 0, 0
    with progress() as bar:
        for word in bar.track(missing, description="pronouncing"):
            ways = dictionary.get(word, [])
            if not ways and (word in said or counts[word] >= args.least):
                espeak = espeak or Espeak()
                try:
                    ways = [arpabet(espeak.ipa(word, "en-us"))]
                    guessed += 1
                except UnknownSound as error:
                    warn(f"{word}: {error}")
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
