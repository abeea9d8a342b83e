"""The benchmark of WER against latency: every combination is a point, in the figures and in the picture."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from lhotse import CutSet
from numpy.typing import NDArray

from asr import audio as sound
from asr.data.manifest import write_cuts
from asr.errors import UserError
from asr.evaluation.command import parse
from asr.evaluation.decode import Spoken
from asr.evaluation.recogniser import bundle_recogniser
from benchmarks.wer_latency import main
from data_prep.common import utterance

pytest.importorskip("matplotlib")


@pytest.fixture
def manifest(bundle: Path, audio: NDArray, tmp_path: Path) -> Path:
    """What the model says is what was said, so that there are words with delays."""
    sound.write(tmp_path / "u.wav", audio)
    heard = sound.read(tmp_path / "u.wav")
    args = parse(["--model", str(bundle), "--cuts", "none", "--beam", "1", "--vad", "off"])
    words = bundle_recogniser(args, {})(Spoken("u", heard, "")).stream.words
    cut = utterance("u", tmp_path / "u.wav", " ".join(word.text for word in words), speaker="s")
    write_cuts(CutSet.from_cuts([cut]), tmp_path / "dev.jsonl.gz")
    return tmp_path / "dev.jsonl.gz"


def test_every_combination_is_a_point(bundle: Path, manifest: Path, tmp_path: Path) -> None:
    arguments = ["--models", str(bundle), "--cuts", str(manifest), "--chunks", "80", "640", "--beams", "1"]
    assert main([*arguments, "--output", str(tmp_path / "curve.png"), "--vad", "off"]) == 0
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    document = json.loads((tmp_path / "curve.json").read_text())
    assert document["command"].endswith("--vad off")
    points = document["rows"]
    assert [(point["chunk_ms"], point["beam"], point["wer"]) for point in points] == [(80, 1, 0), (640, 1, 0)]
    for point in points:
        interval = point["emission_p50_interval"]
        assert interval["low"] <= point["emission_p50"] <= interval["high"]


def test_without_a_correct_word_there_is_one_clear_line(bundle: Path, manifest: Path, tmp_path: Path) -> None:
    """Where the VAD hears no speech in tones."""
    arguments = ["--models", str(bundle), "--cuts", str(manifest), "--chunks", "80", "--beams", "1"]
    with pytest.raises(UserError, match="no word was right"):
        main([*arguments, "--output", str(tmp_path / "curve.png"), "--vad", "on"])
