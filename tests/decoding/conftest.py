"""Language models for the tests: a small ARPA file, and models estimated from a few sentences."""

from __future__ import annotations

from pathlib import Path

import pytest

from asr.lm import Estimation, estimate

TEXT = [
    "the cat sat on the mat",
    "the dog sat on the cat",
    "a cat saw the dog",
    "the mat saw a dog on a mat",
    "dogs don't sit",
    "the cat sat",
]

ARPA = """\\data\\
ngram 1=5
ngram 2=4
ngram 3=2

\\1-grams:
-1.0\t<unk>
-99\t<s>\t-0.5
-0.8\t</s>
-0.6\ta\t-0.3
-0.7\tb\t-0.2

\\2-grams:
-0.2\t<s> a\t-0.1
-0.4\ta b\t-0.25
-0.3\tb a
-0.35\tb </s>

\\3-grams:
-0.15\t<s> a b
-0.1\ta b </s>

\\end\\
"""


@pytest.fixture
def arpa(tmp_path: Path) -> Path:
    path = tmp_path / "small.arpa"
    path.write_text(ARPA)
    return path


def estimate_text(text: list[str], folder: Path, order: int = 3, **choices: object) -> None:
    """Write model.arpa and model.bin, with exact numbers, of sentences."""
    (folder / "text.txt").write_text("\n".join(text) + "\n")
    estimation = Estimation(order, **choices)  # type: ignore[arg-type]
    estimate([folder / "text.txt"], estimation, folder / "model.bin", folder / "model.arpa", bits=32)
