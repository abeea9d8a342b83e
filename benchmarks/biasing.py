"""What hotwords gain and cost: rare words listed among distractors, in the way of arXiv 2104.02194.

    python -m benchmarks.emissions --model BUNDLE --cuts data/dev-clean.jsonl.gz --output exp/dev.npz
    python -m benchmarks.biasing --emissions exp/dev.npz --text lm/books.txt.xz --lm exp/lm.bin

Rare is what is not among the 5000 most common words of `--text`. The list of an utterance holds the rare
words of its reference, and N others drawn from the rare words of the text; lists of a smaller N are part of
those of a larger one. B-WER is over listed words of the references, U-WER over all others; "said nowhere"
are listed words in the hypotheses that are not in the references, per 1000 words. Intervals: 95 %, bootstrap
over speakers.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from asr.cli import at_least, run
from asr.decoding.beam import BeamDecoder
from asr.decoding.config import DecodingConfig
from asr.decoding.hotwords import Hotword, spellable
from asr.decoding.language_model import LanguageModel
from asr.evaluation import bootstrap
from asr.evaluation.biasing import score_biasing
from asr.evaluation.wer import Utterance, score
from asr.lm import sentences
from benchmarks.common import add_output, check_output, write_json
from benchmarks.emissions import Emissions, Spoken, add_settings, chosen_settings, read_emissions

COMMON = 5000
Lists = Mapping[str, tuple[str, ...]]  # utt_id -> listed words


@dataclass(frozen=True)
class Estimate:
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Rates:
    """Fractions; `false` is one of the words of the references."""

    wer: Estimate
    u_wer: Estimate
    b_wer: Estimate
    recall: Estimate
    false: Estimate


@dataclass(frozen=True)
class Row:
    language_model: bool
    boost: float | None  # nats a letter; None: no list
    distractors: int | None
    rates: Rates


def count_words(path: Path) -> Counter[str]:
    """Of a text, plain or packed with gzip or xz."""
    counts: Counter[str] = Counter()
    for sentence in sentences(path):
        counts.update(sentence.decode().split())
    return counts


def biasing_lists(
    references: Mapping[str, str], counts: Counter[str], letters: frozenset[str], largest: int
) -> Callable[[int], Lists]:
    """A function from a number of distractors, at most `largest`, to the list of each utterance.

    counts: of the words of the text. letters: those that the tokenizer has; other words cannot be listed.
    """
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    common = frozenset(ranked[:COMMON])
    pool = sorted(word for word in ranked[COMMON:] if letters.issuperset(word))
    said, drawn = {}, {}
    for utt_id, text in references.items():
        words = set(text.split())
        said[utt_id] = sorted(word for word in words - common if letters.issuperset(word))
        sample = random.Random(utt_id).sample(pool, min(len(pool), largest + len(words)))
        drawn[utt_id] = [word for word in sample if word not in words]
    return lambda count: {utt_id: (*said[utt_id], *drawn[utt_id][:count]) for utt_id in references}


def write_lists(path: Path, lists: Lists) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (f"{utt_id}\t{'|'.join(words)}\n" for utt_id, words in lists.items() if words)
    path.write_text("".join(lines), encoding="utf-8")


def decode(
    emissions: Emissions,
    config: DecodingConfig,
    language_model: LanguageModel | None,
    lists: Lists,
    jobs: int,
) -> list[Utterance]:
    """Every utterance as a stream of its own; `jobs` threads, since the search runs outside Python's lock."""

    def one(spoken: Spoken) -> Utterance:
        hotwords = [Hotword(word) for word in lists.get(spoken.utt_id, ())]
        decoder = BeamDecoder(emissions.pieces, config, language_model, hotwords)
        decoder.accept(spoken.log_probs)
        decoder.flush()
        heard = " ".join(word.text for word in decoder.take())
        return Utterance(spoken.utt_id, spoken.speaker, spoken.reference, heard)

    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(one, emissions.utterances))


def evaluate(utterances: Sequence[Utterance], lists: Lists) -> Rates:
    scores = score(utterances)
    biasing = [score_biasing(each.alignment, lists[each.utterance.utt_id]) for each in scores]
    groups = bootstrap.groups([utterance.speaker for utterance in utterances])
    words = [each.words.length for each in scores]
    listed, others = [each.listed for each in biasing], [each.others for each in biasing]
    return Rates(
        wer=estimate([each.words.errors for each in scores], words, groups),
        u_wer=estimate([each.errors for each in others], [each.length for each in others], groups),
        b_wer=estimate([each.errors for each in listed], [each.length for each in listed], groups),
        recall=estimate([each.hits for each in listed], [each.length for each in listed], groups),
        false=estimate([each.claimed - each.listed.hits for each in biasing], words, groups),
    )


def estimate(counts: Sequence[int], lengths: Sequence[int], groups: bootstrap.Groups) -> Estimate:
    interval = bootstrap.confidence_interval(counts, lengths, groups)
    nan = float("nan")
    if interval is None:
        return Estimate(nan, nan, nan)
    return Estimate(sum(counts) / sum(lengths), interval.low, interval.high)


def rows(
    emissions: Emissions,
    config: DecodingConfig,
    language_models: Sequence[LanguageModel | None],
    lists: Callable[[int], Lists],
    distractors: Sequence[int],
    boosts: Sequence[float],
    jobs: int,
) -> Iterator[Row]:
    """Without a list, then every list with every boost; all over again with the language model."""
    for language_model in language_models:
        known = language_model is not None
        found = decode(emissions, config, language_model, {}, jobs)
        yield Row(known, None, None, evaluate(found, lists(0)))
        for boost in boosts:
            for count in distractors:
                boosted = replace(config, hotword_boost=boost)
                found = decode(emissions, boosted, language_model, lists(count), jobs)
                yield Row(known, boost, count, evaluate(found, lists(count)))


HEADER = (
    "| LM | boost | distractors | WER | U-WER | B-WER | recall | said nowhere, per 1000 words |\n"
    "|---|---|---|---|---|---|---|---|"
)


def line(row: Row) -> str:
    rates = row.rates
    percent = [_cell(each, 100, " %") for each in (rates.wer, rates.u_wer, rates.b_wer, rates.recall)]
    listed = ["-", "no list"] if row.boost is None else [f"{row.boost:g}", str(row.distractors)]
    cells = ["yes" if row.language_model else "no", *listed, *percent, _cell(rates.false, 1000, "")]
    return f"| {' | '.join(cells)} |"


def _cell(each: Estimate, scale: float, unit: str) -> str:
    return f"{scale * each.value:.1f}{unit} ({scale * each.low:.1f} - {scale * each.high:.1f})"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="benchmarks.biasing", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_settings(parser)
    parser.add_argument("--text", type=Path, required=True, help="of the language model; plain, .gz or .xz")
    parser.add_argument("--lm", type=Path, help="also decode with this language model")
    parser.add_argument("--distractors", type=at_least(0, int), nargs="+", default=[0, 10, 100, 1000])
    parser.add_argument(
        "--boosts", type=at_least(0, float), nargs="+", help="nats a letter, to try in turn; the bundle's own"
    )
    parser.add_argument("--limit", type=at_least(1, int), help="only so many utterances, spread evenly")
    parser.add_argument("--jobs", type=at_least(1, int), default=1, help="threads")
    parser.add_argument(
        "--lists", type=Path, metavar="DIR", help="write N.tsv, for asr evaluate --hotwords-per-utterance"
    )
    add_output(parser)
    args = parser.parse_args(argv)
    check_output(args.output)
    emissions = read_emissions(args.emissions, args.limit)
    config = chosen_settings(args, emissions.decoding)
    language_models = [None, LanguageModel.open(args.lm)] if args.lm else [None]
    counts, letters = count_words(args.text), spellable(emissions.pieces)
    references = {each.utt_id: each.reference for each in emissions.utterances}
    lists = biasing_lists(references, counts, letters, max(args.distractors))
    rare = sum(len(words) for words in lists(0).values())
    words = sum(len(reference.split()) for reference in references.values())
    print(
        f"{len(references)} utterances, {words} words, {rare} listed; beam {args.beam}; {emissions.origin}\n"
    )
    if args.lists:
        for number in args.distractors:
            write_lists(args.lists / f"{number}.tsv", lists(number))
    print(HEADER, flush=True)
    found = []
    boosts = args.boosts or [config.hotword_boost]
    for row in rows(emissions, config, language_models, lists, args.distractors, boosts, args.jobs):
        print(line(row), flush=True)
        found.append(row)
    about = {"origin": emissions.origin, "config": asdict(config), "words": words, "listed": rare}
    write_json(args.output, "biasing", "what hotwords gain and cost", argv, found, **about)
    return 0


if __name__ == "__main__":
    run(main)
