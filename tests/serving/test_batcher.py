"""Many streams at once: each says what it says alone, and none waits for another's client."""

from __future__ import annotations

import asyncio
import gc
import math
import random
import threading
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from asr.bundle import Bundle
from asr.decoding.config import DecodingConfig
from asr.decoding.hotwords import Hotword
from asr.endpoint import EndpointConfig
from asr.errors import UserError
from asr.serving import batcher as batcher_module
from asr.serving.batcher import Batcher, Stream, Update
from asr.serving.config import BatcherConfig
from asr.serving.load import Load
from asr.serving.refusal import Busy, Refusal
from asr.streaming import StreamingRecognizer, advance
from asr.transcript import Transcript
from asr.vad import VadConfig
from tests.conftest import signal

FEW = settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
EAGER = VadConfig(threshold=0.02, hysteresis=0.01, onset=0, hangover=0.1)  # takes some of `signal` for speech
BABBLING = EndpointConfig(silence=0.12, no_speech=0.2, max_length=1.0)  # rules that the tiny models meet
CONFIG = BatcherConfig(chunk_ms=160, max_tick=math.inf)  # a slow machine turns nobody away
Result = TypeVar("Result")


@pytest.fixture(params=[1, 4], ids=["greedy", "beam"])
def bundle(request: pytest.FixtureRequest, babbler: Bundle) -> Bundle:
    return Bundle(babbler.model, babbler.tokenizer, DecodingConfig(beam=request.param))


def run(test: Callable[[], Awaitable[Result]]) -> Result:
    """A test in an event loop; one that hangs fails."""
    return asyncio.run(asyncio.wait_for(test(), 120))


def sound(seconds: float, seed: int) -> NDArray[np.float32]:
    """With silence in it, so that there are endpoints."""
    quiet = np.zeros(4000, np.float32)
    return np.concatenate([signal(seconds / 2, seed), quiet, signal(seconds / 2, seed + 100)])


def alone(bundle: Bundle, samples: NDArray[np.float32], hotwords: tuple[Hotword, ...] = ()) -> Transcript:
    recognizer = StreamingRecognizer(bundle, 320, hotwords, BABBLING, EAGER)
    recognizer.accept(samples)
    return recognizer.finish()


def same(transcript: Transcript, expected: Transcript) -> None:
    """Byte for byte but for confidences, which are to rounding: a batch sums in another order."""
    assert transcript.text == expected.text and not transcript.tentative_words
    assert transcript.endpoints == expected.endpoints
    times = [[(word.text, word.start, word.end) for word in each.words] for each in (transcript, expected)]
    assert times[0] == times[1]
    confidences = [[word.confidence for word in each.words] for each in (transcript, expected)]
    assert confidences[0] == pytest.approx(confidences[1], abs=1e-3)


async def speak(stream: Stream, samples: NDArray[np.float32], sizes: list[int], pause: random.Random) -> None:
    start, turn = 0, 0
    while start < len(samples):
        size = sizes[turn % len(sizes)]
        await stream.send(samples[start : start + size])
        start, turn = start + size, turn + 1
        for _ in range(pause.choice([0, 0, 0, 1, 5])):
            await asyncio.sleep(0)


# The batched step


@FEW
@given(seed=st.integers(0, 10**6), count=st.integers(1, 4))
def test_streams_of_a_batch_say_what_each_says_alone(bundle: Bundle, seed: int, count: int) -> None:
    """Any grouping of any progress, with and without VAD and endpoints in one batch."""
    choice = random.Random(seed)
    rules = [(BABBLING, EAGER), (None, None), (BABBLING, None), (None, EAGER)]
    kinds = [choice.choice(rules) for _ in range(count)]
    sounds = [sound(1.0 + index / 3, index) for index in range(count)]
    streams = [StreamingRecognizer(bundle, 80, (), *kind) for kind in kinds]
    places = [0] * count
    while not all(stream.finished for stream in streams):
        for index, stream in enumerate(streams):
            size = choice.randrange(6000)
            if places[index] < len(sounds[index]):
                stream.put(sounds[index][places[index] : places[index] + size])
                places[index] += size
            else:
                stream.end()
        advance([each for each in streams if choice.random() < 0.6], choice.choice([640, 1280, None]))
    for stream, samples, kind in zip(streams, sounds, kinds, strict=True):
        by_itself = StreamingRecognizer(bundle, 320, (), *kind)
        by_itself.accept(samples)
        same(stream.transcript(), by_itself.finish())


def test_a_stream_that_is_silent_keeps_no_memory_of_its_batch(bundle: Bundle) -> None:
    streams = [StreamingRecognizer(bundle, 160, vad=EAGER) for _ in range(8)]
    for stream in streams:
        stream.put(signal(0.5, 1))
    advance(streams)
    vad = streams[0]._vad
    assert vad
    for leaf in (streams[0]._state, vad._state):
        assert leaf.untyped_storage().nbytes() == leaf.numel() * leaf.element_size()


# The batcher


@FEW
@given(seed=st.integers(0, 10**6), clients=st.integers(2, 9), chunk_ms=st.sampled_from([40, 160, 320]))
def test_any_interleaving_joins_and_leaves_give_what_each_stream_says_alone(
    bundle: Bundle, seed: int, clients: int, chunk_ms: float
) -> None:
    """Some come late, some vanish in the middle, some never read: the others do not notice."""
    choice = random.Random(seed)

    async def client(batcher: Batcher, number: int) -> None:
        for _ in range(choice.randrange(60)):
            await asyncio.sleep(0)
        stream = batcher.open((), BABBLING, EAGER)
        samples = sound(choice.uniform(0.3, 2.5), number)
        sizes = [choice.choice([1, 37, 640, 2560, 5120, 20000]) + 200 for _ in range(5)]
        if choice.random() < 0.25:
            await speak(stream, samples[: choice.randrange(len(samples))], sizes, choice)
        else:
            await speak(stream, samples, sizes, choice)
            same((await stream.finish()).transcript, alone(bundle, samples))
        stream.close()

    async def test() -> None:
        async with Batcher(bundle, BatcherConfig(chunk_ms=chunk_ms, max_tick=math.inf)) as batcher:
            await asyncio.gather(*(client(batcher, number) for number in range(clients)))
            assert not batcher.streams

    run(test)


def test_these_streams_do_say_something(bundle: Bundle) -> None:
    """Else the tests above would compare nothing with nothing."""
    said = [alone(bundle, sound(2.0, seed)) for seed in range(4)]
    assert sum(len(each.words) for each in said) > 8 and len({each.text for each in said}) > 2
    assert any(each.endpoints for each in said)


def test_updates_add_up_to_the_final_words(bundle: Bundle) -> None:
    async def test() -> None:
        async with Batcher(bundle, CONFIG) as batcher:
            stream, words, heard = batcher.open((), BABBLING, EAGER), [], [0.0]

            async def read() -> None:
                async for update in stream.updates():
                    words.extend(update.transcript.record.words[len(words) : update.transcript.count])
                    assert update.heard >= heard[-1] and update.lag >= 0
                    heard.append(update.heard)

            reader = asyncio.create_task(read())
            samples = sound(3.0, 1)
            await speak(stream, samples, [1000], random.Random(1))
            final = await stream.finish()
            await reader
            assert words == list(final.transcript.words) != []
            same(final.transcript, alone(bundle, samples))
            assert heard[-1] == pytest.approx(len(samples) / 16000)

    run(test)


def test_who_reads_late_gets_the_newest_and_misses_no_word(bundle: Bundle) -> None:
    async def test() -> None:
        async with Batcher(bundle, CONFIG) as batcher:
            stream, samples = batcher.open((), BABBLING, EAGER), sound(3.0, 1)
            await speak(stream, samples, [2000], random.Random(1))
            final = await stream.finish()
            updates = [update async for update in stream.updates()]
            assert updates == [final]
            same(updates[0].transcript, alone(bundle, samples))

    run(test)


def test_settle_knows_every_full_chunk_that_was_sent(babbler: Bundle) -> None:
    async def test() -> None:
        async with Batcher(babbler, CONFIG) as batcher:
            stream = batcher.open()
            assert (await stream.settle()).heard == 0
            for number in range(1, 9):
                await stream.send(signal(0.1, number))
                update = await stream.settle()
                assert update.heard == pytest.approx(number * 1600 // batcher.chunk * batcher.chunk / 16000)

    run(test)


def test_a_sender_waits_while_its_queue_is_full(babbler: Bundle) -> None:
    config = BatcherConfig(chunk_ms=160, queue_seconds=0.5, max_tick=math.inf)

    async def test() -> None:
        async with Batcher(babbler, config) as batcher:
            stream = batcher.open()
            for _ in range(20):
                await stream.send(signal(0.4, 1))
                assert stream._sent - stream._computed <= 0.5 * 16000
            await stream.send(signal(5.0, 1))
            assert stream._sent - stream._computed <= 0.5 * 16000

    run(test)


def test_a_recording_that_comes_at_once_takes_a_chunk_a_tick(babbler: Bundle, ticks: Ticks) -> None:
    """So live speech beside it waits for a chunk of it, not for all of it."""

    async def test() -> None:
        async with Batcher(babbler, CONFIG, ticks.watch) as batcher:
            bulk, live = batcher.open(), batcher.open()
            sending = asyncio.create_task(bulk.send(signal(20.0, 1)))
            while bulk.newest.heard < 1:
                await asyncio.sleep(0)
            before = bulk.newest.heard
            await live.send(signal(0.16, 2))
            await live.settle()
            assert bulk.newest.heard - before <= 3 * 0.16 + 1e-6
            await sending
        assert all(tick.audio <= tick.streams * 0.16 + 1e-6 for tick in ticks.seen)

    run(test)


def test_the_loop_runs_while_the_model_computes(babbler: Bundle, gate: Gate) -> None:
    async def test() -> None:
        async with Batcher(babbler, CONFIG) as batcher:
            stream = batcher.open()
            gate.close()
            finish = asyncio.create_task(finished(stream, signal(0.5, 1)))
            await asyncio.get_running_loop().run_in_executor(None, gate.reached.wait)
            turns = 0
            while turns < 100:  # the model stands still, the loop does not
                await asyncio.sleep(0)
                turns += 1
            other = batcher.open()  # nor do other clients
            await other.send(signal(0.05, 1))
            assert not finish.done()
            gate.open()
            assert (await finish).finished

    run(test)


async def finished(stream: Stream, samples: NDArray[np.float32]) -> Update:
    await stream.send(samples)
    return await stream.finish()


def test_a_client_that_stalls_delays_nobody(babbler: Bundle) -> None:
    """It sent half a chunk, or never reads, or reads one update and then hangs: the others finish."""

    async def test() -> None:
        async with Batcher(babbler, CONFIG) as batcher:
            half, deaf, hung = (batcher.open((), BABBLING, EAGER) for _ in range(3))
            await half.send(signal(0.1, 1))
            await deaf.send(signal(1.0, 1))
            await hung.send(signal(1.0, 2))
            updates = hung.updates()
            await updates.__anext__()  # and never again
            samples = sound(2.0, 5)
            final = await finished(batcher.open((), BABBLING, EAGER), samples)
            same(final.transcript, alone(babbler, samples))
            await updates.aclose()

    run(test)


def test_a_closed_stream_frees_its_place_in_the_middle_of_a_tick(babbler: Bundle, gate: Gate) -> None:
    async def test() -> None:
        async with Batcher(babbler, BatcherConfig(max_streams=1, max_tick=math.inf)) as batcher:
            stream = batcher.open()
            gate.close()
            await stream.send(signal(0.5, 1))
            await asyncio.get_running_loop().run_in_executor(None, gate.reached.wait)
            with pytest.raises(Busy) as busy:
                batcher.open()
            assert busy.value.retry_after > 0 and busy.value.code == "busy"
            stream.close()
            stream.close()
            other = batcher.open()
            gate.open()
            final = await finished(other, sound(2.0, 3))
            assert final.finished
            with pytest.raises(Refusal, match="closed"):
                await stream.send(signal(0.1, 1))

    run(test)


def test_a_closed_stream_is_forgotten(babbler: Bundle) -> None:
    async def test() -> None:
        async with Batcher(babbler, CONFIG) as batcher:
            stream = batcher.open()
            await finished(stream, signal(0.5, 1))
            stream.close()
            kept = weakref.ref(stream)
            del stream
            await finished(batcher.open(), signal(0.5, 1))  # another tick: the last one's jobs are gone
            gc.collect()
            assert kept() is None

    run(test)


def test_whoever_waits_is_woken_when_the_stream_is_closed(babbler: Bundle, gate: Gate) -> None:
    async def test() -> None:
        async with Batcher(babbler, CONFIG) as batcher:
            stream = batcher.open()
            gate.close()
            reading = asyncio.create_task(listed(stream.updates()))
            waiting = [
                asyncio.create_task(call)
                for call in (stream.send(signal(9.0, 1)), stream.settle(), stream.finish())
            ]
            await asyncio.get_running_loop().run_in_executor(None, gate.reached.wait)
            stream.close()
            gate.open()
            for task in waiting:
                with pytest.raises(Refusal, match="closed"):
                    await task
            assert await reading == []

    run(test)


async def listed(updates: AsyncIterator[Update]) -> list[Update]:
    return [update async for update in updates]


@pytest.mark.parametrize("full", [False, True])
def test_shutting_down_never_hangs_and_says_so_to_everybody(babbler: Bundle, full: bool) -> None:
    """With senders that wait, streams that finish, and readers."""

    async def test() -> None:
        async with Batcher(babbler, BatcherConfig(queue_seconds=0.2, max_tick=math.inf)) as batcher:
            streams = [batcher.open() for _ in range(6)]
            waiting = [
                asyncio.create_task(call)
                for stream in streams
                for call in (stream.send(signal(9.0, 1)), listed(stream.updates()))
            ]
            if full:
                await asyncio.sleep(0.01)
        for outcome in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(outcome, Refusal) and outcome.code == "shutdown"
        with pytest.raises(Refusal, match="shutting down"):
            batcher.open()
        with pytest.raises(Refusal, match="shutting down"):
            await streams[0].finish()

    before = set(threading.enumerate())  # the server of other tests has its own
    run(test)
    new = set(threading.enumerate()) - before
    assert not any(thread.name.startswith("asr-batcher") for thread in new)


def test_a_task_that_is_cancelled_while_it_sends_harms_nobody(babbler: Bundle) -> None:
    async def test() -> None:
        async with Batcher(babbler, CONFIG) as batcher:
            samples = sound(2.0, 5)
            stream, other = (batcher.open((), BABBLING, EAGER) for _ in range(2))
            task = asyncio.create_task(stream.send(signal(9.0, 1)))
            await asyncio.sleep(0)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            same((await finished(other, samples)).transcript, alone(babbler, samples))
            assert (await stream.finish()).heard == pytest.approx(9.0)  # what had been sent is heard

    run(test)


def test_samples_that_are_no_audio_are_refused_and_the_stream_goes_on(babbler: Bundle) -> None:
    async def test() -> None:
        async with Batcher(babbler, CONFIG) as batcher:
            stream, samples = batcher.open((), BABBLING, EAGER), sound(1.0, 5)
            for broken in (np.array([np.nan]), np.array([np.inf]), np.array([1e30]), np.zeros((2, 9))):
                with pytest.raises(ValueError, match=r"NaN|shape"):
                    await stream.send(broken.astype(np.float32))
            same((await finished(stream, samples)).transcript, alone(babbler, samples))
            with pytest.raises(RuntimeError, match="finished"):
                await stream.send(samples)
            assert await stream.finish() == await stream.finish()

    run(test)


def test_the_loudest_sound_that_is_taken_breaks_nothing(bundle: Bundle) -> None:
    async def test() -> None:
        async with Batcher(bundle, CONFIG) as batcher:
            loud, quiet, samples = batcher.open(), batcher.open((), BABBLING, EAGER), sound(1.0, 5)
            noise = (1e9 * np.random.default_rng(1).choice([-1, 1], 16000)).astype(np.float32)
            _, final = await asyncio.gather(finished(loud, noise), finished(quiet, samples))
            same(final.transcript, alone(bundle, samples))

    run(test)


def test_a_fault_in_a_step_ends_its_streams_and_not_the_server(
    babbler: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        async with Batcher(babbler, CONFIG) as batcher:
            with monkeypatch.context() as patch:
                patch.setattr(batcher_module, "advance", broken)
                with pytest.raises(Refusal, match="failed") as refusal:
                    await finished(batcher.open(), signal(0.5, 1))
                assert refusal.value.code == "internal"
            assert (await finished(batcher.open(), signal(0.5, 1))).finished

    run(test)


def broken(*_: Any) -> None:
    raise ZeroDivisionError


def test_hotwords_are_each_streams_own_and_can_change(babbler: Bundle) -> None:
    samples, hotwords = sound(2.0, 5), (Hotword("fox", 5.0), Hotword("dog", 5.0))

    async def test() -> None:
        async with Batcher(babbler, CONFIG) as batcher:
            plain, biased, later = (batcher.open(words, BABBLING, EAGER) for words in ((), hotwords, ()))
            later.set_hotwords(hotwords)
            finals = await asyncio.gather(*(finished(stream, samples) for stream in (plain, biased, later)))
            same(finals[0].transcript, alone(babbler, samples))
            same(finals[1].transcript, alone(babbler, samples, hotwords))
            same(finals[2].transcript, alone(babbler, samples, hotwords))
            for wrong in (Hotword(""), Hotword("\u0436")):
                with pytest.raises(UserError, match="hotword 1"):
                    batcher.open([wrong])
                with pytest.raises(UserError, match="hotword 1"):
                    plain.set_hotwords([wrong])

    run(test)
    assert alone(babbler, samples).text != alone(babbler, samples, hotwords).text


def test_hotwords_need_a_beam(babbler: Bundle) -> None:
    greedy = Bundle(babbler.model, babbler.tokenizer, DecodingConfig(beam=1))

    async def test() -> None:
        async with Batcher(greedy, CONFIG) as batcher:
            with pytest.raises(UserError, match="--beam 8"):
                batcher.open([Hotword("fox")])

    run(test)


# Admission


def test_the_last_place_goes_to_one_and_the_next_is_told_to_come_back(babbler: Bundle) -> None:
    async def test() -> None:
        async with Batcher(babbler, BatcherConfig(max_streams=3, max_tick=math.inf)) as batcher:
            streams = [batcher.open() for _ in range(3)]
            with pytest.raises(Busy, match="try again in 5 s"):
                batcher.open()
            streams[0].close()
            batcher.open()

    run(test)


def test_steps_that_take_too_long_let_nobody_in(babbler: Bundle) -> None:
    async def test() -> None:
        async with Batcher(babbler, BatcherConfig(max_tick=0.1)) as batcher:
            batcher.load = Load(0.16)
            first = batcher.open()
            batcher.load.recent = 0.2
            with pytest.raises(Busy):
                batcher.open()
            first.close()
            batcher.open()  # whatever it takes: there is nobody to make late
            batcher._ticked -= 60
            batcher.open()  # it was slow a minute ago

    run(test)


def test_who_comes_at_once_is_let_in_as_far_as_speech_can_be_heard(
    babbler: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """50 ms for each stream in which somebody speaks, nothing for the others: 160 ms hold three of them."""

    def slow(streams: list[StreamingRecognizer], most: int | None = None) -> None:
        advance(streams, most)
        time.sleep(0.05 * sum(stream.speaking for stream in streams))

    monkeypatch.setattr(batcher_module, "advance", slow)

    async def test() -> None:
        async with Batcher(babbler, BatcherConfig(chunk_ms=160)) as batcher:
            let_in = 0
            with pytest.raises(Busy):
                for _ in range(20):
                    batcher.open()
                    let_in += 1
            assert 1 <= let_in <= 3

    run(test)


def test_a_load_is_known_from_few_streams() -> None:
    """10 ms a step and 2 ms a stream: 160 ms of audio hold up to 80 of them, and a step takes
    0.01 / (1 - streams / 80) seconds."""
    load = Load(0.16)
    assert load.step(1000) == 0  # nothing is known, nobody refused
    random_ = random.Random(1)
    for _ in range(200):
        streams = random_.choice([1, 2, 3])
        load.observe(streams, 0.01 + 0.002 * streams + random_.gauss(0, 1e-4))
    assert load.step(40) == pytest.approx(0.02, rel=0.1)
    assert load.step(72) == pytest.approx(0.1, rel=0.5)
    assert load.step(90) == math.inf


def test_what_was_learnt_at_first_holds_until_more_is_known() -> None:
    load = Load(0.16)
    load.learn(1, 0.012)
    load.learn(8, 0.026)
    assert load.step(40) == pytest.approx(0.02)
    for _ in range(300):
        load.observe(1, 0.024)  # twice as slow; how much of it is each stream's nobody knows
    assert 0.02 < load.step(8) < 0.06
    load.forget()
    assert load.step(40) == pytest.approx(0.02)


# Helpers


class Ticks:
    def __init__(self) -> None:
        self.seen: list[batcher_module.Tick] = []

    def watch(self, tick: batcher_module.Tick) -> None:
        self.seen.append(tick)


@pytest.fixture
def ticks() -> Ticks:
    return Ticks()


class Gate:
    """Holds the worker's thread in its next step while it is closed."""

    def __init__(self) -> None:
        self._open, self.reached = threading.Event(), threading.Event()
        self._open.set()

    def advance(self, streams: list[StreamingRecognizer], most: int | None = None) -> None:
        self.reached.set()
        assert self._open.wait(60)
        advance(streams, most)

    def close(self) -> None:
        self._open.clear()
        self.reached.clear()

    def open(self) -> None:
        self._open.set()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    gate = Gate()
    monkeypatch.setattr(batcher_module, "advance", gate.advance)
    return gate
