"""`asr tokenizer`: train the SentencePiece tokenizer on the texts of prepared manifests."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from asr.data.manifest import load_cuts
from asr.text import train_tokenizer


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="asr tokenizer", description=__doc__)
    parser.add_argument("--cuts", type=Path, nargs="+", required=True, help="manifests, *.jsonl.gz")
    parser.add_argument("--output", type=Path, required=True, help="the model to write, tokenizer.model")
    parser.add_argument("--vocabulary", type=int, default=256, help="tokens, with blank and unknown")
    parser.add_argument("--kind", choices=["unigram", "bpe", "char"], default="unigram")
    args = parser.parse_args(argv)
    tokenizer = train_tokenizer(texts(args.cuts), args.output, args.vocabulary, args.kind)
    print(f"{args.output}: {tokenizer.vocabulary} tokens")
    return 0


def texts(manifests: list[Path]) -> Iterator[str]:
    for cut in load_cuts(manifests):
        yield cut.supervisions[0].text
