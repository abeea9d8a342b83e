"""A microphone as blocks of samples: which there are, their sound at their own rate, and what befalls them.

PortAudio calls back on a thread of its own, which must never wait: it puts what it heard into a bounded
queue, and what finds no room there is lost, counted and told. The other end takes all that is there,
resamples it as one stream, and gives silence for the time in which the device is unplugged. This file knows
nothing of recognisers, and everything that is PortAudio's own is in the class of that name.

S samples, C channels; times are those of `time.monotonic()`, in seconds.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Empty, Full, Queue
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from asr.audio import SAMPLE_RATE, Resampler
from asr.errors import UserError

PIECE = 0.02  # seconds of sound between two calls of PortAudio
HELD = 5.0  # seconds of sound that wait for a slow computer; what comes then is lost
STALLED = 5.0  # seconds without a call after which a device is as good as unplugged; Bluetooth takes three
WAIT = 0.1  # seconds after which somebody who waits for sound looks around
RETRY = 0.5  # seconds between two looks for a device that was unplugged

Hear = Callable[[NDArray[np.float32], float, bool], None]  # (S, C), when its last was spoken, overrun before


@dataclass(frozen=True)
class Device:
    """An input. `index` holds until the devices are looked for again, `rate` is the device's own, in Hz."""

    index: int
    name: str
    api: str
    rate: int
    channels: int
    default: bool = False

    @property
    def label(self) -> str:
        return f"{self.name}, {self.api}"


class Stream(Protocol):
    def close(self) -> None: ...


class Capture(Protocol):
    """What devices there are, and the sound of one: PortAudio, or what a test puts in its place."""

    def devices(self, again: bool = False) -> list[Device]:
        """again: look anew, after something was plugged or unplugged; no stream may be open then."""
        ...

    def open(self, device: Device, hear: Hear, ended: Callable[[], None]) -> Stream:
        """Calls `hear` and, when the device ends by itself, `ended`. Raises UserError."""
        ...


class Block(NamedTuple):
    """samples (S,) at SAMPLE_RATE, in [-1, 1]; `captured` is when the last of them was spoken."""

    samples: NDArray[np.float32]
    captured: float


def find(devices: Sequence[Device], wanted: str | None) -> Device:
    """By number, name or part of the name; None is the default. Raises UserError, naming what there is."""
    if not devices:
        raise UserError("no microphone: PortAudio sees no input; plug one in, or start the sound server")
    if wanted is None:
        return next((device for device in devices if device.default), devices[0])
    text = wanted.casefold()
    exact = [d for d in devices if text in (str(d.index), d.name.casefold(), d.label.casefold())]
    found = exact or [device for device in devices if text in device.label.casefold()]
    if len(found) == 1:
        return found[0]
    names = "; ".join(f"{device.index} {device.label}" for device in found or devices)
    problem = f"--device {wanted} could be several inputs" if found else f"no input is called {wanted!r}"
    raise UserError(f"{problem}: {names}")


class Microphone:
    """One input for as long as somebody listens, however often it is unplugged.

    wanted: as in `find`; None goes on with the default of then when its device is gone.
    tell: gets a line whenever something happens to the sound.
    overruns, lost: how often sound was lost, and the seconds of it that are known.
    Raises UserError where there is no such device.
    """

    def __init__(self, capture: Capture, wanted: str | None, tell: Callable[[str], None]) -> None:
        self.capture, self.tell = capture, tell
        self.device = find(capture.devices(), wanted)
        # Numbers are given anew each time, and those of ALSA's cards too.
        number = wanted is not None and wanted == str(self.device.index)
        self.wanted = re.sub(r" \(hw:.*\)$", "", self.device.name) if number else wanted
        self.overruns, self.lost = 0, 0.0
        self._before, self._told = (0, 0.0), -HELD

    def blocks(self, stop: Callable[[], bool]) -> Iterator[Block]:
        """What is heard until `stop()`, asked ten times a second or more, with what still waits then.

        Raises UserError where the device cannot be opened at first.
        """
        line: _Line | None = _Line(self.capture, self.device)
        while line:
            yield from self._heard(line, stop)
            line = None if stop() else (yield from self._unplugged(line.captured, stop))

    def _heard(self, line: _Line, stop: Callable[[], bool]) -> Iterator[Block]:
        """Until it stops or ends."""
        resampler, heard, waited = Resampler(self.device.rate), False, 0.0
        self._before = self.overruns, self.lost
        try:
            while not stop():
                samples = line.take(WAIT)
                waited = 0.0 if len(samples) else waited + WAIT  # a clock would count the sleep of a computer
                self._count(line)
                if len(samples):
                    if not heard:  # a second after it was opened, with PulseAudio
                        self.tell(f"listening to {self.device.label}, {self.device.rate} Hz")
                        heard = True
                    yield Block(resampler.accept(samples), line.captured)
                elif line.ended or waited > STALLED:
                    break
        finally:
            line.close()
        rest = [resampler.accept(line.take()), resampler.finish()]
        self._count(line)
        yield Block(np.concatenate(rest), line.captured)

    def _unplugged(self, since: float, stop: Callable[[], bool]) -> Generator[Block, None, _Line | None]:
        """Silence, as long as it lasts, so that words end and times go on; then the device as it is now."""
        self.tell(f"{self.device.label} is gone: plug it in again, or end with Ctrl-C")
        line = None
        while not line and not stop():
            time.sleep(RETRY)
            line = self._again()
            now = time.monotonic()
            yield Block(np.zeros(round((now - since) * SAMPLE_RATE), np.float32), now)
            since = now
        return line

    def _again(self) -> _Line | None:
        try:
            self.device = find(self.capture.devices(again=True), self.wanted)
            return _Line(self.capture, self.device)
        except UserError:  # not yet
            return None

    def _count(self, line: _Line) -> None:
        """What the line has lost is added to what those before it had."""
        overruns, lost = self._before
        counted, self.overruns = self.overruns, overruns + line.overruns
        self.lost = lost + line.lost / self.device.rate
        if self.overruns > counted and time.monotonic() > self._told + HELD:  # some drivers never stop
            self._told = time.monotonic()
            self.tell(f"overrun: sound was lost, {self.overruns} times so far, {self.lost:.1f} s of it known")


class _Line:
    """An open device and the queue between its thread and ours."""

    def __init__(self, capture: Capture, device: Device) -> None:
        self._channels = device.channels
        self._queue: Queue[tuple[NDArray[np.float32], float]] = Queue(round(HELD / PIECE))
        self._full = False
        self.overruns, self.lost, self.ended = 0, 0, False  # lost: samples; both only grow
        self.captured = time.monotonic()  # when the last sample taken was spoken
        self._stream = capture.open(device, self._hear, self._end)

    def take(self, wait: float = 0.0) -> NDArray[np.float32]:
        """All that is there (S, C), waiting so many seconds for the first of it."""
        pieces = []
        try:
            pieces.append(self._queue.get(timeout=wait) if wait else self._queue.get_nowait())
            while True:
                pieces.append(self._queue.get_nowait())
        except Empty:
            pass
        if not pieces:
            return np.zeros((0, self._channels), np.float32)
        self.captured = pieces[-1][1]
        return np.concatenate([samples for samples, _ in pieces])

    def close(self) -> None:
        self._stream.close()

    def _hear(self, samples: NDArray[np.float32], captured: float, overrun: bool) -> None:
        """On PortAudio's thread."""
        self.overruns += overrun
        try:
            self._queue.put_nowait((samples.copy(), captured))
            self._full = False
        except Full:
            self.overruns += not self._full  # one overrun, however much it loses
            self._full = True
            self.lost += len(samples)

    def _end(self) -> None:
        self.ended = True


# PortAudio


class PortAudio:
    """PortAudio through sounddevice. Raises UserError where either is missing."""

    def __init__(self) -> None:
        try:
            with _quiet():
                import sounddevice
        except ModuleNotFoundError:
            raise UserError("the microphone needs sounddevice: pip install 'asr[mic]'") from None
        except OSError:
            raise UserError("the microphone needs PortAudio: apt-get install libportaudio2") from None
        self._library: Any = sounddevice

    def devices(self, again: bool = False) -> list[Device]:
        if again:  # PortAudio looks once, when it starts
            with _quiet():
                self._library._terminate()
                self._library._initialize()
        apis = self._library.query_hostapis()
        defaults = [api["default_input_device"] for api in apis if api["default_input_device"] >= 0]
        return [
            Device(
                index,
                entry["name"],
                apis[entry["hostapi"]]["name"],
                round(entry["default_samplerate"]),
                min(2, entry["max_input_channels"]),  # sound servers offer 32 of anything
                index in defaults[:1],
            )
            for index, entry in enumerate(self._library.query_devices())
            if entry["max_input_channels"] > 0
        ]

    def open(self, device: Device, hear: Hear, ended: Callable[[], None]) -> Stream:
        def callback(samples: NDArray[np.float32], count: int, clock: Any, status: Any) -> None:
            age = clock.currentTime - clock.inputBufferAdcTime - count / device.rate
            # Some drivers give no times, or nonsense.
            age = age if 0 <= age < HELD else stream.latency
            hear(samples, time.monotonic() - age, status.input_overflow)

        try:
            with _quiet():
                stream = self._library.InputStream(
                    device=device.index,
                    channels=device.channels,
                    samplerate=device.rate,
                    blocksize=round(device.rate * PIECE),
                    dtype="float32",
                    callback=callback,
                    finished_callback=ended,
                )
                stream.start()
        except self._library.PortAudioError as error:
            reason = str(error).split(" [")[0].removeprefix("Error opening InputStream: ")
            raise UserError(
                f"{device.label}: cannot be opened ({reason}): does another program use it? asr mic --list"
            ) from None
        return _Quietly(stream)


class _Quietly:
    """PortAudio says on standard error what becomes of a device that is gone already."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def close(self) -> None:
        with _quiet():
            self._stream.close(ignore_errors=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """ALSA's C library tells standard error of each device that it does not find, dozens of lines."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
