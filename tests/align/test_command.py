"""`asr align` from recordings and texts to files; what cannot be aligned is named, the rest is done."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from lhotse import CutSet
from numpy.typing import NDArray

from asr import audio as sound
from asr.align.command import main
from asr.align.ctm import read_ctm
from asr.data.manifest import write_cuts
from data_prep.common import utterance


@pytest.fixture
def talk(tmp_path: Path, audio: NDArray[np.float32]) -> Path:
    sound.write(tmp_path / "talk.wav", audio)
    (tmp_path / "talk.txt").write_text("The lazy dog, jumps\n")
    return tmp_path / "talk.wav"


def align(bundle: Path, *arguments: str | Path) -> int:
    return main(["--model", str(bundle), *map(str, arguments)])


def test_a_recording_is_aligned_with_the_text_beside_it(
    bundle: Path, talk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert align(bundle, talk) == 0
    (tmp_path / "out.ctm").write_text(capsys.readouterr().out)
    (words,) = read_ctm(tmp_path / "out.ctm").values()
    assert [word.text for word in words] == ["The", "lazy", "dog,", "jumps"]
    times = [time for word in words for time in (word.start, word.end)]
    assert times == sorted(times) and times[0] >= 0 and times[-1] <= 2.04


def test_every_format_is_written(bundle: Path, talk: Path, tmp_path: Path) -> None:
    for format, suffix in {
        "ctm": "ctm",
        "textgrid": "TextGrid",
        "json": "json",
        "srt": "srt",
        "vtt": "vtt",
    }.items():
        assert align(bundle, talk, "--format", format, "--output-dir", tmp_path / "out") == 0
        assert "lazy" in (tmp_path / "out" / f"talk.{suffix}").read_text()
    assert len(json.loads((tmp_path / "out" / "talk.json").read_text())["words"]) == 4


def test_a_manifest_is_aligned_under_its_ids(
    bundle: Path, talk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cuts = [utterance("u1", talk, "the dog", speaker="s"), utterance("u2", talk, "dog", speaker="s")]
    cuts[1].supervisions[0].text = ""  # nobody speaks
    write_cuts(CutSet.from_cuts(cuts), tmp_path / "dev.jsonl.gz")
    assert align(bundle, "--cuts", tmp_path / "dev.jsonl.gz") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["u1", "u1"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("the 42 dogs", "talk: the model has no letters for 42"),
        ("dog " * 500, "talk: the text is too long for the audio"),
        ("  \n", "talk.txt: holds no words"),
        (None, "talk.txt: no such text; name it with --text"),
    ],
)
def test_what_cannot_be_aligned_is_one_line_and_the_status_is_one(
    bundle: Path, talk: Path, text: str | None, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    talk.with_suffix(".txt").unlink()
    if text is not None:
        talk.with_suffix(".txt").write_text(text)
    assert align(bundle, talk) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err and printed.err.count("error") == 1


def test_one_bad_recording_does_not_stop_the_others(
    bundle: Path, talk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = str(talk.with_suffix(".txt"))
    assert align(bundle, tmp_path / "gone.wav", talk, "--text", text, text) == 1
    printed = capsys.readouterr()
    assert printed.out.startswith("talk 1 ")
    assert "gone.wav: no such file" in printed.err and "1 of 2 recordings failed" in printed.err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["a.wav", "--cuts", "dev.jsonl.gz"],
        ["a.wav", "b.wav", "--text", "a.txt"],
        ["a.wav", "b.wav", "--format", "json"],
    ],
)
def test_wrong_arguments_are_refused(bundle: Path, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        align(bundle, *arguments)
    assert caught.value.code == 2
