"""Capture without a sound card: the callback is called by the tests, from where PortAudio would."""

from __future__ import annotations

import builtins
import sys
import time
from collections.abc import Callable
from itertools import islice
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from asr import microphone
from asr.audio import Resampler
from asr.errors import UserError
from asr.microphone import HELD, Block, Device, Hear, Microphone, PortAudio, find
from tests.conftest import signal

DEVICES = [
    Device(3, "Built-in Audio: ALC257 (hw:0,0)", "ALSA", 48000, 2),
    Device(5, "USB Mic: Audio (hw:1,0)", "ALSA", 44100, 1),
    Device(8, "default", "ALSA", 44100, 2, default=True),
    Device(9, "USB Mic", "JACK", 48000, 1),
]


class Fake:
    """A capture whose devices a test plugs in, and into whose open device it speaks."""

    def __init__(self, *devices: Device, spoken: NDArray[np.float32] | None = None) -> None:
        self.plugged = list(devices)
        self.spoken = spoken  # at once, whenever a device is opened
        self.opened: list[Device] = []
        self.open_now = 0
        self.looked_again = 0
        self.hear: Hear
        self.ended: Callable[[], None]

    def devices(self, again: bool = False) -> list[Device]:
        assert not (again and self.open_now)
        self.looked_again += again
        return self.plugged

    def open(self, device: Device, hear: Hear, ended: Callable[[], None]) -> Fake:
        self.opened.append(device)
        self.open_now += 1
        self.hear, self.ended = hear, ended
        if self.spoken is not None:
            self.speak(self.spoken)
        return self

    def close(self) -> None:
        self.open_now -= 1

    def speak(self, samples: NDArray[np.float32]) -> None:
        """In calls of 20 ms, from one buffer that is used again, as PortAudio does."""
        size = self.opened[-1].rate // 50
        buffer = np.zeros((size, self.opened[-1].channels), np.float32)
        for start in range(0, len(samples), size):
            piece = samples[start : start + size]
            buffer[: len(piece)] = piece[:, None]
            self.hear(buffer[: len(piece)], time.monotonic(), False)
        buffer[:] = np.nan


class Listener:
    def __init__(self, fake: Fake, wanted: str | None = None) -> None:
        self.told: list[str] = []
        self.stopped = False
        self.microphone = Microphone(fake, wanted, self.told.append)
        self.blocks = self.microphone.blocks(lambda: self.stopped)

    def rest(self) -> NDArray[np.float32]:
        self.stopped = True
        return joined(list(self.blocks))


def joined(blocks: list[Block]) -> NDArray[np.float32]:
    return np.concatenate([block.samples for block in blocks])


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(microphone, "RETRY", 0.01)


# Which


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        (None, 8),
        ("3", 3),
        ("built-in", 3),
        ("usb mic", 9),
        ("USB Mic: Audio (hw:1,0)", 5),
        ("alc", 3),
        ("jack", 9),
    ],
)
def test_a_device_is_found_by_number_name_or_part_of_the_name(wanted: str | None, index: int) -> None:
    assert find(DEVICES, wanted).index == index


@pytest.mark.parametrize(
    ("wanted", "line"),
    [("headset", "no input is called 'headset': 3 Built-in.*9 USB Mic"), ("mic", "5 USB.*; 9")],
)
def test_a_name_that_is_not_one_device_names_those_there_are(wanted: str, line: str) -> None:
    with pytest.raises(UserError, match=line):
        find(DEVICES, wanted)


def test_no_device_is_one_line() -> None:
    with pytest.raises(UserError, match=r"no microphone: .* plug one in"):
        Microphone(Fake(), None, print)


# Sound


@pytest.mark.parametrize("device", DEVICES, ids=lambda device: f"{device.rate} Hz, {device.channels}")
def test_what_is_heard_is_the_sound_resampled_as_one_stream(device: Device) -> None:
    spoken = signal(1.0, seed=2)
    fake = Fake(device, spoken=spoken)
    listener = Listener(fake)
    first = next(listener.blocks)
    fake.speak(spoken)
    heard = np.concatenate([first.samples, listener.rest()])
    whole = Resampler(device.rate)
    expected = np.concatenate([whole.accept(np.tile(spoken, 2)), whole.finish()])
    np.testing.assert_array_equal(heard, expected)
    assert listener.told == [f"listening to {device.label}, {device.rate} Hz"]


def test_a_block_knows_when_it_was_spoken() -> None:
    fake = Fake(DEVICES[1], spoken=signal(0.5, seed=2))
    before = time.monotonic()
    block = next(Listener(fake).blocks)
    assert before <= block.captured <= time.monotonic()


def test_sound_that_finds_no_room_is_counted_once_and_in_seconds() -> None:
    device = Device(0, "fast", "test", 16000, 1)
    listener = Listener(Fake(device, spoken=np.ones(round(16000 * (HELD + 1.5)), np.float32)))
    first = next(listener.blocks)
    assert len(first.samples) == HELD * 16000
    assert (listener.microphone.overruns, listener.microphone.lost) == (1, 1.5)
    assert "1 times so far, 1.5 s" in listener.told[0]
    assert len(listener.rest()) == 0
    assert listener.microphone.overruns == 1


def test_overruns_of_the_device_are_counted_too() -> None:
    fake = Fake(DEVICES[1], spoken=signal(0.1, seed=2))
    listener = Listener(fake)
    next(listener.blocks)
    fake.hear(np.zeros((882, 1), np.float32), time.monotonic(), True)
    listener.rest()
    assert (listener.microphone.overruns, listener.microphone.lost) == (1, 0.0)


# Unplugged


def test_a_device_that_was_unplugged_goes_on_when_it_is_back_at_another_number_and_rate() -> None:
    here, later = DEVICES[1], Device(7, "USB Mic: Audio (hw:4,0)", "ALSA", 48000, 1)
    other = DEVICES[0]
    fake = Fake(other, here, spoken=signal(0.2, seed=2))
    listener = Listener(fake, wanted="5")
    next(listener.blocks)
    fake.plugged = [other]
    fake.ended()
    blocks = list(islice(listener.blocks, 6))
    assert fake.opened == [here]
    assert fake.looked_again >= 3
    assert not joined(blocks[1:]).any()  # after what was still inside the resampler
    fake.plugged = [other, later]
    while len(listener.told) < 3:
        assert len(next(listener.blocks).samples)
    assert fake.opened == [here, later]
    listener.rest()
    assert [line.split(",")[0] for line in listener.told[:2]] == [
        "listening to USB Mic: Audio (hw:1",
        "USB Mic: Audio (hw:1",
    ]
    assert "is gone" in listener.told[1]
    assert listener.told[2] == f"listening to {later.label}, 48000 Hz"
    assert fake.open_now == 0


def test_the_time_without_a_device_is_as_much_silence() -> None:
    fake = Fake(DEVICES[1], spoken=signal(0.2, seed=2))
    listener = Listener(fake)
    next(listener.blocks)
    fake.plugged = []
    fake.ended()
    next(listener.blocks)
    start = time.monotonic()
    silence = joined(list(islice(listener.blocks, 10)))
    assert len(silence) / 16000 == pytest.approx(time.monotonic() - start, abs=0.2)


def test_a_device_that_falls_silent_without_a_word_is_as_good_as_unplugged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(microphone, "STALLED", 0.05)
    fake = Fake(DEVICES[1], spoken=signal(0.2, seed=2))
    listener = Listener(fake)
    list(islice(listener.blocks, 4))
    assert len(fake.opened) == 2


def test_what_still_waits_at_the_end_is_heard() -> None:
    fake = Fake(Device(0, "mono", "test", 16000, 1), spoken=signal(0.2, seed=2))
    listener = Listener(fake)
    next(listener.blocks)
    fake.speak(signal(0.5, seed=3))
    np.testing.assert_array_equal(listener.rest(), signal(0.5, seed=3))
    assert fake.open_now == 0


# What is not there


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ModuleNotFoundError("No module named 'sounddevice'"), r"pip install 'asr\[mic\]'"),
        (OSError("PortAudio library not found"), "apt-get install libportaudio2"),
    ],
)
def test_a_missing_library_is_one_line_that_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, error: Exception, line: str
) -> None:
    imported = builtins.__import__

    def missing(name: str, *rest: Any) -> Any:
        if name == "sounddevice":
            raise error
        return imported(name, *rest)

    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(UserError, match=line):
        PortAudio()
