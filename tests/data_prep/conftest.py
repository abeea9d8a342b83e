"""A small tree in LibriSpeech's layout."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from asr import audio


def sound(seconds: float = 0.1) -> np.ndarray:
    return 0.1 * np.random.default_rng(0).standard_normal(int(16000 * seconds))


@pytest.fixture
def write_sound() -> Callable[..., Path]:
    """Writes noise to a path and returns it."""

    def write(path: Path, seconds: float = 0.1, rate: int = 16000, channels: int = 1) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        audio.write(path, np.stack([sound(seconds)] * channels, 1), rate)
        return path

    return write


@pytest.fixture
def tree(tmp_path: Path, write_sound: Callable[..., Path]) -> Path:
    """LibriSpeech/dev-clean: two speakers, a chapter each, two utterances each."""
    root = tmp_path / "LibriSpeech"
    for speaker in (84, 174):
        folder = root / "dev-clean" / str(speaker) / "1"
        names = [f"{speaker}-1-{number:04d}" for number in range(2)]
        for name in names:
            write_sound(folder / f"{name}.flac")
        transcript = "".join(f"{name} IT'S NUMBER {name[-1]}\n" for name in names)
        (folder / f"{speaker}-1.trans.txt").write_text(transcript)
    return root
