"""LibriSpeech's published n-gram language models: download one, and convert it to our binary.

    python -m data_prep.librispeech_lm 3-gram.pruned.1e-7 --output-dir data/lm

The models are those of OpenSLR (https://www.openslr.org/11), estimated from 14,500 books. The two unpruned
ones are 0.8 and 1.3 GB packed, and need several GB of $TMPDIR. Their words are upper case, and are converted.
"""

from __future__ import annotations

import argparse
import gzip
import urllib.error
import urllib.request
import zlib
from pathlib import Path

from lhotse.utils import resumable_download

from asr.cli import run
from asr.errors import UserError
from asr.lm import convert
from data_prep.common import progress, warn

DESCRIPTION = "Download a language model of LibriSpeech's, and convert it to our binary."
MIRROR = "https://www.openslr.org/resources/11"
MODELS = ("3-gram.pruned.3e-7", "3-gram.pruned.1e-7", "3-gram", "4-gram")


def download_model(model: str, folder: Path, mirror: str = MIRROR) -> Path:
    """Fetch MODEL.arpa.gz, or what is missing of it; OpenSLR publishes no sums, gzip's own are checked."""
    folder.mkdir(parents=True, exist_ok=True)
    packed = folder / f"{model}.arpa.gz"
    checked = packed.with_name(packed.name + ".checked")
    if packed.is_file() and checked.is_file():
        return packed
    url = f"{mirror}/{packed.name}"
    if not (packed.is_file() and _is_whole(packed)):
        try:
            resumable_download(url, filename=packed, completed_file_size=_size(url))
        except (OSError, urllib.error.URLError) as error:
            hint = "run again to resume, or try --mirror"
            raise UserError(f"{url}: cannot be downloaded ({error}): {hint}") from error
        if not _is_whole(packed):
            hint = "run again to resume; if this line returns, delete the file first"
            raise UserError(f"{packed}: incomplete or damaged: {hint}")
    checked.touch()
    return packed


def _size(url: str) -> int | None:
    with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=60) as answer:
        length = answer.headers.get("Content-Length")
    return int(length) if length else None


def _is_whole(packed: Path) -> bool:
    """Whether gzip's length and check sum at the end are right."""
    try:
        with open(packed, "rb") as raw, gzip.GzipFile(fileobj=raw) as text, progress() as bar:
            task = bar.add_task(f"checking {packed.name}", total=packed.stat().st_size)
            while text.read(2**22):
                bar.update(task, completed=raw.tell())
    except (EOFError, gzip.BadGzipFile, zlib.error):
        return False
    return True


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m data_prep.librispeech_lm", description=DESCRIPTION)
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("--output-dir", type=Path, required=True, help="for MODEL.arpa.gz and MODEL.bin")
    parser.add_argument("--mirror", default=MIRROR, help="address in front of the file's name (%(default)s)")
    args = parser.parse_args(argv)
    packed = download_model(args.model, args.output_dir, args.mirror)
    output = args.output_dir / f"{args.model}.bin"
    if output.is_file() and output.stat().st_mtime >= packed.stat().st_mtime:
        warn(f"{output}: up to date, kept")
        return 0
    convert(packed, output, bits=8)
    return 0


if __name__ == "__main__":
    run(main)
