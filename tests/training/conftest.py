"""A corpus of sine tones, one pitch a word: small enough to train on in seconds, and learnable."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from lhotse import CutSet, MonoCut, Recording, SupervisionSegment

from asr.data.manifest import write_cuts
from asr.text import train_tokenizer

WORDS = {"la": 300.0, "mi": 520.0, "so": 900.0, "re": 1500.0}
LEXICON = "la L AA\nmi M IY\nso S OW\nre R EY\n"
RATE = 16000


def tones(text: str, rng: np.random.Generator, rate: int = RATE) -> np.ndarray:
    """A tone of about 150 ms a word, with gaps: (S,)."""
    pieces = [np.zeros(rate // 20)]
    for word in text.split():
        time = np.arange(int(rate * rng.uniform(0.12, 0.18))) / rate
        pieces += [0.3 * np.sin(2 * np.pi * WORDS[word] * time), np.zeros(rate // 20)]
    return (np.concatenate(pieces) + 0.003 * rng.standard_normal(sum(map(len, pieces)))).astype(np.float32)


def cut_of(path: Path, text: str) -> MonoCut:
    recording = Recording.from_file(path, recording_id=path.stem)
    supervision = SupervisionSegment(path.stem, path.stem, 0.0, recording.duration, text=text, language="en")
    return MonoCut(path.stem, 0.0, recording.duration, 0, supervisions=[supervision], recording=recording)


def write_corpus(directory: Path, name: str, count: int, seed: int) -> Path:
    """`count` utterances of 2 to 6 words -> the path of their manifest."""
    rng = np.random.default_rng(seed)
    (directory / "wav").mkdir(parents=True, exist_ok=True)
    cuts = []
    for number in range(count):
        text = " ".join(rng.choice(list(WORDS), size=rng.integers(2, 7)))
        path = directory / "wav" / f"{name}-{number:03}.wav"
        soundfile.write(path, tones(text, rng), RATE)
        cuts.append(cut_of(path, text))
    manifest = directory / f"{name}.jsonl.gz"
    write_cuts(CutSet.from_cuts(cuts), manifest)
    return manifest


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with train.jsonl.gz, dev.jsonl.gz and tokenizer.model."""
    directory = tmp_path_factory.mktemp("corpus")
    write_corpus(directory, "train", 40, 1)
    write_corpus(directory, "dev", 8, 2)
    train_tokenizer([" ".join(WORDS)] * 20, directory / "tokenizer.model", 16, "char")
    return directory


@pytest.fixture
def lexicon(tmp_path: Path) -> Path:
    (tmp_path / "lexicon.txt").write_text(LEXICON)
    return tmp_path / "lexicon.txt"


@pytest.fixture
def config(corpus: Path, tmp_path: Path) -> Callable[..., Path]:
    """Writes a small config, returns its path; keyword arguments set entries, as trainer__max_steps=3."""

    def write(root: Path | None = None, **changes: object) -> Path:
        root = root or tmp_path / "run"
        tree: dict = {
            "seed_everything": 3,
            "model": {
                "tokenizer": str(corpus / "tokenizer.model"),
                "encoder": {"channels": [16, 16], "width": 24, "hidden": 24, "lookahead": [0, 1]},
                "optimiser": {"rate": 0.01, "warmup": 5},
            },
            "data": {
                "train": [str(corpus / "train.jsonl.gz")],
                "dev": [str(corpus / "dev.jsonl.gz")],
                "max_duration": 6.0,
                "buckets": 3,
                "workers": 0,
            },
            "trainer": {
                "default_root_dir": str(root),
                "accelerator": "cpu",
                "max_epochs": 2,
                "log_every_n_steps": 1,
                "enable_progress_bar": False,
            },
        }
        for key, value in changes.items():
            *parents, last = key.split("__")
            node = tree
            for parent in parents:
                node = node.setdefault(parent, {})
            node[last] = value
        path = tmp_path / f"{root.name}.yaml"
        path.write_text(yaml.safe_dump(tree))
        return path

    return write
