from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import CutSet

from asr.data.manifest import load_audio, load_cuts, write_cuts
from asr.errors import UserError
from data_prep import carry
from data_prep.common import recording_of, utterance

SPEECH, SOUNDS = Path("data/speech.jsonl.gz"), Path("data/sounds.jsonl.gz")


def chirp(seconds: float, rate: int) -> np.ndarray:
    """What Opus keeps well: a voice of a kind."""
    time = np.arange(int(seconds * rate)) / rate
    return 0.3 * np.sin(2 * np.pi * (200 * time + 100 * time**2)) * (1 + np.sin(8 * time)) / 2


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with three utterances, one of them at 44.1 kHz, two sounds and a lexicon."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(home)
    speech = []
    for name, rate in (("a", 16000), ("b", 44100), ("c", 8000)):
        soundfile.write(f"{name}.wav", chirp(2.0, rate), rate)
        speech.append(utterance(name, Path(f"{name}.wav"), "one two", speaker="s"))
    write_cuts(CutSet.from_cuts(speech), SPEECH)
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 16000)
    soundfile.write("noise.wav", noise, 16000)
    write_cuts(CutSet.from_cuts([recording_of("noise", Path("noise.wav"))]), SOUNDS)
    Path("lexicon.txt").write_text("one\tw^n\n")
    return home


def unpack(parts: Path, there: Path) -> list[Path]:
    found = sorted(parts.glob("*.tar"))
    for part in found:
        with tarfile.open(part) as archive:
            archive.extractall(there, filter="data")
    return found


def test_there_the_manifests_name_the_same_speech(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = [str(SPEECH), str(SOUNDS), "--files", "lexicon.txt", "--output-dir", str(tmp_path / "parts")]
    assert carry.main(said) == 0
    here = {cut.id: cut for cut in load_cuts([SPEECH, SOUNDS])}
    there = tmp_path / "there"
    unpack(tmp_path / "parts", there)
    for file in home.rglob("*.wav"):
        file.unlink()
    monkeypatch.chdir(there)
    assert Path("lexicon.txt").read_text() == (home / "lexicon.txt").read_text()
    cuts = list(load_cuts([SPEECH, SOUNDS], check_audio=True))
    assert [cut.id for cut in cuts] == ["a", "b", "c", "noise"]
    for cut in cuts:
        (old,), (new,) = here[cut.id].supervisions, cut.supervisions
        assert (new.text, new.speaker) == (old.text, old.speaker)
        assert cut.sampling_rate == 16000
        assert cut.duration == here[cut.id].duration
    expected = chirp(2.0, 16000)
    for cut in cuts[:3]:
        assert np.square(load_audio(cut) - expected).mean() < 0.03 * np.square(expected).mean()
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 16000)
    assert np.abs(load_audio(cuts[3]) - noise).max() < 1e-4  # which Opus would not give back


def test_no_part_is_larger_than_asked_and_manifests_come_last(home: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    sounds = []
    for number in range(20):
        soundfile.write(f"{number}.wav", rng.uniform(-1, 1, 32000), 16000)
        sounds.append(recording_of(f"sound-{number}", Path(f"{number}.wav")))
    write_cuts(CutSet.from_cuts(sounds), SOUNDS)
    parts = tmp_path / "parts"
    assert carry.main([str(SPEECH), str(SOUNDS), "--megabytes", "1", "--output-dir", str(parts)]) == 0
    found = unpack(parts, tmp_path / "there")
    assert len(found) == 2  # of 1.3 MB
    assert max(part.stat().st_size for part in found) <= 1_000_000
    with tarfile.open(found[-1]) as archive:
        assert archive.getnames()[-2:] == [str(SPEECH), str(SOUNDS)]
    assert len(list((tmp_path / "there/data/sounds").iterdir())) == 20


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{home}/data/speech.jsonl.gz"], "is not below the working directory"),
        (["../home/data/speech.jsonl.gz"], "is not below the working directory"),
        (["data/none.jsonl.gz"], r"none\.jsonl\.gz: no such file"),
        (["lexicon.txt"], r"lexicon\.txt: not a manifest"),
        (["data/speech.jsonl.gz", "--files", "none"], "none: no such file"),
        (["data/speech.jsonl.gz", "--output-dir", "data"], "data: is not empty"),
    ],
)
def test_what_cannot_be_carried_is_said_before_anything_is_made(
    home: Path, arguments: list[str], said: str
) -> None:
    given = [argument.replace("{home}", str(home)) for argument in arguments]
    output = [] if "--output-dir" in given else ["--output-dir", "parts"]
    with pytest.raises(UserError, match=said):
        carry.main([*given, *output])
    assert not Path("parts").exists()
