"""Many streams, one model: who has a full chunk is computed in one batch, in one thread beside the loop.

A step ("tick") takes one chunk of every stream that has one, so that a recording which comes all at once
shares the machine with live speech. Nobody waits for a client: samples wait in their stream until the next
tick, and of what ticks have found only the newest is kept for whoever reads it. What a stream says is what a
`StreamingRecognizer` says by itself. Knows nothing of connections and protocols.

Everything but `_compute` runs in the event loop; only the worker's thread touches a stream's recogniser.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from asr import audio
from asr.bundle import Bundle
from asr.decoding.hotwords import Hotword, check_hotwords
from asr.endpoint import EndpointConfig
from asr.errors import UserError
from asr.models import READING
from asr.serving.config import BatcherConfig
from asr.serving.load import Load
from asr.serving.refusal import Busy, Refusal
from asr.streaming import ENDPOINTING, NO_BEAM, VAD, StreamingRecognizer, advance, check_samples
from asr.transcript import Transcript
from asr.vad import VadConfig

log = logging.getLogger("asr.serving")
REST = 5.0  # seconds after which a client that found no room may ask again
REHEARSALS = (1, 4)  # streams in steps before the first client's
REHEARSED = 4.0  # seconds of audio of each ...
WARM = 1.0  # ... of which so many go by before times count
LIVE = 2.0  # times what a rehearsal takes: callers are harder to hear than a reader, and use the cores too
MARGIN = 4 / 3  # streams that could be heard, for one that is let in: words do not come evenly


class Update(NamedTuple):
    """transcript: the newest; consumers keep their own count of words sent, so skipped updates lose nothing.
    heard: seconds of audio computed. lag: seconds from the arrival of the newest computed sample until this
    update was made. speech: the VAD hears speech now."""

    transcript: Transcript
    heard: float
    lag: float
    speech: bool
    finished: bool


NOTHING = Update(Transcript.of(()), 0.0, 0.0, False, False)


class Tick(NamedTuple):
    """What metrics want to know of a step; audio in seconds, a lag for each stream."""

    streams: int
    seconds: float
    audio: float
    lags: list[float]


class Batcher:
    """An async context manager: streams live inside of it. `watch` is called after every tick."""

    def __init__(
        self, bundle: Bundle, config: BatcherConfig, watch: Callable[[Tick], None] = lambda tick: None
    ) -> None:
        self.bundle, self.config, self.watch = bundle, config, watch
        self.streams: set[Stream] = set()
        self.model = bundle.model
        recognizer = StreamingRecognizer(bundle, config.chunk_ms, config.hotwords)  # raises what is wrong
        self.chunk = recognizer.chunk  # samples
        self.rate = self.model.config.frontend.rate
        self.load = Load(self.chunk / self.rate)
        self._work, self._closing = asyncio.Event(), False
        self._ticked = time.monotonic()  # when the last tick ended
        self._worker = ThreadPoolExecutor(1, "asr-batcher")

    async def __aenter__(self) -> Batcher:
        await asyncio.get_running_loop().run_in_executor(self._worker, self._rehearse)
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Streams that are still open raise Refusal ("shutdown") from now on."""
        for stream in list(self.streams):
            stream._fail(Refusal("shutdown", "the server is shutting down: connect again"))
        self._closing = True
        self._work.set()
        await self._task
        self._worker.shutdown()

    def open(
        self,
        hotwords: Sequence[Hotword] = (),
        endpointing: EndpointConfig | None = ENDPOINTING,
        vad: VadConfig | None = VAD,
        again: bool = False,
    ) -> Stream:
        """again: in the place of one that has just been closed, amid a conversation that has been let in.

        Raises Busy where one more stream would make all of them late, UserError for hotwords that cannot be
        used.
        """
        hotwords = self.with_ours(hotwords)
        if self._closing:
            raise Refusal("shutdown", "the server is shutting down: connect again", REST)
        if time.monotonic() - self._ticked > REST:
            self.load.forget()  # what slowed it down is over: streams may be open and silent
        count = len(self.streams)
        slow = max(self.load.recent, self.load.step(math.ceil(MARGIN * (count + 1)))) > self.config.max_tick
        if not again and (count >= self.config.max_streams or (count and slow)):
            raise Busy(f"no room beside {count} streams: try again in {REST:g} s", REST)
        stream = Stream(
            self,
            lambda: StreamingRecognizer(self.bundle, self.config.chunk_ms, hotwords, endpointing, vad),
        )
        self.streams.add(stream)
        return stream

    def with_ours(self, hotwords: Sequence[Hotword]) -> Sequence[Hotword]:
        """A stream's own, checked, and everybody's. Raises UserError."""
        if hotwords and self.bundle.decoding.beam == 1:
            raise UserError(NO_BEAM)
        check_hotwords(hotwords, self.bundle.tokenizer.pieces, self.bundle.tokenizer.lexicon)
        return (*self.config.hotwords, *hotwords)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._closing:
            await self._work.wait()
            self._work.clear()
            jobs = [stream._job() for stream in self.streams if stream._due]
            if not jobs or self._closing:
                continue
            began = time.monotonic()
            try:
                results = await loop.run_in_executor(self._worker, self._compute, jobs)
            except Exception:  # a fault of ours: it must not take the server with it
                log.exception("a step of %d streams failed", len(jobs))
                for job in jobs:
                    job.stream._fail(Refusal("internal", "the server failed: its log says why"))
                self._work.set()
                continue
            self._ticked = time.monotonic()
            seconds = self._ticked - began
            self.load.observe(len(jobs), seconds)
            before = [job.stream.newest.heard for job in jobs]
            updates = [job.stream._heard(*result) for job, result in zip(jobs, results, strict=True)]
            audio = sum(update.heard for update in updates) - sum(before)
            self.watch(Tick(len(jobs), seconds, audio, [update.lag for update in updates]))
            self._work.set()  # some may have another chunk already

    def _compute(self, jobs: Sequence[Job]) -> list[Result]:
        """In the worker's thread."""
        recognizers = []
        for stream, pieces, hotwords, ended in jobs:
            recognizer = stream._recognizer = stream._recognizer or stream._begin()
            if hotwords is not None:
                recognizer.set_hotwords(hotwords)
            if pieces:
                recognizer.put(np.concatenate(pieces))
            if ended:
                recognizer.end()
            recognizers.append(recognizer)
        advance(recognizers, self.chunk)
        return [
            Result(each.transcript(), each.computed, each.speaking, each.finished) for each in recognizers
        ]

    def _rehearse(self) -> None:
        """Steps that nobody waits for: the first are slow, and the others say what this machine can carry."""
        speech = audio.read(READING, self.rate)
        first = 0  # each begins elsewhere, or words that one has computed would be there for the others
        for count in REHEARSALS:
            starts = [len(speech) * n // sum(REHEARSALS) for n in range(first, first + count)]
            first += count
            took = self._rehearsed([np.roll(speech, -start) for start in starts])
            self.load.learn(count, LIVE * sum(took) / len(took))

    def _rehearsed(self, speech: Sequence[NDArray[np.float32]]) -> list[float]:
        """Seconds of each step: with speech, or beams and language models would have nothing to do."""
        size = max(round(REHEARSED * self.rate), self.chunk)
        recognizers = [StreamingRecognizer(self.bundle, self.config.chunk_ms) for _ in speech]
        for recognizer, samples in zip(recognizers, speech, strict=True):
            recognizer.put(np.resize(samples, size))
        took = []
        while recognizers[0].ready:
            began = time.monotonic()
            advance(recognizers, self.chunk)
            for recognizer in recognizers:
                recognizer.transcript()
            took.append(time.monotonic() - began)
        return took[int(WARM * self.rate / self.chunk) :]


class Job(NamedTuple):
    """What a stream brings to a tick."""

    stream: Stream
    pieces: list[NDArray[np.float32]]
    hotwords: Sequence[Hotword] | None
    ended: bool


class Result(NamedTuple):
    """What it takes away; computed: samples, of the padding at the end too."""

    transcript: Transcript
    computed: int
    speech: bool
    finished: bool


class Stream:
    """One stream of audio. All methods belong to the event loop; after `close` they raise Refusal.

    One task may send while another reads `updates`.
    """

    def __init__(self, batcher: Batcher, begin: Callable[[], StreamingRecognizer]) -> None:
        self._batcher, self._begin = batcher, begin
        self._recognizer: StreamingRecognizer | None = None  # the worker makes it
        self.rate = batcher.rate
        self._pieces: list[NDArray[np.float32]] = []  # that no tick has taken yet
        self._sent = self._computed = 0  # samples
        self._arrivals: deque[tuple[int, float]] = deque()  # samples sent up to and with a piece, and when
        self._hotwords: Sequence[Hotword] | None = None  # to be set with the next tick
        self._ended = self._computing = self._closed = False
        self._error: Refusal | None = None
        self.newest, self._version = NOTHING, 0
        self._changed = asyncio.Event()  # set and cleared at once: it wakes those who wait now

    async def send(self, samples: NDArray[np.float32]) -> None:
        """samples (S,), mono, in [-1, 1], at `rate`. Returns once no more than `queue_seconds` wait.

        Raises ValueError for what is no audio, RuntimeError after `finish`.
        """
        self._check()
        check_samples(samples)
        if self._ended:
            raise RuntimeError("the stream has finished: open another")
        if len(samples):
            self._pieces.append(samples)
            self._sent += len(samples)
            self._arrivals.append((self._sent, time.monotonic()))
            if self._due:
                self._batcher._work.set()
        most = max(self._batcher.chunk, self._batcher.config.queue_seconds * self.rate)
        await self._until(lambda: self._sent - self._computed <= most)

    async def settle(self) -> Update:
        """The update that knows every full chunk that has been sent."""
        await self._until(lambda: not self._due and not self._computing)
        return self.newest

    async def finish(self) -> Update:
        """No more audio comes: the update with all words committed. May be called again."""
        self._check()
        self._ended = True
        self._batcher._work.set()
        await self._until(lambda: self.newest.finished)
        return self.newest

    async def updates(self) -> AsyncIterator[Update]:
        """The newest, whenever there is one that has not been given; ends after the finished one, and when
        the stream is closed."""
        given = 0
        while not self._closed and not (self.newest.finished and given == self._version):
            while self._version == given and not self._closed:
                self._check()
                await self._changed.wait()
            if self._closed:
                break
            given = self._version
            yield self.newest

    def set_hotwords(self, hotwords: Sequence[Hotword]) -> None:
        """Other hotwords, from the next chunk on. Raises UserError for some that cannot be used."""
        self._hotwords = self._batcher.with_ours(hotwords)

    def close(self) -> None:
        """The client has gone, or has what it wanted: frees its place at once. May be called again."""
        self._closed = True
        self._fail(Refusal("shutdown", "the stream has been closed"))

    def _fail(self, error: Refusal) -> None:
        self._error = self._error or error
        self._batcher.streams.discard(self)
        self._pieces.clear()
        self._notify()

    @property
    def _due(self) -> bool:
        """Whether the next tick has something to do for it."""
        if self._computing or self._error or self.newest.finished:
            return False
        return self._ended or self._sent - self._computed >= self._batcher.chunk

    def _job(self) -> Job:
        job = Job(self, self._pieces, self._hotwords, self._ended)
        self._pieces, self._hotwords, self._computing = [], None, True
        return job

    def _heard(self, transcript: Transcript, computed: int, speech: bool, finished: bool) -> Update:
        self._computing = False
        self._computed = min(computed, self._sent)  # without the padding
        while len(self._arrivals) > 1 and self._arrivals[0][0] < self._computed:
            self._arrivals.popleft()
        now = time.monotonic()
        lag = now - self._arrivals[0][1] if self._arrivals else 0.0
        self.newest = Update(transcript, self._computed / self.rate, lag, speech, finished)
        self._version += 1
        self._notify()
        return self.newest

    async def _until(self, done: Callable[[], bool]) -> None:
        self._check()
        while not done():
            await self._changed.wait()
            self._check()

    def _check(self) -> None:
        if error := self._error:
            raise Refusal(error.code, str(error), error.retry_after)  # a new one: it is raised many times

    def _notify(self) -> None:
        self._changed.set()
        self._changed.clear()
