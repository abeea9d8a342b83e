"""Development data as log-probabilities in memory: the model runs once, the decoder as often as fits need.

T frames, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from lhotse.cut import Cut
from numpy.typing import NDArray

from asr import audio
from asr.align.emissions import emissions
from asr.align.forced import Timing, align, spell
from asr.bundle import Bundle
from asr.data.manifest import load_audio
from asr.decoding.config import DecodingConfig
from asr.errors import UserError
from asr.evaluation.bootstrap import Groups, groups
from asr.evaluation.latency import matched, normalised
from asr.evaluation.wer import Score, Utterance, score
from asr.streaming import WordStream, new_decoder
from asr.text import normalise
from asr.transcript import Word


@dataclass(frozen=True)
class Example:
    """An utterance: what was said, log-probabilities (T, V), and when the words were said, where that is
    known.

    forced: by forced alignment with the same log-probabilities, without offsets. timed: by another aligner.
    """

    utt_id: str
    speaker: str | None
    reference: str
    log_probs: NDArray[np.float32]
    seconds: float
    forced: tuple[Word, ...] | None
    timed: tuple[Word, ...] | None = None


def example(cut: Cut, bundle: Bundle) -> Example:
    """Raises UserError for audio that cannot be read."""
    resampler = audio.Resampler(cut.sampling_rate)
    samples = np.concatenate([resampler.accept(load_audio(cut)), resampler.finish()])
    supervision = cut.supervisions[0]
    reference = normalise(supervision.text or "")
    log_probs = emissions(bundle.model, [samples])
    try:
        words = align(log_probs, spell(reference, bundle.tokenizer), Timing(bundle.model.frame_seconds))
    except UserError:
        words = None
    return Example(
        cut.id,
        supervision.speaker,
        reference,
        log_probs,
        len(samples) / audio.SAMPLE_RATE,
        None if words is None else tuple(words),
    )


@dataclass(frozen=True)
class Decoding:
    """What a decoder with one configuration found in some examples."""

    examples: tuple[Example, ...]
    words: tuple[tuple[Word, ...], ...]
    scores: tuple[Score, ...]

    @property
    def errors(self) -> list[int]:
        return [each.words.errors for each in self.scores]

    @property
    def rate(self) -> float:
        length = sum(each.words.length for each in self.scores)
        return sum(self.errors) / length if length else 0.0

    def time_errors(self, reference: Callable[[Example], tuple[Word, ...] | None]) -> list[list[TimeError]]:
        """Of the correct words of each utterance."""
        return [
            [
                (heard.start - said.start, heard.end - said.end)
                for said, heard in matched(own.alignment, known, words)
            ]
            if (known := reference(each)) is not None
            else []
            for each, words, own in zip(self.examples, self.words, self.scores, strict=True)
        ]


TimeError = tuple[float, float]  # seconds: recognised - said, of start and end


def decode(examples: Iterable[Example], bundle: Bundle, decoding: DecodingConfig) -> Decoding:
    """All examples with one configuration, as a stream would be: endpoints and VAD aside."""
    examples = tuple(examples)
    model, decoder = bundle.model, new_decoder(replace(bundle, decoding=decoding))
    found = []
    for each in examples:
        decoder.reset()
        stream = WordStream(decoder, decoding, model.frame_seconds, model.lookahead)
        stream.length = each.seconds
        stream.accept(each.log_probs)
        stream.finish()
        found.append(tuple(normalised(stream.transcript().words)))
    utterances = [
        Utterance(each.utt_id, each.speaker, each.reference, " ".join(word.text for word in words))
        for each, words in zip(examples, found, strict=True)
    ]
    return Decoding(examples, tuple(found), score(utterances))


def speakers(examples: Sequence[Example]) -> Groups:
    return groups([each.speaker for each in examples])
