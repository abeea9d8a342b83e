"""How often words are said in each of their ways, counted where an aligner heard them, into a lexicon.

    python -m data_prep.pronunciation_shares --lexicon exp/lexicon.txt --cuts data/train.jsonl.gz \\
        --phones exp/phones.ctm --output exp/bundle/lexicon.txt

Shares are those of Kaldi's lexiconp.txt (Chen et al. 2015, "Pronunciation and silence probability modeling
for ASR"): a way's count and one more, or what the lexicon says already in place of one, over that of the
usual way, which comes first. Words with one way, and those that are never said, stay as they are.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from asr.cli import run
from asr.data.manifest import load_cuts
from asr.data.phones import read_phone_times
from asr.evaluation.results import write_text
from asr.lexicon import Lexicon

DESCRIPTION = "Count in alignments in which way words are said, and write the shares into a lexicon."


def counted(said: Iterable[tuple[str, str]], lexicon: Lexicon) -> Counter[tuple[str, str]]:
    """Texts, and the letters of the phones that were heard -> (word, pronunciation), how often."""
    counts = Counter[tuple[str, str]]()
    for text, heard in said:
        words = text.split()
        counts.update(zip(words, lexicon.ways_of(words, heard) or [], strict=False))
    return counts


def with_shares(lexicon: Lexicon, counts: Mapping[tuple[str, str], int]) -> Lexicon:
    """The lexicon with each word's usual way first, and the others' shares of it."""
    ways: dict[str, tuple[str, ...]] = {}
    shares: dict[tuple[str, str], float] = {}
    for word, own in lexicon.ways.items():
        times = {way: counts.get((word, way), 0) + lexicon.share(word, way) for way in own}
        ways[word] = (*sorted(own, key=lambda way: -times[way]),)
        usual = times[ways[word][0]]
        shares |= {(word, way): times[way] / usual for way in own if times[way] < usual}
    return Lexicon(ways, shares)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="data_prep.pronunciation_shares", description=DESCRIPTION)
    parser.add_argument("--lexicon", type=Path, required=True, metavar="LEXICON")
    parser.add_argument("--cuts", type=Path, nargs="+", required=True, metavar="MANIFEST")
    parser.add_argument("--phones", type=Path, nargs="+", required=True, metavar="CTM")
    parser.add_argument("--output", type=Path, required=True, metavar="LEXICON")
    args = parser.parse_args(argv)
    lexicon, times = Lexicon.load(args.lexicon), read_phone_times(args.phones)
    texts = (
        (cut.supervisions[0].text or "", times[cut.id].said)
        for cut in load_cuts(args.cuts)
        if cut.id in times
    )
    counts = counted(texts, lexicon)
    shared = with_shares(lexicon, counts)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    write_text(args.output, "".join(shared.lines()))
    changed = sum(shared.ways[word][0] != ways[0] for word, ways in lexicon.ways.items())
    print(
        f"{args.output}: {sum(counts.values())} words said, {len(shared.shares)} shares,"
        f" {changed} words whose usual way is another one"
    )
    return 0


if __name__ == "__main__":
    run(main)
