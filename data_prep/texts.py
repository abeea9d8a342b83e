"""What is said in manifests, a line an utterance: text for language models.

    python -m data_prep.texts data/train.jsonl.gz | asr lm - --output lm.bin

Texts are those of the manifest, as they are.
"""

from __future__ import annotations

import argparse

from asr.cli import run
from asr.data.manifest import load_cuts


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="data_prep.texts", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifests", nargs="+", metavar="MANIFEST")
    for cut in load_cuts(parser.parse_args(argv).manifests):
        print(cut.supervisions[0].text)
    return 0


if __name__ == "__main__":
    run(main)
