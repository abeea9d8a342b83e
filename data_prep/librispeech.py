"""LibriSpeech and Mini LibriSpeech: download (or take a tree that is there), and write one manifest a part.

    python -m data_prep.librispeech --parts train-clean-5 dev-clean-2 --output-dir data/librispeech

The archives come from OpenSLR (https://www.openslr.org/12, /31) through Lhotse's resumable download, and
their MD5 sums are compared with those that OpenSLR publishes. A tree of that layout, or part of it, will do:
<part>/<speaker>/<chapter>/ with <speaker>-<chapter>-<number>.flac and <speaker>-<chapter>.trans.txt.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from lhotse import CutSet
from lhotse.cut.data import DataCut
from lhotse.utils import resumable_download, safe_extract

from asr.cli import run
from asr.data.manifest import write_cuts
from asr.errors import UserError
from asr.text import normalise
from data_prep.common import progress, utterance, warn

DESCRIPTION = "Download LibriSpeech or Mini LibriSpeech, or take a tree, and write a manifest a part."
MIRROR = "https://www.openslr.org/resources"
ARCHIVES = {  # part: (OpenSLR's resource, the MD5 sum in its md5sum.txt)
    "train-clean-5": (31, "5df7d4e78065366204ca6845bb08f490"),
    "dev-clean-2": (31, "6d7ab67ac6a1d2c993d050e16d61080d"),
    "train-clean-100": (12, "2a93770f6d5c6c964bc36631d331a522"),
    "train-clean-360": (12, "c0e676e450a7ff2f54aeade5171606fa"),
    "train-other-500": (12, "d1a0fd59409feb2c614ce4d30c387708"),
    "dev-clean": (12, "42e2234ba48799c1f50f24a7926300a1"),
    "dev-other": (12, "c8d0bcc9cca99d4f8b62fcc847357931"),
    "test-clean": (12, "32fa31d27d2e1cad72775fee3f4849a9"),
    "test-other": (12, "fb5a50374b501bb3bac4815ee91d3135"),
}


class Utterance(NamedTuple):
    """A line of a transcript and the file it belongs to."""

    name: str
    path: Path
    text: str


# The tree


def transcripts(part: Path) -> Iterator[Utterance]:
    """Every line of every transcript of a part, in the order of speakers, chapters and utterances."""
    for path in sorted(part.glob("*/*/*.trans.txt")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if not line.strip():
                continue
            name, _, text = line.strip().partition(" ")
            if not text:
                raise UserError(f"{path}, line {number}: {line!r} has no text: unpack the corpus again")
            yield Utterance(name, path.parent / f"{name}.flac", text)


# From tree to manifest


def prepare_part(part: Path, manifest: Path, force: bool = False) -> int:
    """Write the manifest of one part, e.g. LibriSpeech/dev-clean; returns how many files were unreadable.

    A manifest that already says what the tree says is kept. Lines without audio are counted and left out
    (half a part is normal); unreadable audio is named and left out. Raises UserError if nothing is left.
    """
    wanted, absent = _with_audio(part)
    if not wanted:
        raise UserError(f"{part}: no utterance in it: expected <speaker>/<chapter>/*.flac and *.trans.txt")
    if absent:
        warn(f"{part}: {absent} of {absent + len(wanted)} utterances have no audio here, and are left out")
    if not force and _is_current(manifest, wanted):
        print(f"{manifest}: up to date, kept ({len(wanted)} utterances; --force makes it again)")
        return 0
    cuts, bad = _cuts(wanted, part.name)
    if not cuts:
        raise UserError(f"{part}: none of its {bad} files can be read: unpack the corpus again")
    write_cuts(CutSet.from_cuts(cuts), manifest)
    hours = sum(cut.duration for cut in cuts) / 3600
    speakers = len({cut.supervisions[0].speaker for cut in cuts})
    print(f"{manifest}: {len(cuts)} utterances, {hours:.2f} h, {speakers} speakers, {bad} unreadable files")
    return bad


def _with_audio(part: Path) -> tuple[list[Utterance], int]:
    present = {entry for folder in part.glob("*/*/") for entry in folder.glob("*.flac")}
    lines = list(transcripts(part))
    wanted = [line for line in lines if line.path in present]
    return wanted, len(lines) - len(wanted)


def _cuts(wanted: list[Utterance], title: str) -> tuple[list[DataCut], int]:
    cuts = []
    with ThreadPoolExecutor(os.cpu_count()) as pool, progress() as bar:
        for cut in bar.track(pool.map(_cut, wanted), total=len(wanted), description=title):
            if isinstance(cut, UserError):
                warn(str(cut))
            else:
                cuts.append(cut)
    return cuts, len(wanted) - len(cuts)


def _cut(line: Utterance) -> DataCut | UserError:
    try:
        return utterance(line.name, line.path, line.text, speaker=line.name.split("-")[0], language="en")
    except UserError as error:
        return error


def _is_current(manifest: Path, wanted: list[Utterance]) -> bool:
    """Whether the manifest has just these utterances, texts and paths, and no file has changed since."""
    if not manifest.is_file():
        return False
    made = manifest.stat().st_mtime
    if any(line.path.stat().st_mtime > made for line in wanted):
        return False
    try:
        with gzip.open(manifest, "rt", encoding="utf-8") as lines:
            cuts = [json.loads(line) for line in lines]
        held = [(c["id"], c["recording"]["sources"][0]["source"], c["supervisions"][0]["text"]) for c in cuts]
    except (OSError, EOFError, ValueError, KeyError, IndexError, TypeError, zlib.error):
        return False  # half a manifest, or another program's: made again
    return held == [(line.name, str(line.path.absolute()), normalise(line.text)) for line in wanted]


# Download


def download_part(part: str, folder: Path, mirror: str = MIRROR) -> Path:
    """Fetch and unpack one part below `folder`; returns its folder. Resumes, and skips what is done."""
    target = folder / "LibriSpeech" / part
    done = target / ".completed"  # the same mark as Lhotse's own recipe
    if done.is_file():
        return target
    resource, md5 = ARCHIVES[part]
    archive = folder / f"{part}.tar.gz"
    folder.mkdir(parents=True, exist_ok=True)
    if not (archive.is_file() and _md5(archive) == md5):
        _fetch(f"{mirror}/{resource}/{archive.name}", archive, md5)
    shutil.rmtree(target, ignore_errors=True)  # what an interrupted run left
    warn(f"{archive}: unpacking")
    with tarfile.open(archive) as tar:
        safe_extract(tar, path=folder)
    done.touch()
    return target


def _fetch(url: str, archive: Path, md5: str) -> None:
    try:
        resumable_download(url, filename=archive)
    except OSError as error:  # URLError and time-outs too
        hint = "run again to resume, try --mirror, or give an existing tree with --corpus-dir"
        raise UserError(f"{url}: cannot be downloaded ({error}): {hint}") from error
    found = _md5(archive)
    if found != md5:
        hint = "run again to resume; if this line returns, delete the file first"
        raise UserError(f"{archive}: incomplete or damaged: MD5 {found}, OpenSLR publishes {md5}: {hint}")


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as file, progress() as bar:
        task = bar.add_task(f"checking {path.name}", total=path.stat().st_size)
        while block := file.read(2**22):
            digest.update(block)
            bar.advance(task, len(block))
    return digest.hexdigest()


def find_part(tree: Path, part: str) -> Path:
    """The part's folder; `tree` is LibriSpeech/ or the folder above it."""
    for folder in (tree / part, tree / "LibriSpeech" / part):
        if folder.is_dir():
            return folder
    raise UserError(f"{tree}: no {part} in it, nor in its LibriSpeech/: correct --corpus-dir or --parts")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m data_prep.librispeech", description=DESCRIPTION)
    parser.add_argument("--parts", nargs="+", required=True, metavar="PART", help=", ".join(ARCHIVES))
    parser.add_argument("--output-dir", type=Path, required=True, help="for <part>.jsonl.gz")
    parser.add_argument(
        "--corpus-dir", type=Path, help="an existing tree (or its parent): nothing is downloaded"
    )
    parser.add_argument(
        "--download-dir", type=Path, help="for archives and tree (default: the output folder)"
    )
    parser.add_argument("--mirror", default=MIRROR, help="address in front of /12 and /31 (%(default)s)")
    parser.add_argument("--force", action="store_true", help="make manifests again that are up to date")
    args = parser.parse_args(argv)
    if not args.corpus_dir and (unknown := sorted(set(args.parts) - set(ARCHIVES))):
        raise UserError(f"--parts: OpenSLR has no {', '.join(unknown)}; there are {', '.join(ARCHIVES)}")
    bad = 0
    for part in dict.fromkeys(args.parts):
        if args.corpus_dir:
            folder = find_part(args.corpus_dir, part)
        else:
            folder = download_part(part, args.download_dir or args.output_dir, args.mirror)
        bad += prepare_part(folder, args.output_dir / f"{part}.jsonl.gz", args.force)
    return 1 if bad else 0


if __name__ == "__main__":
    run(main)
