"""A training's data in parts that are easily carried to another machine: small archives of compressed speech.

    python -m data_prep.carry data/x/*.jsonl.gz --files exp/x/lexicon.txt exp/x/train.ctm --output-dir parts
    for part in parts/*.tar; do tar xf $part; done          # there, in the repository

Speech becomes Ogg Opus at 16 kHz, 12 MB an hour; sounds without words and impulse responses, which Opus is
not made for, become FLAC. Out of the archives come the same manifests and files, at the same paths from the
working directory, and the audio in a folder beside each manifest. Manifests come last: an unfinished run
leaves none.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

import soundfile
from lhotse import AudioSource, MonoCut, Recording
from lhotse.cut import Cut
from lhotse.utils import fastcopy

from asr.cli import at_least, run
from asr.data.augment import resample
from asr.data.manifest import load_audio, load_cuts
from asr.errors import UserError
from data_prep.common import progress

DESCRIPTION = "Pack manifests with their audio, compressed, and other files into archives of limited size."
RATE = 16000
MANIFEST = ".jsonl.gz"


def encode(cut: Cut) -> tuple[bytes, int, str]:
    """The cut's audio at 16 kHz as a file, the number of its samples, and what such files are called."""
    samples = resample(load_audio(cut), cut.sampling_rate, RATE, 1.0)
    buffer = io.BytesIO()
    if cut.supervisions[0].text:
        soundfile.write(buffer, samples, RATE, format="OGG", subtype="OPUS")
        return buffer.getvalue(), len(samples), "opus"
    soundfile.write(buffer, samples, RATE, format="FLAC", subtype="PCM_16")
    return buffer.getvalue(), len(samples), "flac"


def carried(cut: Cut, path: Path, samples: int) -> MonoCut:
    """The cut as it will be where `path` holds the whole of its audio."""
    (supervision,) = cut.supervisions
    duration = samples / RATE
    recording = Recording(cut.id, [AudioSource("file", [0], str(path))], RATE, samples, duration)
    said = fastcopy(supervision, recording_id=cut.id, start=0.0, duration=duration, channel=0)
    return MonoCut(cut.id, 0.0, duration, 0, supervisions=[said], recording=recording)


class Parts:
    """Archives DIRECTORY/part-000.tar, ..., none above `limit` bytes unless one member is."""

    def __init__(self, directory: Path, limit: int) -> None:
        self.directory, self.limit = directory, limit
        self.paths: list[Path] = []
        self._archive: tarfile.TarFile | None = None

    def add(self, path: Path, content: bytes) -> None:
        size = tarfile.BLOCKSIZE * (2 + len(content) // tarfile.BLOCKSIZE)
        if self._archive is None or self._archive.offset + size + tarfile.RECORDSIZE > self.limit:
            self._next()
        assert self._archive is not None
        member = tarfile.TarInfo(path.as_posix())
        member.size = len(content)
        self._archive.addfile(member, io.BytesIO(content))

    def _next(self) -> None:
        self.close()
        self.paths.append(self.directory / f"part-{len(self.paths):03}.tar")
        self._archive = tarfile.open(self.paths[-1], "w")  # noqa: SIM115 (closed by the next one)

    def close(self) -> None:
        if self._archive is not None:
            self._archive.close()


def pack(manifests: Sequence[Path], files: Sequence[Path], parts: Parts) -> None:
    """Audio as it is made, and then, in the last part, the manifests and `files`."""
    finished = []
    with progress() as bar:
        for manifest in manifests:
            audio = manifest.with_name(manifest.name.removesuffix(MANIFEST))
            cuts = []
            for cut in bar.track(list(load_cuts([manifest])), description=manifest.name):
                content, samples, suffix = encode(cut)
                path = audio / f"{cut.id}.{suffix}"
                parts.add(path, content)
                cuts.append(carried(cut, path, samples))
            lines = "".join(json.dumps(cut.to_dict()) + "\n" for cut in cuts)
            finished.append((manifest, gzip.compress(lines.encode())))
    for path, content in [*finished, *((path, path.read_bytes()) for path in files)]:
        parts.add(path, content)
    parts.close()


def check(manifests: Sequence[Path], files: Sequence[Path]) -> None:
    """UserError for what has no place there: it would be unpacked elsewhere than it is read."""
    for path in [*manifests, *files]:
        if path.is_absolute() or ".." in path.parts:
            raise UserError(f"{path}: is not below the working directory; give it by its path from there")
        if not path.is_file():
            raise UserError(f"{path}: no such file")
    for path in manifests:
        if not path.name.endswith(MANIFEST):
            raise UserError(f"{path}: not a manifest (<name>{MANIFEST}); give other files with --files")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="data_prep.carry", description=DESCRIPTION)
    parser.add_argument("manifests", type=Path, nargs="+", metavar="MANIFEST")
    parser.add_argument("--files", type=Path, nargs="+", default=[], help="what else the training reads")
    parser.add_argument("--output-dir", type=Path, required=True, metavar="DIR")
    parser.add_argument("--megabytes", type=at_least(1, int), default=60, help="of a part, at most (60)")
    args = parser.parse_args(argv)
    check(args.manifests, args.files)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    if any(args.output_dir.iterdir()):
        raise UserError(f"{args.output_dir}: is not empty; give a new directory, or empty this one")
    parts = Parts(args.output_dir, args.megabytes * 10**6)
    pack(args.manifests, args.files, parts)
    megabytes = sum(path.stat().st_size for path in parts.paths) / 1e6
    print(f"{args.output_dir}: {len(parts.paths)} parts, {megabytes:.1f} MB; tar xf each of them there")
    return 0


if __name__ == "__main__":
    run(main)
