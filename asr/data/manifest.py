"""Manifests, and the audio they name: Lhotse CutSets in `<split>.jsonl.gz`, one supervision an utterance.

What is missing or damaged is a UserError that names the file.
"""

import contextlib
import os
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from lhotse import CutSet
from lhotse.cut import Cut
from numpy.typing import NDArray

from asr import audio
from asr.errors import UserError


def load_cuts(paths: Sequence[Path | str], check_audio: bool = False) -> CutSet:
    """The cuts of all manifests, in memory and in the order given.

    Raises:
        UserError: a manifest is missing, empty or unreadable, a cut does not have exactly one supervision, or
            two cuts share an id; with `check_audio`, also where an audio file has gone.
    """
    cuts: list[Cut] = []
    for path in map(Path, paths):
        read = _read(path)
        if check_audio:
            _check_audio(read, path)
        cuts.extend(read)
    seen: set[str] = set()
    for cut in cuts:
        if cut.id in seen:
            names = ", ".join(map(str, paths))
            raise UserError(f"{names}: two utterances have the id {cut.id}; give each its own")
        seen.add(cut.id)
    return CutSet.from_cuts(cuts)


def _read(path: Path) -> list[Cut]:
    if not path.is_file():
        raise UserError(f"{path}: no such manifest; make it with python -m data_prep.<corpus>")
    try:
        cuts = list(CutSet.from_jsonl_lazy(path))
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, zlib.error) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: not a readable manifest ({reason}); prepare the corpus again") from error
    if not cuts:
        raise UserError(f"{path}: the manifest is empty; prepare the corpus again")
    for cut in cuts:
        if len(cut.supervisions) != 1:
            raise UserError(f"{path}: {cut.id} has {len(cut.supervisions)} supervisions, and one is needed")
    return cuts


def _check_audio(cuts: Sequence[Cut], path: Path) -> None:
    gone = [file for cut in cuts for file in audio_files(cut) if not os.path.exists(file)]
    if gone:
        more = f" (and {len(gone) - 1} more)" if len(gone) > 1 else ""
        raise UserError(
            f"{path}: its audio file {gone[0]}{more} has gone; put it back or prepare the corpus again"
        )


def audio_files(cut: Cut) -> list[str]:
    """The files on disk that the cut's audio comes from."""
    return [source.source for source in cut.recording.sources if source.type == "file"]


class AudioError(UserError):
    """An audio file of a manifest cannot be used; training raises it between two steps, to lose nothing."""


def load_audio(cut: Cut) -> NDArray[np.float32]:
    """The samples of a cut at its own rate, (S,), channels averaged.

    Raises AudioError naming the file that is missing, unreadable, of another length than in the manifest, or
    holds NaN or infinity.
    """
    files = audio_files(cut)
    try:
        for file in files:
            _check_length(file, cut)
        samples = cut.load_audio()  # (C, S)
    except UserError as error:
        raise AudioError(str(error)) from error
    # lhotse wraps whatever its back-ends raise in exceptions without a common base
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
        where = ", ".join(files) or cut.id
        raise AudioError(f"{where}: cannot be read ({reason}); prepare the corpus again") from error
    if not np.isfinite(samples).all():  # one such batch would make every weight NaN
        raise AudioError(f"{', '.join(files) or cut.id}: NaN or infinite samples; export it again as 16 bit")
    return samples[0] if len(samples) == 1 else samples.mean(0, dtype=np.float32)


def _check_length(file: str, cut: Cut) -> None:
    """Says what is wrong more clearly than Lhotse, which also fills up to 0.5 s with speech backwards."""
    found, promised = audio.info(file).duration, cut.recording.duration
    if abs(found - promised) > 0.1 and not cut.recording.transforms:
        raise UserError(
            f"{file}: lasts {found:.2f} s, but {promised:.2f} s in the manifest; prepare the corpus again"
        )


def write_cuts(cuts: CutSet, path: Path | str) -> None:
    """Write a manifest `<name>.jsonl.gz` whole or not at all: to a temporary name beside it, then renamed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # the suffix stays, since Lhotse chooses the format and the compression by it
    handle, temporary = tempfile.mkstemp(
        prefix=f".{path.name.split('.')[0]}-", suffix=".jsonl.gz", dir=path.parent
    )
    os.close(handle)
    try:
        cuts.to_file(temporary)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
