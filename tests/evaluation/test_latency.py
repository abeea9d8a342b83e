"""Delays and revisions of hand-made streams, by a clock that the test turns."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from asr.evaluation import bootstrap
from asr.evaluation.latency import Clock, Heard, Stream, Timeline, delays, summarise
from asr.evaluation.recogniser import listen
from asr.evaluation.wer import Utterance, score
from asr.transcript import Record, Transcript, Word


def words(text: str) -> tuple[Word, ...]:
    return tuple(Word(each, float(index), index + 0.5, 0.5) for index, each in enumerate(text.split()))


class Script:
    """Transcripts from lines of "committed words | tentative words"."""

    def __init__(self) -> None:
        self.record = Record()

    def __call__(self, line: str) -> Transcript:
        committed, _, tentative = line.partition("|")
        before = len(self.record.words)
        self.record.words.extend(words(committed)[before:])
        new = tuple(self.record.words[before:])
        return Transcript(self.record, len(self.record.words), 0, words(tentative), new, ())


def shown(*lines: str) -> Stream:
    """One line a second, the first after one second; the last is the final text."""
    timeline, script = Timeline(), Script()
    for second, line in enumerate(lines, start=1):
        final = script(line)
        timeline.show(final, float(second))
    return timeline.stream(final, 0.25)


def test_a_word_stands_since_it_was_first_shown_and_is_committed_later() -> None:
    stream = shown("|", "|the", "the | cat", "the cat |")
    assert [(word.text, word.since, word.committed) for word in stream.words] == [
        ("the", 2.0, 3.0),
        ("cat", 3.0, 4.0),
    ]
    assert (stream.first_text, stream.revisions, stream.grown) == (2.0, 0, 0)


def test_a_word_that_vanished_stands_since_it_came_back() -> None:
    stream = shown("|the cat", "|the", "|the cat", "the cat|")
    assert [word.since for word in stream.words] == [1.0, 3.0]
    assert (stream.revisions, stream.grown) == (1, 0)


def test_changed_and_withdrawn_words_are_revisions() -> None:
    assert shown("|a dog sat", "|a cat sat", "a cat sat|").revisions == 1
    assert shown("|a dog sat", "|a", "a|").revisions == 2
    assert shown("|some", "|", "|").revisions == 1


def test_a_word_that_grows_is_a_revision_that_is_counted_apart() -> None:
    stream = shown("|the cam", "|the camera", "|the camera is", "the camera is|")
    assert (stream.revisions, stream.grown) == (1, 1)
    assert [word.since for word in stream.words] == [1.0, 2.0, 3.0]
    changed = shown("|the cam", "|the dim", "the dim|")
    assert (changed.revisions, changed.grown) == (1, 0)


def test_a_word_that_is_pushed_on_by_an_insertion_goes_on_standing() -> None:
    stream = shown("|the cat", "|the black cat", "the black cat|")
    assert [word.since for word in stream.words] == [1.0, 2.0, 1.0]
    assert stream.revisions == 0


def test_committed_words_that_repeat_are_told_apart() -> None:
    stream = shown("|no", "no |no", "no no |no", "no no no|")
    assert [word.since for word in stream.words] == [1.0, 2.0, 3.0]
    assert [word.committed for word in stream.words] == [2.0, 3.0, 4.0]
    assert stream.revisions == 0


def test_a_stream_without_a_word_has_no_first_text() -> None:
    stream = shown("|", "|")
    assert (stream.first_text, stream.words, stream.revisions) == (None, (), 0)


REFERENCE = (Word("the", 0.5, 0.7, 1.0), Word("black", 0.7, 1.0, 1.0), Word("cat", 1.0, 1.5, 1.0))


def test_delays_are_those_of_correct_words_after_their_aligned_ends() -> None:
    stream = shown("|", "|the", "|the cut", "the cat|")
    (scored,) = score([Utterance("u", None, "the black cat", "the cat")])
    found = delays(scored.alignment, stream, REFERENCE)
    assert found.first_partial == (1.5,)
    assert found.emission == pytest.approx((1.3, 2.5))
    assert found.commit == pytest.approx((3.3, 2.5))
    assert found.start_error == pytest.approx((-0.5, 0.0))
    assert found.end_error == pytest.approx((-0.2, 0.0))


def test_substituted_and_inserted_words_have_no_delay() -> None:
    stream = shown("a black white cut|")
    (scored,) = score([Utterance("u", None, "the black cat", "a black white cut")])
    assert delays(scored.alignment, stream, REFERENCE).emission == pytest.approx((0.0,))


class Time:
    """A clock that stands still but for `sleep` and `work`."""

    def __init__(self) -> None:
        self.seconds, self.slept = 100.0, 0.0

    def read(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.slept += seconds
        self.seconds += seconds

    def work(self, seconds: float) -> None:
        self.seconds += seconds


class Fake:
    """A recogniser that works for `cost` seconds a call and shows the next line of its script each time."""

    def __init__(self, time: Time, cost: float, lines: list[str]) -> None:
        self.time, self.cost, self.lines = time, cost, lines
        self.accepted: list[tuple[int, float]] = []  # samples, and when

    def reset(self) -> None:
        self.script, self.rest = Script(), iter(self.lines)

    def accept(self, samples: NDArray[np.float32]) -> Transcript:
        self.accepted.append((len(samples), self.time.seconds - 100))
        return self.finish()

    def finish(self) -> Transcript:
        self.time.work(self.cost)
        return self.script(next(self.rest))


LINES = ["|", "|the", "the |cat", "the cat|"]
AUDIO = np.zeros(40000, np.float32)  # 2.5 s


@pytest.mark.parametrize("pace", [False, True])
def test_text_is_shown_when_its_chunk_has_been_spoken_and_computed(pace: bool) -> None:
    time = Time()
    stream, seconds = listen(Fake(time, 0.1, LINES), AUDIO, 16000, Clock(pace, time.read, time.sleep))
    assert [word.since for word in stream.words] == pytest.approx([2.1, 2.6])
    assert [word.committed for word in stream.words] == pytest.approx([2.6, 2.7])
    assert stream.first_text == pytest.approx(2.1)
    assert stream.final_latency == pytest.approx(0.2)  # the last piece, and finish()
    assert seconds == pytest.approx(0.4)


@pytest.mark.parametrize("pace", [False, True])
def test_a_recogniser_that_is_too_slow_falls_behind(pace: bool) -> None:
    time = Time()
    stream, _ = listen(Fake(time, 1.5, LINES), AUDIO, 16000, Clock(pace, time.read, time.sleep))
    assert stream.first_text == pytest.approx(4.0)  # its chunk was there at 2.0, the work before ended at 2.5
    assert stream.final_latency == pytest.approx(1 + 4 * 1.5 - 2.5)


def test_pace_waits_for_the_audio_and_nothing_else_does() -> None:
    time = Time()
    paced = Fake(time, 0.1, LINES)
    listen(paced, AUDIO, 16000, Clock(True, time.read, time.sleep))
    assert [samples for samples, _ in paced.accepted] == [16000, 16000, 8000]
    assert [moment for _, moment in paced.accepted] == pytest.approx([1.0, 2.0, 2.5])
    assert time.slept == pytest.approx(1.0 + 0.9 + 0.4)
    time = Time()
    listen(Fake(time, 0.1, LINES), AUDIO, 16000, Clock(False, time.read, time.sleep))
    assert (time.slept, time.seconds) == (0.0, pytest.approx(100.4))


def heard(stream: Stream, reference: tuple[Word, ...] | None) -> Heard:
    return Heard(stream, reference, 2.5, 0.5)


def test_a_corpus_has_percentiles_and_rates_over_its_words() -> None:
    stream = shown("|", "|the", "|the cut", "the cat|")
    scores = score([Utterance(f"u{n}", f"s{n}", "the black cat", "the cat") for n in range(4)])
    found = summarise(
        [each.alignment for each in scores],
        [heard(stream, REFERENCE)] * 3 + [heard(stream, None)],
        bootstrap.groups([f"s{n}" for n in range(4)]),
        live=True,
    )
    assert found.emission is not None and found.emission.count == 6  # the fourth has no reference times
    assert found.emission.values == pytest.approx((1.3, 2.5, 2.5))
    assert found.final is not None and found.final.count == 4
    assert found.revisions is not None and found.revisions.value == pytest.approx(1 / 2)
    assert found.start_error is not None and found.start_error.value == pytest.approx(0.25)
    assert (found.aligned, found.utterances) == (3, 4)


def test_whole_files_have_times_but_no_latency() -> None:
    (scored,) = score([Utterance("u", None, "the black cat", "the cat")])
    groups = bootstrap.groups([None])
    found = summarise([scored.alignment], [heard(shown("the cat|"), REFERENCE)], groups, live=False)
    assert (found.first_partial, found.emission, found.final, found.revisions) == (None,) * 4
    assert found.end_error is not None


def percentiles_of(make: Callable[[np.random.Generator], list[list[float]]]) -> bootstrap.Percentiles:
    values = make(np.random.default_rng(1))
    found = bootstrap.percentiles(values, bootstrap.groups([None] * len(values)))
    assert found is not None
    return found


def test_percentiles_are_values_below_which_that_share_lies() -> None:
    found = percentiles_of(lambda random: [[float(value)] for value in random.permutation(100) + 1])
    assert (found.count, found.values) == (100, (50.0, 90.0, 99.0))
    assert found.intervals[0].low < 50 < found.intervals[0].high


def test_the_interval_of_a_median_agrees_with_order_statistics() -> None:
    """The median of n values is between the ranks n/2 -+ 1.96 sqrt(n)/2 in 95 % of the samples."""
    found = percentiles_of(lambda random: [[value] for value in random.random(1000)])
    width = 2 * 1.96 / (2 * 1000**0.5)
    assert found.values[0] == pytest.approx(0.5, abs=0.05)
    assert found.intervals[0].high - found.intervals[0].low == pytest.approx(width, rel=0.2)


def test_percentiles_resample_speakers_where_they_are_known() -> None:
    random = np.random.default_rng(2)
    speeds = np.repeat(random.random(10), 50)  # ten speakers, each with a delay of its own
    values = [[speed + 0.01 * random.random()] for speed in speeds]
    widths = []
    for speakers in ([str(n // 50) for n in range(500)], [None] * 500):
        found = bootstrap.percentiles(values, bootstrap.groups(speakers))
        assert found is not None
        widths.append(found.intervals[0].high - found.intervals[0].low)
    assert widths[0] > 2 * widths[1]


def test_there_are_no_percentiles_of_nothing() -> None:
    assert bootstrap.percentiles([[], []], bootstrap.groups(["a", "b"])) is None
    assert bootstrap.percentiles([], bootstrap.groups([])) is None
