"""`asr mic`: speak, and read what you say; Ctrl-C ends it.

Each segment is a line on standard output when its end is heard. Before that it stands on the terminal,
committed words plain and tentative ones dim, over the level of the microphone and the latency: how long ago,
at most, a sound was made that this text is the first to know of (lookahead, chunk, and what device, queue and
computing really take). Everything but the text goes to standard error.

A microphone that is unplugged is waited for, and the time without it is silence. Sound that comes faster than
this computer hears it waits for 5 s; what is lost then is cut out, counted and told.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.text import Text

from asr import formats
from asr.audio import SAMPLE_RATE, is_silent
from asr.bundle import load_bundle
from asr.cli import at_least
from asr.decoding_options import add_options, recogniser_options
from asr.errors import UserError
from asr.live import Show, add_partials, partials
from asr.microphone import Block, Capture, Device, Microphone, PortAudio
from asr.models import add_model
from asr.streaming import StreamingRecognizer
from asr.transcript import Transcript, join

METER, QUIETEST = 20, -60.0  # characters, dB of full scale
FALL = 20.0  # dB a second by which the meter falls at most


def main(argv: list[str] | None = None, capture: Capture | None = None) -> int:
    args = parse(argv)
    capture = capture or PortAudio()
    if args.list:
        print("\n".join(map(listed, capture.devices())) or "no input that PortAudio sees")
        return 0
    screen = Console(stderr=True, highlight=False, markup=False)

    def tell(line: str) -> None:
        screen.print(line, style="dim", soft_wrap=True)

    microphone = Microphone(capture, args.device, tell)
    torch.set_num_threads(args.threads)
    bundle = load_bundle(args.model)
    tell(f"{args.model}: {bundle.model.describe()}")
    session = Session(StreamingRecognizer(*recogniser_options(args, bundle)), microphone, screen)
    with recording(args.save) if args.save else nullcontext() as tape:
        with stopping() as stop, partials(screen, args.partials, by_segment=True) as show:
            for block in microphone.blocks(stop):
                if tape:
                    tape(block.samples)
                session.hear(block, show)
        transcript = session.finish()
        if args.save:
            with_suffix(args.save, "json").write_text(formats.render(transcript, "json"), encoding="utf-8")
    tell(session.summary())
    if not session.sound:
        print(f"asr: error: {microphone.device.label}: every sample was zero; is it muted?", file=sys.stderr)
    return 0 if session.sound else 1


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="asr mic", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_model(parser)
    parser.add_argument("--list", action="store_true", help="list the inputs, * is the default, and end")
    parser.add_argument("--device", metavar="NAME", help="number, name or a part of the name of an input")
    parser.add_argument("--save", type=Path, metavar="NAME", help="write NAME.wav (as heard) and NAME.json")
    parser.add_argument(
        "--chunk", type=at_least(0, float), default=80, metavar="MS", help="audio computed at once (80)"
    )
    add_partials(parser)
    parser.add_argument(
        "--threads", type=at_least(1, int), default=1, help="for the model; one is best for one stream"
    )
    add_options(parser)
    return parser.parse_args(argv)


def listed(device: Device) -> str:
    mark = "*" if device.default else " "
    return f"{mark} {device.index:3}  {device.label}, {device.rate} Hz"


@contextmanager
def stopping() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C (or SIGTERM) has come. The second one ends the program at once."""
    stopped = False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: stopped
    finally:
        restore()


def with_suffix(path: Path, suffix: str) -> Path:
    return path.with_name(f"{path.name}.{suffix}")  # NAME may have dots


@contextmanager
def recording(path: Path) -> Iterator[Callable[[NDArray[np.float32]], None]]:
    """NAME.wav, 16 bit at the recogniser's rate, whole up to its last block even if the program is killed."""
    target = with_suffix(path, "wav")
    for old in (target, with_suffix(path, "json")):
        if old.exists():
            raise UserError(f"{old}: is there already: --save another name, or move it away")
    try:
        file = target.open("wb")
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({error.strerror}): check the folder") from error
    with file, wave.Wave_write(file) as tape:
        tape.setnchannels(1)
        tape.setsampwidth(2)
        tape.setframerate(SAMPLE_RATE)
        yield lambda samples: tape.writeframes((samples * 32768).round().clip(-32768, 32767).astype("<i2"))


class Session:
    """From blocks to text on the screen, and what there is to say of them at the end."""

    def __init__(self, recognizer: StreamingRecognizer, microphone: Microphone, screen: Console) -> None:
        self.recognizer, self.microphone, self.screen = recognizer, microphone, screen
        self.sound = False  # any at all
        self._heard = 0  # samples
        self._printed = 0  # words
        self._level, self._at = QUIETEST, time.monotonic()
        self._latencies = Latencies(recognizer)

    def hear(self, block: Block, show: Show) -> None:
        self.sound = self.sound or not is_silent(block.samples)
        transcript = self.recognizer.accept(block.samples)
        self._heard += len(block.samples)
        self._latencies.add(self._heard, time.monotonic() - block.captured)
        self._print(transcript)
        self._level = max(decibels(block.samples), self._level - FALL * (time.monotonic() - self._at))
        self._at = time.monotonic()
        show(transcript, self._heard / SAMPLE_RATE, self._status())

    def finish(self) -> Transcript:
        transcript = self.recognizer.finish()
        self._print(transcript)
        self._line(transcript, transcript.count)
        return transcript

    def summary(self) -> str:
        lost = f" ({self.microphone.lost:.1f} s known to be lost)" if self.microphone.overruns else ""
        return (
            f"heard {self._heard / SAMPLE_RATE:.1f} s; latency {self._latencies.mean:.2f} s, at worst"
            f" {self._latencies.worst:.2f} s; {self.microphone.overruns} overruns{lost}"
        )

    def _print(self, transcript: Transcript) -> None:
        for endpoint in transcript.new_endpoints:
            self._line(transcript, endpoint.words)

    def _line(self, transcript: Transcript, end: int) -> None:
        """Words up to a segment's end to standard output; over the live region if that is on its screen."""
        text = join(transcript.record.words[self._printed : end])
        self._printed = end
        if text and self.screen.is_terminal and sys.stdout.isatty():
            self.screen.print(text, soft_wrap=True)
        elif text:
            print(text, flush=True)

    def _status(self) -> Text:
        filled = round(METER * (1 - max(self._level, QUIETEST) / QUIETEST))
        colour = "green" if self._level < -12 else "yellow" if self._level < -1 else "red"
        text = Text(no_wrap=True, overflow="ellipsis")
        text.append("━" * filled, colour).append("━" * (METER - filled), "bright_black")
        text.append(f" {self._level:4.0f} dB" if self.sound else "   no sound: is it muted?")
        text.append(f"   latency {self._latencies.last:.2f} s   {self._heard / SAMPLE_RATE:.0f} s", "dim")
        if overruns := self.microphone.overruns:
            text.append(f"   {overruns} overruns, {self.microphone.lost:.1f} s lost", "red")
        return text


class Latencies:
    """Of each of the recogniser's steps, in seconds: the age of the oldest sound in it that is new."""

    def __init__(self, recognizer: StreamingRecognizer) -> None:
        self._chunk = recognizer.chunk
        self._lookahead = recognizer.model.lookahead * recognizer.model.frame_seconds
        self._computed = 0  # samples
        self._sum, self._steps = 0.0, 0
        self.last, self.worst = 0.0, 0.0

    def add(self, heard: int, age: float) -> None:
        """After a block: the samples of the stream so far, and the age of the last of them."""
        computed = heard // self._chunk * self._chunk
        if computed > self._computed:
            self.last = age + (heard - self._computed) / SAMPLE_RATE + self._lookahead
            self.worst = max(self.worst, self.last)
            self._sum, self._steps = self._sum + self.last, self._steps + 1
            self._computed = computed

    @property
    def mean(self) -> float:
        return self._sum / max(1, self._steps)


def decibels(samples: NDArray[np.float32]) -> float:
    """The peak, of full scale."""
    peak = float(np.abs(samples).max(initial=0.0))
    return max(QUIETEST, 20 * float(np.log10(max(peak, 1e-6))))
