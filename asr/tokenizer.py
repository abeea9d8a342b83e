"""`asr tokenizer`: train the SentencePiece tokenizer on the texts of manifests and on other text."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from asr.cli import at_least
from asr.data.manifest import load_cuts
from asr.lm import sentences
from asr.text import train_tokenizer


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="asr tokenizer", description=__doc__)
    parser.add_argument("--cuts", type=Path, nargs="+", default=[], help="manifests, *.jsonl.gz")
    parser.add_argument("--text", type=Path, nargs="+", default=[], help="a sentence a line; .txt, .gz, .xz")
    parser.add_argument("--sentences", type=at_least(1, int), metavar="N", help="only the first of a text")
    parser.add_argument("--output", type=Path, required=True, help="the model to write, tokenizer.model")
    parser.add_argument("--vocabulary", type=int, default=256, help="tokens, with blank and unknown")
    parser.add_argument("--kind", choices=["unigram", "bpe", "char", "word"], default="unigram")
    args = parser.parse_args(argv)
    if not args.cuts and not args.text:
        parser.error("give --cuts MANIFEST or --text FILE")
    texts = said(args.cuts, args.text, args.sentences)
    tokenizer = train_tokenizer(texts, args.output, args.vocabulary, args.kind)
    print(f"{args.output}: {tokenizer.vocabulary} tokens")
    return 0


def said(manifests: list[Path], texts: list[Path], most: int | None) -> Iterator[str]:
    for cut in load_cuts(manifests) if manifests else ():
        yield cut.supervisions[0].text or ""
    for path in texts:
        yield from (line.decode() for line in islice(sentences(path), most))
