"""A running server, with a model that babbles, for tests that come as its clients do."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.typing import NDArray

from asr import audio
from asr.bundle import Bundle
from asr.decoding.config import DecodingConfig
from asr.decoding.hotwords import Hotword
from asr.serving import run, wyoming
from asr.serving.config import ServeConfig
from asr.serving.run import Address, Server, Tls
from asr.serving.server import Service
from asr.streaming import StreamingRecognizer
from asr.text import Tokenizer
from asr.transcript import Transcript
from data_prep.demo import Voices
from tests.conftest import ENCODERS, tiny_model


@dataclass(frozen=True)
class Running:
    """A server in this process, on a thread of its own."""

    service: Service
    port: int
    loop: asyncio.AbstractEventLoop
    server: Server

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def stop(self) -> None:
        """As a signal does, once."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self._stop)

    def _stop(self) -> None:
        self.server.should_exit = True


@pytest.fixture(scope="session")
def babbler(tokenizer: Tokenizer) -> Bundle:
    """A tiny model with a beam, which says something about any sound that its VAD lets through."""
    model = tiny_model(ENCODERS["4x, lookahead"], tokenizer.vocabulary)
    return Bundle(model, tokenizer, DecodingConfig(beam=4))


@contextmanager
def running(bundle: Bundle, config: ServeConfig | None = None, tls: Tls | None = None) -> Iterator[Running]:
    """A server with all its protocols on a free port of loopback, until the block is left.

    It turns nobody away because this machine is slow, as it may be while tests run.
    """
    config = config or ServeConfig()
    config = replace(config, batcher=replace(config.batcher, max_tick=math.inf))
    started: list[Running] = []
    ready = threading.Event()

    async def serve() -> None:
        async with Service(bundle, config) as service:
            server, opened = Server(service, tls), run.listening(Address("127.0.0.1", 0), "--port")
            port = opened.getsockname()[1]
            started.append(Running(service, port, asyncio.get_running_loop(), server))
            ready.set()
            await server.serve([opened])

    def work() -> None:
        try:
            asyncio.run(serve())
        finally:
            ready.set()  # or a server that cannot start would be waited for

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    ready.wait()
    try:
        yield started[0]
    finally:
        started[0].stop()
        thread.join(30)
        assert not thread.is_alive()


@pytest.fixture(scope="session")
def server(babbler: Bundle) -> Iterator[Running]:
    with running(babbler) as server:
        yield server


@contextmanager
def speaking_wyoming(server: Running) -> Iterator[int]:
    """The port on which the server speaks Wyoming, until the block is left."""

    async def opened() -> asyncio.Server:
        return await wyoming.serve(server.service, "127.0.0.1", 0)

    tcp = asyncio.run_coroutine_threadsafe(opened(), server.loop).result(30)
    yield tcp.sockets[0].getsockname()[1]
    server.loop.call_soon_threadsafe(tcp.close)


@pytest.fixture(scope="session")
def speech() -> NDArray[np.float32]:
    """Two sentences of a synthetic voice, 16 kHz, that the VAD hears, with pauses that end segments."""
    pytest.importorskip("espeakng_loader")
    espeak, pieces = Voices(), []
    pause = 1e-3 * np.random.default_rng(1).standard_normal(32000)
    for text in ("please open the window in the kitchen", "and close the door behind you"):
        said = espeak.say(text, "en-us", 160, 50, 50)
        resampler = audio.Resampler(espeak.rate)
        said = np.concatenate([resampler.accept(said), resampler.finish()])
        pieces += [0.3 * said / abs(said).max(), pause]
    samples = np.concatenate(pieces)
    return (np.round(32768 * samples) / 32768).astype(np.float32)  # as 16 bits hold it


def pcm16(samples: NDArray[np.float32]) -> bytes:
    return (32768 * samples).astype("<i2").tobytes()


def alone(bundle: Bundle, samples: NDArray[np.float32], hotwords: Sequence[Hotword] = ()) -> Transcript:
    """What a stream says to samples at 16 kHz, by itself and all at once."""
    recognizer = StreamingRecognizer(bundle, hotwords=hotwords)
    recognizer.accept(samples)
    return recognizer.finish()
