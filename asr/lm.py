"""`asr lm`: estimate an n-gram language model from text, convert an ARPA file, tell a text's perplexity."""

from __future__ import annotations

import argparse
import math
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from asr.cli import at_least
from asr.decoding.estimator import Estimation, Estimator
from asr.decoding.language_model import FLOATS, MAX_ORDER, LanguageModel, Perplexity, blocks, read_arpa
from asr.errors import UserError
from asr.text import normalise

DESCRIPTION = (
    "Estimate an n-gram language model from text (modified Kneser-Ney), convert an ARPA file to our binary,"
    " or tell a text's perplexity. TEXT is a file, a sentence a line, also .gz or .xz; - is standard input."
)
STDIN = Path("-")

_PLAIN = b"abcdefghijklmnopqrstuvwxyz' "
_APOSTROPHE_AT_EDGE = re.compile(rb"(?<![a-z])'|'(?![a-z])")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


# Text


def sentences(
    path: Path, verbatim: bool = False, progress: Callable[[int], None] | None = None
) -> Iterator[bytes]:
    """The lines of a text in UTF-8, normalised unless `verbatim`. Raises UserError that names the line."""
    rest, number = b"", 0
    for block in _standard_input() if path == STDIN else blocks(path, progress):
        *lines, rest = (rest + block).split(b"\n")
        for number, line in enumerate(lines, start=number + 1):  # noqa: B020
            yield _sentence(line, verbatim, path, number)
    if rest:
        yield _sentence(rest, verbatim, path, number + 1)


def _sentence(line: bytes, verbatim: bool, path: Path, number: int) -> bytes:
    # `normalise` takes 50 us a line, and most lines of most texts need none of it.
    lowered = line.lower()
    if not verbatim and not lowered.translate(None, _PLAIN) and not _APOSTROPHE_AT_EDGE.search(lowered):
        return lowered
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        name = "standard input" if path == STDIN else path
        raise UserError(
            f"{name}, line {number}: not UTF-8 (byte {error.start}): convert it with iconv"
        ) from error
    return " ".join(text.split()).encode() if verbatim else normalise(text).encode()


def _standard_input() -> Iterator[bytes]:
    while block := sys.stdin.buffer.read(2**20):
        yield block


# The command


class Bar:
    """What is being done, on a terminal; nothing in a log file."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        self._bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bar.add_task("", total=None)

    def __enter__(self) -> Bar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, phase: str, done: int, total: int) -> None:
        self._bar.update(self._task, description=phase, completed=done, total=total or None)


def estimate(
    texts: list[Path],
    estimation: Estimation,
    output: Path | None = None,
    arpa: Path | None = None,
    bits: int = 8,
    verbatim: bool = False,
) -> None:
    """Estimate a model and write it; prints what it is. Raises UserError."""
    began = time.monotonic()
    for path in filter(None, (arpa, output)):
        make_room(path)
    with Bar() as bar, closing(Estimator(estimation, bar.show)) as estimator:
        words = 0
        for path in texts:
            size = 0 if path == STDIN or not path.is_file() else path.stat().st_size
            lines = sentences(path, verbatim, lambda done: bar.show(f"reading {path}", done, size))  # noqa: B023
            while some := list(islice(lines, 10_000)):
                words = estimator.feed(some)
        if not words:
            raise UserError(f"{', '.join(map(str, texts))}: no word in it to estimate a model from")
        cut = estimator.run()
        for order in estimator.without_discounts():
            print(f"the text is too small for the discounts of order {order}: 0.5, 1 and 1.5 are taken")
        counts = estimator.counts()
        if arpa:
            bar.show(f"writing {arpa}", 0, 0)
            estimator.write_arpa(arpa)
        if output:
            bar.show(f"writing {output}", 0, 0)
            estimator.build(output, bits)
    ngrams = " ".join(f"{count:,}" for count in counts)
    seconds = time.monotonic() - began
    print(f"{words:,} words, {cut / words:.2%} of them <unk>; n-grams: {ngrams}; {seconds:.0f} s")
    for path in filter(None, (arpa, output)):
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


def measure(model: LanguageModel, texts: list[Path], verbatim: bool = False) -> Perplexity:
    """The perplexity of texts. Raises UserError where there is no word."""
    lines = (line.decode() for path in texts for line in sentences(path, verbatim))
    perplexity = model.perplexity(lines)
    if not perplexity.words:
        raise UserError(f"{', '.join(map(str, texts))}: no word in it to tell a perplexity of")
    return perplexity


def make_room(path: Path) -> None:
    """Make the folder, and find out before the work is done that nothing can be written there."""
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.touch()
        partial.unlink()
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from error


def read_words(path: Path, verbatim: bool = False) -> tuple[str, ...]:
    """A vocabulary: words between any white space, normalised as the text is."""
    words = b" ".join(sentences(path, verbatim)).decode().split()
    if not words:
        raise UserError(f"{path}: no word in it for a vocabulary")
    return tuple(words)


def read_frequencies(path: Path, verbatim: bool = False) -> tuple[tuple[str, float], ...]:
    """How often words are in other text: lines of a word and a number, words normalised as the text is."""
    found = []
    for number, line in enumerate(sentences(path, verbatim=True), 1):
        word, _, times = line.decode().removeprefix("\ufeff").rpartition(" ")
        try:
            often = float(times)
        except ValueError:
            often = math.nan
        if not word or not 0 <= often < math.inf:
            raise UserError(
                f"{path}, line {number}: a line is a word and how often it is there, as: video 365"
            )
        found.append((word if verbatim else normalise(word), often))
    if not found:
        raise UserError(f"{path}: no word in it")
    return tuple((word, often) for word, often in found if word and " " not in word)


def memory_size(text: str) -> int:
    """Bytes, as 500M or 2G."""
    number, unit = (text[:-1], text[-1].upper()) if text[-1:].isalpha() else (text, "")
    try:
        size = int(float(number) * {"": 1, **_UNITS}[unit])
    except (ValueError, KeyError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no size: write 500M or 2G") from error
    if size < 2**20:
        raise argparse.ArgumentTypeError(f"{text} is below 1M")
    return size


def number_of_bits(text: str) -> int:
    bits = int(text)
    if bits not in (*range(2, 17), FLOATS):
        raise argparse.ArgumentTypeError(f"{text} is not 2 to 16, nor {FLOATS}")
    return bits


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="asr lm", description=DESCRIPTION)
    parser.add_argument("text", type=Path, nargs="*", metavar="TEXT", help="to estimate from")
    parser.add_argument("--output", type=Path, metavar="FILE", help="the binary to write, model.bin")
    parser.add_argument("--arpa", type=Path, metavar="FILE", help="the ARPA file to write, also .gz or .xz")
    parser.add_argument(
        "--order", type=int, choices=range(1, MAX_ORDER + 1), default=4, help="default %(default)s"
    )
    parser.add_argument(
        "--prune",
        type=at_least(0, int),
        nargs="+",
        default=[],
        metavar="COUNT",
        help="drop n-grams of order 1, 2, ... seen so often or less, as 0 0 1; words dropped so become <unk>",
    )
    parser.add_argument(
        "--prune-entropy",
        type=at_least(0, float),
        default=0.0,
        metavar="SHARE",
        help="drop n-grams whose loss raises the perplexity by less than this share, as 1e-8",
    )
    parser.add_argument(
        "--vocabulary",
        metavar="N|FILE",
        help="the N most frequent words, or those of a file; others are <unk>",
    )
    parser.add_argument(
        "--frequencies",
        type=Path,
        metavar="FILE",
        help="how often words are in other text, a word and a number a line: 0.15 of how likely they are by"
        " themselves, for words that the text lacks or hardly has",
    )
    parser.add_argument(
        "--bits",
        type=number_of_bits,
        default=8,
        help=f"of a number in the binary; {FLOATS}: exact (%(default)s)",
    )
    parser.add_argument(
        "--memory", type=memory_size, default=2**30, help="to sort in (1G); $TMPDIR takes the rest"
    )
    parser.add_argument(
        "--verbatim", action="store_true", help="take the text as it is, and do not normalise it"
    )
    parser.add_argument(
        "--model", type=Path, metavar="FILE", help="a model that is there, for --perplexity or --output"
    )
    parser.add_argument(
        "--perplexity", type=Path, nargs="+", default=[], metavar="TEXT", help="texts to tell it of"
    )
    args = parser.parse_args(argv)
    if bool(args.text) == bool(args.model):
        raise UserError("give either TEXT to estimate a model from, or --model and what to do with it")
    if args.model:
        if args.arpa or not (args.output or args.perplexity):
            raise UserError("--model: give --output to convert an ARPA file, or --perplexity, or both")
        model = convert(args.model, args.output, args.bits) if args.output else LanguageModel.open(args.model)
    else:
        if not (args.output or args.arpa):
            raise UserError("give --output or --arpa: there is nothing to write")
        vocabulary = args.vocabulary or "0"
        most, only = (
            (int(vocabulary), ())
            if vocabulary.isdecimal()
            else (0, read_words(Path(vocabulary), args.verbatim))
        )
        elsewhere = read_frequencies(args.frequencies, args.verbatim) if args.frequencies else ()
        estimation = Estimation(
            args.order, tuple(args.prune), args.prune_entropy, most, only, elsewhere, args.memory
        )
        estimate(args.text, estimation, args.output, args.arpa, args.bits, args.verbatim)
        if not args.perplexity:
            return 0
        model = LanguageModel.open(args.output or args.arpa)
    if args.perplexity:
        print(describe(measure(model, args.perplexity, args.verbatim)))
    return 0


def convert(path: Path, output: Path, bits: int) -> LanguageModel:
    """An ARPA file as our binary; prints what it is."""
    make_room(output)
    with Bar() as bar:
        model = read_arpa(
            path, output, bits, lambda done: bar.show(f"reading {path}", done, path.stat().st_size)
        )
    ngrams = " ".join(f"{count:,}" for count in model.counts)
    print(f"{output}: n-grams: {ngrams}; {output.stat().st_size / 1e6:.1f} MB")
    return model


def describe(measured: Perplexity) -> str:
    share = measured.unknown / measured.words
    return (
        f"{measured.sentences:,} sentences, {measured.words:,} words, {measured.unknown:,} of them unknown"
        f" ({share:.2%}); perplexity {measured.without_unknown:.2f} without the unknown words,"
        f" {measured.with_unknown:.2f} with them as <unk>"
    )
