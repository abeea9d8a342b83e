"""The command as its users call it: every bad file is one clear line, and nothing of the others is lost."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from asr.bundle import load_bundle
from asr.cli import dispatch
from asr.decoding.hotwords import Hotword
from asr.decoding_options import RecogniserOptions, recogniser_options
from asr.endpoint import EndpointConfig
from asr.errors import UserError
from asr.ops import cpu
from asr.packed import Packing
from asr.streaming import StreamingRecognizer
from asr.transcribe import parse
from asr.vad import VadConfig


@pytest.fixture
def recording(tmp_path: Path, audio: NDArray[np.float32]) -> Path:
    path = tmp_path / "good.wav"
    soundfile.write(path, audio, 16000)
    return path


def expected(bundle: Path, path: Path) -> str:
    recognizer = StreamingRecognizer(load_bundle(bundle), vad=None)
    recognizer.accept(soundfile.read(path, dtype="float32")[0])
    return recognizer.finish().text


def run(bundle: Path, *arguments: object) -> int:
    """Without VAD, which takes the recording for the gliding tone that it is."""
    return dispatch(["transcribe", "--model", str(bundle), "--vad", "off", *map(str, arguments)])


def test_a_file_gives_the_words_of_its_stream(
    bundle: Path, recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(bundle, recording) == 0
    out, err = capsys.readouterr()
    assert out.strip() == expected(bundle, recording) != ""
    assert "algorithmic latency 160 ms" in err


def test_partials_as_lines_grow_into_the_text(
    bundle: Path, recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(bundle, "--partials", "lines", "--chunk", 100, recording) == 0
    out, err = capsys.readouterr()
    partials = [line for line in err.splitlines() if " s  " in line]
    assert len(partials) > 3
    assert any("[" in line for line in partials)  # tentative text stands in brackets
    assert out.strip() == expected(bundle, recording)


@pytest.mark.parametrize(
    ("name", "suffix"), [("text", "txt"), ("json", "json"), ("srt", "srt"), ("vtt", "vtt")]
)
def test_each_format_is_written_to_its_file(
    bundle: Path, recording: Path, tmp_path: Path, name: str, suffix: str
) -> None:
    assert run(bundle, "--format", name, "--output-dir", tmp_path / "out", recording) == 0
    text = (tmp_path / "out" / f"good.{suffix}").read_text()
    assert expected(bundle, recording).split()[0] in text
    if name == "json":
        assert json.loads(text)["text"] == expected(bundle, recording)


# Options of decoding


def test_what_is_no_speech_gives_no_words(
    bundle: Path, recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(bundle, "--vad", "on", recording) == 0
    assert capsys.readouterr().out.strip() == ""


def test_the_command_overrules_what_the_bundle_says(bundle: Path, recording: Path) -> None:
    options = options_of(bundle, "--beam", 3, "--word-bonus", -1, "--stable-frames", 7, "--hotword-boost", 2)
    assert options.bundle.decoding == replace(
        load_bundle(bundle).decoding, beam=3, word_bonus=-1.0, stable_frames=7, hotword_boost=2.0
    )
    assert options_of(bundle).bundle.decoding == load_bundle(bundle).decoding
    assert (options_of(bundle).endpointing, options_of(bundle).vad) == (EndpointConfig(), VadConfig())


def test_each_rule_of_endpoints_can_be_set_and_turned_off(bundle: Path) -> None:
    options = options_of(bundle, "--endpoint-silence", 0, "--endpoint-max-length", 7)
    assert options.endpointing == EndpointConfig(None, 5.0, 7.0)
    off = ("--endpoint-silence", 0, "--endpoint-no-speech", 0, "--endpoint-max-length", 0)
    assert options_of(bundle, *off).endpointing is None


def test_hotwords_come_from_a_file_and_from_options(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("lazy dog\t2.5\n# jugs\nzebras\n")
    options = options_of(bundle, "--hotword", "O'Brien", "--hotwords", tmp_path / "words.txt")
    assert options.hotwords == (Hotword("o'brien"), Hotword("lazy dog", 2.5), Hotword("zebras"))


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--hotword", ""], "empty"),
        (["--hotword", "\u0436"], "no piece"),
        (["--hotword", "fox", "--beam", "1"], "--beam 8"),
        (["--hotwords", "words.txt"], "words.txt, line 2: "),
        (["--lm", "missing.arpa"], "missing.arpa"),
        (["--lm", "missing.arpa", "--beam", "1"], "--beam 8"),
    ],
)
def test_options_that_cannot_be_are_one_line(
    bundle: Path,
    recording: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    line: str,
) -> None:
    monkeypatch.chdir(recording.parent)
    Path("words.txt").write_text("fox\nfox\tmany\n")
    with pytest.raises(UserError, match=line) as error:
        run(bundle, *arguments, recording)
    assert "\n" not in str(error.value)


def options_of(bundle: Path, *arguments: object) -> RecogniserOptions:
    args = parse(["--model", str(bundle), *map(str, arguments), "-"])
    return recogniser_options(args, load_bundle(args.model))


def test_the_encoder_is_packed_as_asked_and_without_a_c_library_not_at_all(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def packing(*arguments: object, usual: Packing = "f32") -> str | None:
        args = parse(["--model", str(bundle), *map(str, arguments), "-"])
        packed = recogniser_options(args, load_bundle(args.model), usual).bundle.model.packed
        return packed.packing if packed else None

    if cpu.is_available():
        assert packing() == "f32" and packing(usual="int8") == "int8"
        assert packing("--packing", "f16", usual="int8") == "f16"
        assert packing("--packing", "torch") is None
    monkeypatch.setattr(cpu, "is_available", lambda: False)
    assert packing(usual="int8") is None


def test_captions_break_at_endpoints(
    bundle: Path, recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def count(*arguments: object) -> int:
        assert run(bundle, "--format", "srt", *arguments, recording) == 0
        return capsys.readouterr().out.count("-->")

    assert count("--endpoint-max-length", 0.3) > count()


# Bad files


def broken_files(folder: Path, audio: NDArray[np.float32]) -> dict[str, Path]:
    def path(name: str) -> Path:
        return folder / name

    path("empty.wav").write_bytes(b"")
    path("prose.wav").write_text("this is no audio at all, but a few words in a file with a wrong name")
    soundfile.write(path("silent.wav"), np.zeros(16000), 16000)
    holes = audio.copy()
    holes[20000] = np.nan
    soundfile.write(path("nan.wav"), holes, 16000, subtype="FLOAT")
    whole = io.BytesIO()
    soundfile.write(whole, np.tile(audio, 4), 16000, format="WAV")
    path("truncated.wav").write_bytes(whole.getvalue()[:100000])
    names = ["missing", "empty", "prose", "silent", "nan", "truncated"]
    return {name: path(f"{name}.wav") for name in names}


def test_every_bad_file_is_one_line_and_the_others_are_done(
    bundle: Path, recording: Path, audio: NDArray[np.float32], capsys: pytest.CaptureFixture[str]
) -> None:
    bad = broken_files(recording.parent, audio)
    assert run(bundle, *bad.values(), recording) == 1
    out, err = capsys.readouterr()
    assert f"{recording}\t{expected(bundle, recording)}" in out.splitlines()
    for path in bad.values():
        assert len([line for line in err.splitlines() if line.startswith(f"asr: error: {path}")]) == 1, path
    assert f"{len(bad)} of {len(bad) + 1} files failed" in err
    assert "Traceback" not in err


def test_what_was_heard_before_the_damage_is_kept(
    bundle: Path, recording: Path, audio: NDArray[np.float32], capsys: pytest.CaptureFixture[str]
) -> None:
    path = broken_files(recording.parent, audio)["nan"]
    assert run(bundle, path) == 1
    heard = capsys.readouterr().out.strip()
    assert heard and expected(bundle, recording).startswith(heard[:10])


@pytest.mark.parametrize(("rate", "channels"), [(4000, 1), (8000, 2), (44100, 8), (192000, 1)])
def test_any_rate_and_channel_count_is_heard(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], rate: int, channels: int
) -> None:
    tone = np.sin(2 * np.pi * 300 * np.arange(rate * 2) / rate) * 0.3
    path = tmp_path / "tone.wav"
    soundfile.write(path, np.repeat(tone[:, None], channels, 1), rate)
    assert run(bundle, path) == 0
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith(f"{path}: ")]
    assert len(notes) == (rate < 8000) + (rate > 96000) + (channels > 2)


def test_two_files_of_one_name_do_not_overwrite_each_other(
    bundle: Path, recording: Path, tmp_path: Path
) -> None:
    with pytest.raises(SystemExit):
        run(bundle, "--output-dir", tmp_path, recording, tmp_path / "elsewhere" / recording.name)


def test_standard_input_is_heard_as_a_file_is(bundle: Path, recording: Path) -> None:
    command = [sys.executable, "-m", "asr", "transcribe", "--model", str(bundle), "--vad", "off", "-"]
    done = subprocess.run(command, input=recording.read_bytes(), capture_output=True, check=True)
    assert done.stdout.decode().strip() == expected(bundle, recording)


def test_transcribing_loads_nothing_of_training() -> None:
    code = (
        "import sys, asr.transcribe; print([m for m in ('lightning', 'lhotse', 'jiwer') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "[]"


def test_an_hour_at_once_keeps_the_resident_size_flat(bundle: Path) -> None:
    """An hour of audio from a generator: what is resident after it is what was after the first minutes."""
    code = f"""
import numpy as np, resource, torch
from asr.bundle import load_bundle
from asr.streaming import StreamingRecognizer
from asr.vad import VadConfig
from tests.conftest import signal
torch.set_num_threads(1)
vad = VadConfig(threshold=0)  # all of it is speech
recognizer = StreamingRecognizer(load_bundle({str(bundle)!r}), vad=vad)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
second = signal(1.0, 1)
for elapsed in range(3600):
    transcript = recognizer.accept(second)
    if elapsed == 300:
        before = peak()
print(peak() - before, len(transcript.words))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    growth, words = done.stdout.split()
    assert int(words) > 1000  # the transcript itself is what may grow
    assert float(growth) < 16  # MiB
