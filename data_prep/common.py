"""What every corpus needs: an utterance as a Lhotse cut, and a progress bar. Knows no corpus."""

from __future__ import annotations

import sys
from pathlib import Path

from lhotse import AudioSource, MonoCut, MultiCut, Recording, SupervisionSegment
from lhotse.cut.data import DataCut
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from asr import audio
from asr.errors import UserError
from asr.text import normalise


def utterance(
    name: str, path: Path, text: str, speaker: str | None = None, language: str | None = None
) -> DataCut:
    """A whole file as one cut with one supervision, its text normalised, its audio path absolute.

    Raises UserError if the text has no word, or the file is not readable audio with samples (by its header).
    """
    words = normalise(text)
    if not words:
        raise UserError(f"{path}: no word in the text {text!r}: write what is said")
    return recording_of(name, path, words, speaker, language)


def recording_of(
    name: str, path: Path, words: str = "", speaker: str | None = None, language: str | None = None
) -> DataCut:
    """The same for normalised text, which may be none: a sound without words."""
    path = path.absolute()
    rate, channels, samples = info = audio.info(path)
    every = list(range(channels))  # the training averages them
    recording = Recording(
        id=name,
        sources=[AudioSource(type="file", channels=every, source=str(path))],
        sampling_rate=rate,
        num_samples=samples,
        duration=info.duration,
    )
    channel = 0 if channels == 1 else every
    said = SupervisionSegment(
        id=name,
        recording_id=name,
        start=0.0,
        duration=info.duration,
        channel=channel,
        text=words,
        speaker=speaker,
        language=language,
    )
    kind = MonoCut if channels == 1 else MultiCut
    return kind(
        id=name, start=0.0, duration=info.duration, channel=channel, recording=recording, supervisions=[said]
    )


def progress() -> Progress:
    """A bar on stderr: live on a terminal, nothing in a log file."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def warn(line: str) -> None:
    print(line, file=sys.stderr)
