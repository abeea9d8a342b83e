"""Shared fixtures: a tiny model with random weights, a tokenizer, and seconds of signal."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from numpy.typing import NDArray

from asr.bundle import Bundle, save_bundle
from asr.encoder import EncoderConfig
from asr.frontend import FrontEndConfig
from asr.model import CtcModel, ModelConfig
from asr.text import Tokenizer, train_tokenizer

os.environ["TRITON_INTERPRET"] = "1"  # read when triton is imported, which torch puts off

settings.register_profile("machines are shared", deadline=None)
settings.load_profile("machines are shared")

SENTENCES = [
    "the quick brown fox jumps over the lazy dog",
    "pack my box with five dozen liquor jugs",
    "how vexingly quick daft zebras jump",
    "don't let the small boat drift away from o'brien",
]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Threads of OpenMP spin: on a busy machine two are many times slower than one."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path: Path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    return train_tokenizer(SENTENCES, path, vocabulary=40)


ENCODERS = {
    "4x, lookahead": EncoderConfig((8, 12), 5, "glu", width=16, hidden=16, lookahead=(0, 2, 1)),
    "8x, projection, GTU": EncoderConfig((8, 8, 12), 3, "gtu", width=16, hidden=24, lookahead=(1, 2)),
    "no lookahead, no reset gate, ReLU": EncoderConfig(
        (8, 12), 4, "relu", width=16, hidden=16, lookahead=(0, 0), reset_gate=False
    ),
    "two outputs a frame, lookahead": EncoderConfig((8, 12), 5, width=16, hidden=16, lookahead=(1, 0, 2)),
}
OUTPUTS = {"two outputs a frame, lookahead": 2}  # 1 for the others


@pytest.fixture(params=ENCODERS)
def model(request: pytest.FixtureRequest, tokenizer: Tokenizer) -> CtcModel:
    """Random weights, sharpened so that the best path says something."""
    return tiny_model(ENCODERS[request.param], tokenizer.vocabulary, OUTPUTS.get(request.param, 1))


def tiny_model(encoder: EncoderConfig, vocabulary: int, outputs: int = 1) -> CtcModel:
    torch.manual_seed(1)
    model = CtcModel(ModelConfig(vocabulary, FrontEndConfig(), encoder, outputs)).eval()
    with torch.no_grad():
        for block in model.encoder.blocks:
            block.lookahead.weight.normal_()
        model.frontend.set_statistics(torch.full((80,), -6.0), torch.full((80,), 3.0))
        model.head.weight.mul_(8)
    return model


PIECES = ["<blank>", "<unk>", "\u2581a", "\u2581b", "c", "d"]


def scripted(
    path: str, spread: float = 1e-4, random: np.random.Generator | None = None
) -> NDArray[np.float32]:
    """Log-probabilities (T, 6) over PIECES with a letter a frame as their best path, "." for blank.

    spread: the probability that all others share, evenly or at random.
    """
    others = np.ones((len(path), len(PIECES))) if random is None else random.random((len(path), len(PIECES)))
    best = [".?abcd".index(letter) for letter in path]
    others[range(len(path)), best] = 0
    probabilities = spread * others / others.sum(-1, keepdims=True).clip(1e-9)
    probabilities[range(len(path)), best] = 1 - spread
    return np.log(probabilities).astype(np.float32)


@pytest.fixture
def audio() -> NDArray[np.float32]:
    """A little over two seconds of gliding tones and noise, and no whole number of frames."""
    return signal(2.03, seed=1)


def signal(seconds: float, seed: int) -> NDArray[np.float32]:
    random = np.random.default_rng(seed)
    time = np.arange(int(16000 * seconds)) / 16000
    pitch = 300 + 200 * np.sin(2 * np.pi * random.uniform(0.5, 2) * time)
    tone = np.sin(2 * np.pi * np.cumsum(pitch) / 16000) * (np.sin(2 * np.pi * 3 * time) > 0)
    return (0.3 * tone + 0.01 * random.standard_normal(len(time))).astype(np.float32)


@pytest.fixture(scope="session")
def bundle(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model on disk that says something, though nothing sensible."""
    directory = tmp_path_factory.mktemp("bundle")
    save_bundle(directory, Bundle(tiny_model(ENCODERS["4x, lookahead"], tokenizer.vocabulary), tokenizer))
    return directory
