"""How often the 95 % interval of `asr evaluate` holds the true error rate, in simulated corpora.

    python -m benchmarks.interval_coverage [--corpora 1000] [--output FILE]

Every speaker has an error rate of its own, Beta with mean 20 % and standard deviation 8.7 %, and says 10
utterances of 10 words. Prints, for each number of speakers, the coverage resampling speakers and utterances.
"""

from __future__ import annotations

import argparse

import numpy as np

from asr.cli import run
from asr.evaluation.bootstrap import confidence_interval, groups
from benchmarks.common import add_output, check_output, write_json

RATE, SPREAD, UTTERANCES, WORDS = 0.2, 20, 10, 10


def simulated(seed: int, speakers: int, spread: float = SPREAD) -> list[int]:
    """Errors of each utterance."""
    random = np.random.default_rng(seed)
    rates = random.beta(RATE * spread, (1 - RATE) * spread, size=speakers)
    return random.binomial(WORDS, np.repeat(rates, UTTERANCES)).tolist()


def coverage(speakers: int, known: bool, corpora: int) -> float:
    """The share of corpora whose interval holds RATE, speakers being known or not."""
    count = speakers * UTTERANCES
    resampled = groups([str(number // UTTERANCES) if known else None for number in range(count)])
    covered = 0
    for seed in range(corpora):
        interval = confidence_interval(simulated(seed, speakers), [WORDS] * count, resampled, resamples=500)
        covered += interval is not None and interval.low <= RATE <= interval.high
    return covered / corpora


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpora", type=int, default=1000)
    add_output(parser)
    args = parser.parse_args(argv)
    check_output(args.output)
    print("speakers  over speakers  over utterances")
    rows = []
    for speakers in (5, 10, 20, 30, 100):
        known, unknown = (coverage(speakers, each, args.corpora) for each in (True, False))
        print(f"{speakers:8}{100 * known:13.1f} %{100 * unknown:13.1f} %", flush=True)
        rows.append({"speakers": speakers, "over_speakers": known, "over_utterances": unknown})
    write_json(args.output, "interval_coverage", "coverage of 95 % intervals", argv, rows)
    return 0


if __name__ == "__main__":
    run(main)
