"""benchmarks.end_to_end: the stages are all of the time, and the model that it makes is as it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from asr import audio
from asr.bundle import load_bundle
from asr.errors import UserError
from asr.ops import cpu
from asr.packed import PACKINGS
from benchmarks import end_to_end
from benchmarks.end_to_end import OFFLINE, STAGES, contenders, measure, picture, random_bundle, speech, table
from tests.conftest import signal

pytestmark = pytest.mark.skipif(not cpu.is_available(), reason="no C library")


def test_stages_are_all_of_the_time_of_every_packing_and_chunk(bundle: Path, tmp_path: Path) -> None:
    rows = measure(contenders({"tiny": load_bundle(bundle)}, [40, OFFLINE]), signal(3.0, 1), rounds=1)
    assert [(row.packing, row.chunk_ms) for row in rows] == [(p, c) for p in PACKINGS for c in (40, None)]
    for row in rows:
        assert tuple(row.stages) == STAGES and min(row.stages.values()) >= 0
        assert sum(row.stages.values()) == pytest.approx(row.rtf)
    assert table(rows).count("| tiny |") == len(rows)
    pytest.importorskip("matplotlib")
    picture(tmp_path / "x.png", rows)
    assert (tmp_path / "x.png").stat().st_size > 10_000


def test_the_random_model_has_its_size_and_is_silent_as_often_as_speech(tmp_path: Path) -> None:
    samples = signal(25.0, 1)
    made = random_bundle(3, samples, tmp_path)
    assert sum(each.numel() for each in made.model.parameters()) == pytest.approx(3e6, rel=0.1)
    assert len(made.tokenizer.pieces) == end_to_end.VOCABULARY and made.decoding.beam == 1
    some = torch.from_numpy(samples[: 20 * audio.SAMPLE_RATE])[None]
    with torch.inference_mode():
        log_probs, _ = made.model.offline(some, torch.tensor([some.size(1)]))
    assert (log_probs.argmax(-1) == 0).float().mean() == pytest.approx(end_to_end.BLANKS, abs=0.05)


def test_speech_is_as_long_as_asked(tmp_path: Path) -> None:
    for number in range(3):
        audio.write(tmp_path / f"{number}.flac", signal(1.0, number))
    assert len(speech(tmp_path, 2.5)) == 40000
    assert np.abs(speech(tmp_path, 2.5)).max() > 0
    with pytest.raises(UserError, match=r"holds no \.flac or \.wav"):
        speech(tmp_path / "none", 1)
