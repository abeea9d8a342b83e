"""Many callers at once: how late words are, what a stream costs, and how many streams a server carries.

    python -m benchmarks.streams --model BUNDLE --audio LibriSpeech/dev-clean --streams 10 20 40 60 80 \
        --seconds 30 [--faults] [--output FILE]

Starts `asr serve` and, for each number of streams, so many callers of its native websocket, who speak real
recordings in real time, pieces of 100 ms, a third of them at 8 kHz, at 16 kHz and at 48 kHz. They begin at
random within one chunk, and end when their recording does.

lag: from the moment at which a caller sent the last sample that an update knows until the update came back.
CPU: of the server, in per cent of one core, a stream. memory: what the server has beyond its memory before
the first caller, a stream; growth: from the middle of the run to its end; said: what the transcripts of the
words said meanwhile take of it, which a stream keeps until it ends. wrong: callers whose text is not,
byte for byte, that of `StreamingRecognizer` alone. Callers share the machine's cores with the server.

--faults: beside the callers there are always two of each of these: one that vanishes again and again, one
that stops reading, one that is silent, one that sends garbage, one that floods with messages of one byte, and
one that floods with messages as large as they may be.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from rich.console import Console
from rich.table import Table
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from asr import audio
from asr.bundle import Bundle, load_bundle
from asr.cli import at_least, run
from asr.errors import UserError
from asr.packed import Packed
from asr.serving.pcm import Pcm
from asr.streaming import StreamingRecognizer
from asr.transcript import Transcript, Word
from benchmarks.common import add_output, check_output, write_json

PIECE = 0.1  # seconds of audio in a message
RATES = (16000, 8000, 48000)
SPOKEN = 12  # different recordings: neighbours say other words
TARGET = 0.3  # seconds of lag that 99 % of updates keep
SETTLED = 3.0  # seconds at the beginning that are not counted: everybody comes at once
EACH = 2  # of every kind of fault


@dataclass(frozen=True)
class Spoken:
    """What a caller says, as 16-bit PCM, and what the server has to answer."""

    rate: int
    data: bytes
    text: str
    record: int  # bytes of the words' record, of the recording's second half

    @property
    def pieces(self) -> list[bytes]:
        size = 2 * round(PIECE * self.rate)
        return [self.data[start : start + size] for start in range(0, len(self.data), size)]


@dataclass
class Heard:
    """By all callers of a run."""

    lags: list[float] = field(default_factory=list)
    wrong: int = 0
    refused: int = 0


@dataclass(frozen=True)
class Row:
    """Seconds, shares of a core, MiB."""

    streams: int
    faults: bool
    lag_p50: float
    lag_p95: float
    lag_p99: float
    cpu_per_stream: float
    cpu_of_callers: float
    memory_per_stream: float
    growth: float
    said: float
    wrong: int
    refused: int

    @property
    def holds(self) -> bool:
        return self.lag_p99 < TARGET and not self.wrong and not self.refused


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="benchmarks.streams", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    count = at_least(1, int)
    parser.add_argument("--model", type=Path, required=True, metavar="BUNDLE")
    parser.add_argument("--audio", type=Path, required=True, metavar="FOLDER", help="of recordings")
    parser.add_argument("--streams", type=count, nargs="+", default=[10, 20, 40, 60], metavar="N")
    parser.add_argument("--seconds", type=at_least(10, int), default=30, help="of each caller's recording")
    parser.add_argument("--chunk", type=at_least(0, float), default=160, metavar="MS")
    parser.add_argument("--threads", type=count, default=1, help="of the server's model")
    parser.add_argument("--faults", action="store_true", help="every number of streams again, with faults")
    add_output(parser)
    args = parser.parse_args(argv)
    check_output(args.output)
    torch.set_num_threads(1)
    bundle = load_bundle(args.model)
    bundle.model.packed = Packed(bundle.model, "int8")  # as `asr serve` has it
    spoken = recordings(args.audio, args.seconds, bundle)
    rows = []
    for streams in args.streams:
        for faults in (False, True) if args.faults else (False,):
            rows.append(measure(args, streams, faults, spoken))
            show(rows[-1:], args)
    show(rows, args)
    write_json(args.output, "streams", "many callers of asr serve at once", argv, rows)
    return 0


def recordings(folder: Path, seconds: int, bundle: Bundle) -> list[Spoken]:
    """Different speakers' recordings, one after the other, until each caller has enough to say."""
    files = [path for path in sorted(folder.rglob("*")) if path.suffix in (".flac", ".wav")]
    if not files:
        raise UserError(f"{folder}: holds no .flac or .wav: name a folder of recordings")
    random.Random(1).shuffle(files)
    spoken = []
    for number in range(SPOKEN):
        rate, samples = RATES[number % len(RATES)], np.zeros(0, np.float32)
        while len(samples) < seconds * rate:
            samples = np.concatenate([samples, audio.read(files.pop(0), rate)])
            files.append(files[0])  # few recordings are said again
        data = (32767 * samples[: seconds * rate].clip(-1, 1)).astype("<i2").tobytes()
        transcript = alone(bundle, rate, data)
        late = [word for word in transcript.words if word.end > seconds / 2]
        spoken.append(Spoken(rate, data, transcript.text, sum(map(size, late))))
    return spoken


def size(word: Word) -> int:
    """Bytes of a record that it takes: place in the list, itself, its numbers; its text is the lexicon's."""
    return 8 + sys.getsizeof(word) + sum(map(sys.getsizeof, (word.start, word.end, word.confidence)))


def alone(bundle: Bundle, rate: int, data: bytes) -> Transcript:
    recognizer = StreamingRecognizer(bundle)
    pcm = Pcm(rate, bundle.model.config.frontend.rate)
    recognizer.accept(pcm.accept(data))
    recognizer.accept(pcm.finish())
    return recognizer.finish()


def measure(args: argparse.Namespace, streams: int, faults: bool, spoken: Sequence[Spoken]) -> Row:
    command = [sys.executable, "-m", "asr", "serve", "--model", str(args.model), "--port", "0"]
    command += ["--chunk", str(args.chunk), "--threads", str(args.threads), "--log-level", "info"]
    command += ["--streams-per-client", "100000", "--max-streams", "100000"]
    with serving(command) as (url, process):
        before, cpu, own = rss(process), used(process), used(psutil.Process())
        heard, memory, began = Heard(), [before], time.monotonic()
        asyncio.run(callers(url, streams, faults, spoken, heard, lambda: memory.append(rss(process))))
        wall = time.monotonic() - began
        cpu, own = (used(process) - cpu) / wall, (used(psutil.Process()) - own) / wall
    lags = sorted(heard.lags) or [math.inf]
    p50, p95, p99 = (lags[int(share * (len(lags) - 1))] for share in (0.5, 0.95, 0.99))
    half = memory[len(memory) // 2]
    return Row(
        streams,
        faults,
        lag_p50=p50,
        lag_p95=p95,
        lag_p99=p99,
        cpu_per_stream=cpu / streams,
        cpu_of_callers=own,
        memory_per_stream=(half - before) / streams,
        growth=memory[-1] - half,
        said=sum(spoken[n % SPOKEN].record for n in range(streams)) / 2**20,
        wrong=heard.wrong,
        refused=heard.refused,
    )


@contextmanager
def serving(command: Sequence[str]) -> Any:
    """The server's websocket and its process."""
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        lines = iter(process.stderr)
        event = next((each for each in map(json.loads, lines) if each["event"] == "listening"), None)
        if event is None:
            raise UserError("asr serve did not start: run it by itself to see why")
        try:
            reader = threading.Thread(target=lambda: [None for _ in lines])
            reader.start()  # or it would wait for somebody to read its log
            yield event["urls"][0].replace("http", "ws") + "v1/stream", psutil.Process(process.pid)
        finally:
            process.terminate()
            reader.join()


def rss(process: psutil.Process) -> float:
    return process.memory_info().rss / 2**20


def used(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


async def callers(
    url: str, streams: int, faults: bool, spoken: Sequence[Spoken], heard: Heard, each_second: Callable
) -> None:
    async def clock() -> None:
        while True:
            await asyncio.sleep(1)
            each_second()

    others = [clock()]
    if faults:
        others += [again(fault, url, spoken[0]) for fault in FAULTS for _ in range(EACH)]
    tasks = [asyncio.create_task(other) for other in others]
    begin = time.monotonic() + SETTLED
    await asyncio.gather(*(call(url, spoken[n % SPOKEN], heard, begin) for n in range(streams)))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def call(url: str, spoken: Spoken, heard: Heard, counted: float) -> None:
    """One caller, who begins at some time within a second. counted: from when lags are."""
    await asyncio.sleep(random.random())
    sent: list[float] = []  # when each piece was
    async with calling(url, spoken.rate) as socket:
        speaking = asyncio.create_task(speak(socket, spoken.pieces, sent))
        try:
            async for message in socket:
                now, news = time.monotonic(), json.loads(message)
                if news["type"] == "error":
                    heard.refused += 1
                    break
                if news["type"] == "finished":
                    heard.wrong += news["text"] != spoken.text
                    return
                if news["type"] == "update" and now > counted:
                    last = min(len(sent), max(1, -int(-news["heard"] // PIECE)))
                    heard.lags.append(now - sent[last - 1])
            else:
                heard.wrong += 1
        except ConnectionClosed:
            heard.wrong += 1
        finally:
            speaking.cancel()


async def speak(socket: ClientConnection, pieces: Sequence[bytes], sent: list[float]) -> None:
    begin = time.monotonic()
    for number, piece in enumerate(pieces, 1):
        await asyncio.sleep(begin + number * PIECE - time.monotonic())
        sent.append(time.monotonic())
        await socket.send(piece)
    await socket.send('{"type": "finish"}')


@asynccontextmanager
async def calling(url: str, rate: int) -> AsyncIterator[ClientConnection]:
    async with connect(url, compression=None, max_size=None, max_queue=4, close_timeout=1) as socket:
        await socket.send(json.dumps({"type": "start", "rate": rate}))
        yield socket


# Faults


async def again(fault: Callable[[ClientConnection, Spoken], Coroutine], url: str, spoken: Spoken) -> None:
    """For ever; whatever the server says to it."""
    while True:
        with suppress(ConnectionClosed, OSError):
            async with calling(url, spoken.rate) as socket:
                await fault(socket, spoken)
        await asyncio.sleep(0.1)


async def vanish(socket: ClientConnection, spoken: Spoken) -> None:
    await speak(socket, spoken.pieces[:10], [])
    socket.transport.abort()


async def stall(socket: ClientConnection, spoken: Spoken) -> None:
    """Speaks, and never reads: the client's queue fills, then the kernel's buffers, then the server's."""
    await speak(socket, spoken.pieces, [])
    await asyncio.sleep(3600)


async def be_silent(socket: ClientConnection, spoken: Spoken) -> None:
    await asyncio.sleep(3600)


async def babble(socket: ClientConnection, spoken: Spoken) -> None:
    kinds: list[str | bytes] = [
        os.urandom(999),
        "{",
        '{"type": "start"}',
        '{"type": "hotwords", "hotwords": 1}',
        b"x" * 2**21,
    ]
    await socket.send(os.urandom(12345))
    await socket.send(random.choice(kinds))
    await socket.wait_closed()


async def flood_tiny(socket: ClientConnection, spoken: Spoken) -> None:
    while True:
        for _ in range(100):
            await socket.send(b"\0")
        await asyncio.sleep(0)


async def flood_huge(socket: ClientConnection, spoken: Spoken) -> None:
    while True:
        await socket.send(spoken.data[: 2**19] * 2)


FAULTS = (vanish, stall, be_silent, babble, flood_tiny, flood_huge)


def show(rows: Sequence[Row], args: argparse.Namespace) -> None:
    table = Table(
        "streams", "faults", "lag p50", "p95", "p99 (ms)", "CPU %", "callers %", "MiB", "growth MiB"
    )
    table.add_column("said MiB")
    table.add_column("wrong")
    table.add_column("refused")
    for row in rows:
        lags = (f"{1000 * lag:.0f}" for lag in (row.lag_p50, row.lag_p95, row.lag_p99))
        shares = (f"{100 * row.cpu_per_stream:.2f}", f"{100 * row.cpu_of_callers:.0f}")
        sizes = (f"{row.memory_per_stream:.2f}", f"{row.growth:.1f}", f"{row.said:.1f}")
        numbers = (f"{row.wrong}", f"{row.refused}")
        table.add_row(f"{row.streams}", "yes" if row.faults else "", *lags, *shares, *sizes, *numbers)
    console = Console(width=110)
    console.print(table)
    if len(rows) > 1:
        most = max((row.streams for row in rows if row.holds and not row.faults), default=0)
        console.print(
            f"{most} streams keep 99 % of lags under {1000 * TARGET:.0f} ms, of those tried; chunk"
            f" {args.chunk:g} ms, {args.threads} threads, {os.cpu_count()} cores, {date.today()}"
        )


if __name__ == "__main__":
    run(main)
