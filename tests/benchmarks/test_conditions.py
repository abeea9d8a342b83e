"""benchmarks.conditions: what is done to speech is what the name of a condition says."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import CutSet

from asr import audio
from asr.data.manifest import write_cuts
from benchmarks import conditions
from data_prep.common import recording_of, utterance
from tests.conftest import signal


def random() -> np.random.Generator:
    return np.random.default_rng(1)


def decibels(samples: np.ndarray) -> float:
    return float(10 * np.log10(np.square(samples).mean()))


@pytest.mark.parametrize("before", [0, 2])
def test_noise_begins_before_the_speech_and_lies_as_far_below_as_asked(before: int) -> None:
    speech = signal(1.5, seed=0)
    heard = conditions.hissing(0, 15, before)(speech, random())
    ahead = before * audio.SAMPLE_RATE
    assert len(heard) == len(speech) + ahead
    assert decibels(speech) - decibels(heard[ahead:] - speech) == pytest.approx(15, abs=0.3)
    if before:
        assert decibels(speech) - decibels(heard[:ahead]) == pytest.approx(15, abs=0.3)


def test_what_is_too_loud_is_clipped_and_what_is_soft_keeps_steps_of_16_bits() -> None:
    speech = signal(0.5, seed=0)
    loud, soft = (conditions.louder(gain)(speech, random()) for gain in (40, -60))
    assert np.abs(loud).max() == 1 and (np.abs(loud) == 1).mean() > 0.1
    np.testing.assert_allclose(soft * 32767, np.rint(soft * 32767), atol=1e-3)
    assert np.abs(soft - speech / 1000).max() <= 0.51 / 32767


def test_every_condition_is_compared_with_the_utterances_as_they_are(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [tmp_path / f"{name}.wav" for name in ("a", "b", "c", "noise", "room")]
    for seed, path in enumerate(paths):
        soundfile.write(path, signal(0.6, seed), 8000 if seed == 1 else 16000)
    cuts = [utterance(path.stem, path, "the quick fox", f"s{path.stem}") for path in paths[:3]]
    manifests = [tmp_path / f"{name}.jsonl.gz" for name in ("dev", "noise", "room")]
    write_cuts(CutSet.from_cuts(cuts), manifests[0])
    for path, manifest in zip(paths[3:], manifests[1:], strict=True):
        write_cuts(CutSet.from_cuts([recording_of(path.stem, path)]), manifest)
    dev, noise, room = map(str, manifests)
    asked = ["--model", str(bundle), "--cuts", dev, "--vad", "off", "--limit", "2"]
    output = tmp_path / "found.json"
    conditions.main([*asked, "--noises", noise, "--rooms", room, "--output", str(output)])
    rows = json.loads(output.read_text())["rows"]
    assert next(row["condition"] for row in rows) == conditions.AS_IT_IS
    assert rows[0]["difference"] == 0
    assert all(row["wer"] - rows[0]["wer"] == pytest.approx(row["difference"]) for row in rows)
    with_both = {row["condition"] for row in rows}
    conditions.main([*asked, "--output", str(output)])
    without = {row["condition"] for row in json.loads(output.read_text())["rows"]}
    assert len(with_both) == len(without) + 4 and without < with_both
    assert capsys.readouterr().out.count("2 utterances") == 2
