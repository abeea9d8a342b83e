"""`asr mic` as its users call it, with a fake microphone and, where there is PulseAudio, with a real one."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal as signals
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from asr import microphone
from asr.bundle import load_bundle
from asr.errors import UserError
from asr.mic import main
from asr.microphone import Device, Hear
from asr.streaming import StreamingRecognizer
from asr.transcript import Transcript
from tests.conftest import signal

HEADSET = Device(1, "Headset", "test", 16000, 1, default=True)


class Fake:
    """A microphone whose speaker, on a thread as PortAudio's, ends with Ctrl-C."""

    def __init__(
        self, spoken: NDArray[np.float32], *devices: Device, unplugged: bool = False, pause: float = 0.005
    ) -> None:
        self.spoken, self.plugged, self.unplugged, self.pause = spoken, list(devices), unplugged, pause

    def devices(self, again: bool = False) -> list[Device]:
        return self.plugged

    def open(self, device: Device, hear: Hear, ended: Callable[[], None]) -> Fake:
        def speak() -> None:
            for piece in np.array_split(self.spoken, 50):
                time.sleep(self.pause)
                hear(piece[:, None], time.monotonic(), False)
            if self.unplugged:
                self.unplugged = False
                ended()
            else:
                os.kill(os.getpid(), signals.SIGINT)

        threading.Thread(target=speak).start()
        return self

    def close(self) -> None:
        pass


@pytest.fixture
def spoken() -> NDArray[np.float32]:
    return signal(3.0, seed=1)


def text_of(bundle: Path, samples: NDArray[np.float32]) -> str:
    recognizer = StreamingRecognizer(load_bundle(bundle), vad=None)
    recognizer.accept(samples)
    return recognizer.finish().text


def run(bundle: Path, capture: Fake, *arguments: object) -> int:
    return main(["--model", str(bundle), "--vad", "off", *map(str, arguments)], capture)


def test_what_is_said_before_ctrl_c_is_all_there(
    bundle: Path, spoken: NDArray[np.float32], capsys: pytest.CaptureFixture[str]
) -> None:
    handler = signals.getsignal(signals.SIGINT)
    assert run(bundle, Fake(spoken, HEADSET), "--endpoint-max-length", 0) == 0
    out, err = capsys.readouterr()
    assert out.strip() == text_of(bundle, spoken) != ""
    assert "listening to Headset, test, 16000 Hz" in err
    assert re.search(r"heard 3\.0 s; latency \d\.\d\d s, at worst \d+\.\d\d s; 0 overruns\n", err)
    assert signals.getsignal(signals.SIGINT) is handler


def test_each_segment_is_a_line_and_no_word_is_lost_or_doubled(
    bundle: Path, spoken: NDArray[np.float32], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(bundle, Fake(spoken, HEADSET), "--endpoint-max-length", 0.5) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 1
    assert " ".join(lines) == text_of(bundle, spoken)


def test_partials_show_the_segment_that_is_being_said(
    bundle: Path, spoken: NDArray[np.float32], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(bundle, Fake(spoken, HEADSET), "--partials", "lines", "--endpoint-max-length", 0.5) == 0
    out, err = capsys.readouterr()
    partials = [line.split(" s  ")[1] for line in err.splitlines() if re.match(r" +\d+\.\d\d s  ", line)]
    assert any("[" in partial for partial in partials)  # tentative text stands in brackets
    assert max(map(len, partials)) < len(out.replace("\n", " "))


def test_what_was_heard_is_saved_beside_its_transcript(
    bundle: Path, spoken: NDArray[np.float32], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(bundle, Fake(spoken, HEADSET), "--save", tmp_path / "talk.1") == 0
    samples, rate = soundfile.read(tmp_path / "talk.1.wav", dtype="float32")
    assert rate == 16000
    np.testing.assert_allclose(samples, spoken, atol=1 / 32768)
    assert json.loads((tmp_path / "talk.1.json").read_text())["text"] == text_of(bundle, spoken)


def test_a_recording_that_is_there_is_never_written_over(
    bundle: Path, spoken: NDArray[np.float32], tmp_path: Path
) -> None:
    (tmp_path / "talk.json").write_text("mine")
    with pytest.raises(UserError, match="another name"):
        run(bundle, Fake(spoken, HEADSET), "--save", tmp_path / "talk")
    with pytest.raises(UserError, match="check the folder"):
        run(bundle, Fake(spoken, HEADSET), "--save", tmp_path / "nowhere" / "talk")
    assert [path.name for path in tmp_path.iterdir()] == ["talk.json"]


def test_a_microphone_that_is_plugged_in_again_is_heard_further(
    bundle: Path,
    spoken: NDArray[np.float32],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(microphone, "RETRY", 0.01)
    assert run(bundle, Fake(spoken, HEADSET, unplugged=True)) == 0
    err = capsys.readouterr().err
    assert err.count("listening to") == 2
    assert "Headset, test is gone: plug it in again" in err
    assert float(re.findall(r"heard (\d+\.\d) s", err)[0]) >= 6


def test_overruns_are_told_at_the_end(
    bundle: Path,
    spoken: NDArray[np.float32],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    accept = StreamingRecognizer.accept

    def accept_slowly(self: StreamingRecognizer, samples: NDArray[np.float32]) -> Transcript:
        time.sleep(0.05)  # meanwhile the fake says everything
        return accept(self, samples)

    monkeypatch.setattr(StreamingRecognizer, "accept", accept_slowly)
    monkeypatch.setattr(microphone, "HELD", 0.1)  # five of the fake's calls
    assert run(bundle, Fake(spoken, HEADSET, pause=0)) == 0
    err = capsys.readouterr().err
    assert re.search(r"[1-9]\d* overruns \([0-3]\.\d s known to be lost\)", err)


def test_a_muted_microphone_is_an_error(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(bundle, Fake(np.zeros(16000, np.float32), HEADSET)) == 1
    assert "asr: error: Headset, test: every sample was zero; is it muted?" in capsys.readouterr().err


def test_a_wrong_name_is_told_before_the_model_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no input is called 'USB': 1 Headset, test"):
        run(tmp_path / "no model", Fake(np.zeros(1, np.float32), HEADSET), "--device", "USB")


def test_listing_needs_no_model(capsys: pytest.CaptureFixture[str]) -> None:
    capture = Fake(np.zeros(1, np.float32), Device(0, "Webcam", "test", 48000, 2), HEADSET)
    assert main(["--list"], capture) == 0
    assert capsys.readouterr().out == "    0  Webcam, test, 48000 Hz\n*   1  Headset, test, 16000 Hz\n"


def test_on_a_terminal_text_stands_over_level_and_latency(
    bundle: Path, spoken: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    from rich.console import Console
    from rich.live import Live

    shown: list[str] = []

    class Terminal(Live):
        def update(self, renderable: object, *, refresh: bool = False) -> None:
            console = Console(width=100, force_terminal=True, color_system="standard")
            with console.capture() as captured:
                console.print(renderable)
            shown.append(captured.get())

    monkeypatch.setattr("asr.live.Live", Terminal)
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes standard error for a terminal
    assert run(bundle, Fake(spoken, HEADSET, pause=0.02), "--stable-frames", 0) == 0
    assert all(re.search(r"dB.*latency \d\.\d\d s", text.splitlines()[-1]) for text in shown)
    assert any("\x1b[2m" in text.splitlines()[0] for text in shown)  # dim


# A real sound server


def missing() -> str | None:
    for program in ("pulseaudio", "pactl", "pacat", "paplay"):
        if not shutil.which(program):
            return f"no {program}"
    try:
        import sounddevice  # noqa: F401
    except (ImportError, OSError) as error:
        return str(error)
    return None


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A sink of 44.1 kHz that nobody hears, and a microphone that hears it: no resampling but ours."""
    if reason := missing():
        pytest.skip(f"needs PulseAudio, PortAudio and sounddevice: {reason}")
    for name in ("XDG_RUNTIME_DIR", "PULSE_STATE_PATH"):
        directory = tmp_path / name
        directory.mkdir(mode=0o700)
        monkeypatch.setenv(name, str(directory))
    protocol = "module-native-protocol-unix auth-anonymous=1 auth-cookie-enabled=0"
    sink = "module-null-sink sink_name=fakemic rate=44100 channels=1"
    command = [
        "pulseaudio",
        "-n",
        "--exit-idle-time=-1",
        "-L",
        protocol,
        "-L",
        sink,
        "-L",
        "module-always-sink",
    ]
    processes = [subprocess.Popen(command, stderr=subprocess.DEVNULL)]
    try:
        wait(lambda: subprocess.run(["pactl", "info"], capture_output=True).returncode == 0)
        remap = ["module-remap-source", "master=fakemic.monitor", "source_name=fakemic_src"]
        subprocess.run(["pactl", "load-module", *remap], check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["pactl", "set-default-source", "fakemic_src"], check=True)
        silence = ["pacat", "--raw", "--format=s16le", "--rate=44100", "--channels=1", "--device=fakemic"]
        with open("/dev/zero", "rb") as zeros:  # else the first 100 ms are lost
            processes.append(subprocess.Popen(silence, stdin=zeros, stderr=subprocess.DEVNULL))
        yield
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait(10)


def wait(until: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, "nothing came"
        time.sleep(0.1)


def test_what_a_sound_server_plays_comes_out_as_from_the_file(
    server: None, bundle: Path, tmp_path: Path
) -> None:
    """Up to where in its frames the recording began, which the file is given too."""
    time_ = np.arange(3 * 44100) / 44100
    played = 0.3 * np.sin(2 * np.pi * (300 * time_ + 40 * np.sin(2 * np.pi * time_))) * (time_ * 3 % 1 < 0.7)
    soundfile.write(tmp_path / "played.wav", played, 44100)
    log = tmp_path / "log"
    options = ["--model", str(bundle), "--vad", "off", "--save", str(tmp_path / "take")]
    with log.open("wb") as err:
        mic = subprocess.Popen(
            [sys.executable, "-m", "asr", "mic", *options], stdout=subprocess.PIPE, stderr=err, text=True
        )
    try:
        wait(lambda: "listening to" in log.read_text() or mic.poll() is not None)
        subprocess.run(["paplay", "--device=fakemic", str(tmp_path / "played.wav")], check=True)
        time.sleep(1)
    finally:
        mic.send_signal(signals.SIGINT)
    text = " ".join(mic.communicate(timeout=60)[0].split())
    assert mic.returncode == 0, log.read_text()
    heard = soundfile.read(tmp_path / "take.wav", dtype="float32")[0]
    same, difference = aligned(soundfile.read(tmp_path / "played.wav", dtype="float32")[0], heard)
    assert difference < 2 / 32768
    assert text == text_of(bundle, same) != ""
    assert json.loads((tmp_path / "take.json").read_text())["text"] == text


def aligned(played: NDArray[np.float32], heard: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
    """What is heard (16 kHz), made of what was played (44.1 kHz) and silence; the largest difference."""
    from asr.audio import Resampler

    def at(start: int) -> NDArray[np.float32]:
        resampler = Resampler(44100)
        lead, rest = np.zeros(start, np.float32), np.zeros(44100 * 9, np.float32)
        return resampler.accept(np.concatenate([lead, played, rest]))[: len(heard)]

    size = 1 << (len(heard) * 2).bit_length()
    spectra = np.fft.rfft(heard, size) * np.conj(np.fft.rfft(at(0), size))
    start = round(int(np.fft.irfft(spectra)[: len(heard)].argmax()) * 44100 / 16000)
    tries = [at(max(0, start + shift)) for shift in range(-3, 4)]
    best = min(tries, key=lambda candidate: float(np.abs(candidate - heard).max()))
    return best, float(np.abs(best - heard).max())
