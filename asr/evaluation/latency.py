"""When does text appear, and does it stand? From what a stream showed, when, and when the words were said.

Knows words and seconds, nothing of models or audio. All times of a stream count from its first sample; a word
of the final text *stands since* the first moment from which on it was always in the shown text.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from typing import NamedTuple, TypeVar

from asr.evaluation.bootstrap import Groups, Interval, Percentiles, confidence_interval, percentiles
from asr.evaluation.wer import Edit
from asr.text import normalise
from asr.transcript import Transcript, Word

Recognised = TypeVar("Recognised", "ShownWord", Word)


class Clock:
    """The time of one stream in seconds; `wait_until` sleeps with `pace`, and otherwise jumps ahead.

    Without `pace` a stream so has the clock that it would have live: work begins when its audio is there and
    the work before is done, and takes the time that it takes here.
    """

    def __init__(
        self,
        pace: bool = False,
        read: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.pace, self._read, self._sleep = pace, read, sleep
        self._zero = read()

    def now(self) -> float:
        return self._read() - self._zero

    def wait_until(self, moment: float) -> None:
        """Nothing happens where the moment has passed: the stream is behind."""
        ahead = moment - self.now()
        if ahead > 0 and self.pace:
            self._sleep(ahead)
        elif ahead > 0:
            self._zero -= ahead


class ShownWord(NamedTuple):
    """A normalised word of the final text: when it appeared for good and was committed, and its times."""

    text: str
    since: float
    committed: float
    start: float
    end: float
    confidence: float


@dataclass(frozen=True)
class Stream:
    """What one stream showed. `grown`: those of the revisions in which the last word only became longer."""

    words: tuple[ShownWord, ...]
    first_text: float | None
    final_latency: float  # seconds from the last sample until the final text
    revisions: int
    grown: int


class Timeline:
    """Follows the shown text of one stream.

    From one shown text to the next, words are kept, inserted, changed or withdrawn (longest matching
    blocks, as difflib finds them). A kept word goes on standing, wherever it moves; one that is not kept
    is a revision.
    """

    def __init__(self) -> None:
        self._words: list[str] = []
        self._since: list[float] = []
        self._committed: list[float] = []
        self._first_text: float | None = None
        self._revisions = self._grown = 0

    def show(self, transcript: Transcript, now: float) -> None:
        """Every transcript of the stream, in order."""
        settled = len(self._committed)  # what is committed does not change
        texts = [word.text for word in (*transcript.new_words, *transcript.tentative_words)]
        if texts != self._words[settled:]:
            self._change(settled, texts, now)
        if self._words and self._first_text is None:
            self._first_text = now
        self._committed += [now] * len(transcript.new_words)

    def _change(self, settled: int, texts: list[str], now: float) -> None:
        before, since = self._words[settled:], self._since[settled:]
        standing = [now] * len(texts)
        lost = set(range(len(before)))
        for old, new, length in SequenceMatcher(None, before, texts, autojunk=False).get_matching_blocks():
            standing[new : new + length] = since[old : old + length]
            lost -= set(range(old, old + length))
        self._revisions += len(lost)
        last = len(before) - 1
        self._grown += last in lost and last < len(texts) and texts[last].startswith(before[last])
        self._words[settled:], self._since[settled:] = texts, standing

    def stream(self, final: Transcript, final_latency: float) -> Stream:
        """After the last `show`, whose transcript `final` was."""
        times = zip(final.words, self._since, self._committed, strict=True)
        words = [
            ShownWord(text, since, committed, word.start, word.end, word.confidence)
            for word, since, committed in times
            for text in normalise(word.text).split()
        ]
        return Stream(tuple(words), self._first_text, final_latency, self._revisions, self._grown)


class Delays(NamedTuple):
    """Of one utterance, in seconds; the delays of words are those of correct ones, in their order."""

    first_partial: tuple[float, ...]  # one, or none where nothing was said or shown
    emission: tuple[float, ...]
    commit: tuple[float, ...]
    start_error: tuple[float, ...]  # start as recognised - start in the alignment
    end_error: tuple[float, ...]


NO_DELAYS = Delays((), (), (), (), ())


def delays(alignment: Sequence[Edit], stream: Stream, reference: Sequence[Word]) -> Delays:
    """alignment: of the reference's words with the stream's. reference: the same words with their times."""
    pairs = list(matched(alignment, reference, stream.words))
    first = [stream.first_text - reference[0].start] if reference and stream.first_text is not None else []
    return Delays(
        tuple(first),
        tuple(shown.since - said.end for said, shown in pairs),
        tuple(shown.committed - said.end for said, shown in pairs),
        tuple(shown.start - said.start for said, shown in pairs),
        tuple(shown.end - said.end for said, shown in pairs),
    )


def matched(
    alignment: Sequence[Edit], reference: Sequence[Word], hypothesis: Sequence[Recognised]
) -> Iterator[tuple[Word, Recognised]]:
    """The words that are right, as the reference and as the hypothesis has them."""
    said, heard = 0, 0
    for edit in alignment:
        if edit.kind == "equal":
            yield reference[said], hypothesis[heard]
        said += edit.kind != "insert"
        heard += edit.kind != "delete"


def normalised(words: Iterable[Word]) -> list[Word]:
    """The words as texts are compared; one that normalises to nothing is left out."""
    return [replace(word, text=text) for word in words for text in normalise(word.text).split()]


@dataclass(frozen=True)
class Rate:
    """A ratio of sums, with its interval."""

    value: float
    interval: Interval | None


@dataclass(frozen=True)
class Latency:
    """Of a corpus. Seconds; None where nothing was there to measure."""

    first_partial: Percentiles | None
    emission: Percentiles | None
    commit: Percentiles | None
    final: Percentiles | None
    revisions: Rate | None  # per word of the final texts
    grown: Rate | None
    start_error: Rate | None  # mean absolute errors
    end_error: Rate | None
    aligned: int  # utterances whose words have reference times
    utterances: int


class Heard(NamedTuple):
    """One utterance: what was shown, and when its words were said (None where that is not known)."""

    stream: Stream
    reference: tuple[Word, ...] | None
    audio_seconds: float
    seconds: float  # of computation


def summarise(
    alignments: Sequence[Sequence[Edit]], heard: Sequence[Heard], groups: Groups, live: bool
) -> Latency:
    """Utterances and their word alignments, in the order of `groups`.

    live: they came in chunks; otherwise there was nothing to be late with, and only times have errors.
    """
    found = [
        delays(alignment, each.stream, each.reference) if each.reference is not None else NO_DELAYS
        for alignment, each in zip(alignments, heard, strict=True)
    ]
    words = [len(each.stream.words) for each in heard]
    finals = [(each.stream.final_latency,) for each in heard]
    return Latency(
        percentiles([each.first_partial for each in found], groups) if live else None,
        percentiles([each.emission for each in found], groups) if live else None,
        percentiles([each.commit for each in found], groups) if live else None,
        percentiles(finals, groups) if live else None,
        rate([each.stream.revisions for each in heard], words, groups) if live else None,
        rate([each.stream.grown for each in heard], words, groups) if live else None,
        _mean_absolute([each.start_error for each in found], groups),
        _mean_absolute([each.end_error for each in found], groups),
        sum(each.reference is not None for each in heard),
        len(heard),
    )


def rate(parts: Sequence[float], wholes: Sequence[float], groups: Groups) -> Rate | None:
    """sum(parts) / sum(wholes), None if there is nothing to divide by."""
    if not sum(wholes):
        return None
    return Rate(sum(parts) / sum(wholes), confidence_interval(parts, wholes, groups))


def _mean_absolute(errors: Sequence[Sequence[float]], groups: Groups) -> Rate | None:
    return rate([sum(map(abs, each)) for each in errors], [len(each) for each in errors], groups)
