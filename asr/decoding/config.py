"""The knobs of decoding: what a bundle keeps in decoding.yaml and commands can overrule. Knows no decoder."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from asr.errors import UserError


@dataclass(frozen=True)
class DecodingConfig:
    """Scores are natural logarithms ("nats"), times are frames of the model where nothing else is said."""

    beam: int = 8  # hypotheses alive; 1 is the best path, which needs no compiled library
    tokens: int = 32  # likeliest tokens of a frame that are tried, besides blank and repetition ...
    token_threshold: float = 9.0  # ... of those that are no further under the likeliest
    threshold: float = 14.0  # hypotheses further under the best one are dropped
    lm_weight: float = 0.5  # of the language model's log-probabilities
    word_bonus: float = 1.5  # for every word, with a language model: against its liking for few
    unknown_penalty: float = -8.0  # for a word that the language model does not know, besides <unk>'s score
    hotword_boost: float = 0.5  # for every letter of a hotword without a boost of its own
    temperature: float = 1.0  # of the posterior in confidences; above 1 is more modest
    confidence_scale: float = 1.0  # of the confidence's log-odds, and ...
    confidence_bias: float = 0.0  # ... added to them: `calibrated`
    stable_frames: int = 2  # a tentative word is shown once it has survived so many
    max_tentative: int = 125  # what left the best hypothesis longer ago is dropped: memory is bounded
    start_offset: float = 0.0  # seconds added to the start of a word, and ...
    end_offset: float = 0.0  # ... to its end: CTC emits late

    def __post_init__(self) -> None:
        for field in fields(self):
            value, least = getattr(self, field.name), _LEAST.get(field.name, -math.inf)
            whole = field.type == "int"
            right = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
            if not right or math.isnan(value) or value < least:
                kind = "a whole number" if whole else "a number"
                bound = "" if least == -math.inf else f" of at least {least:g}"
                raise UserError(f"decoding: {field.name} has to be {kind}{bound}, not {value!r}")
        if self.unknown_penalty > 0:
            raise UserError(f"decoding: unknown_penalty is at most 0, not {self.unknown_penalty!r}")
        for name in (
            "lm_weight",
            "word_bonus",
            "unknown_penalty",
            "hotword_boost",
            "start_offset",
            "end_offset",
            "confidence_scale",
            "confidence_bias",
        ):
            if math.isinf(getattr(self, name)):
                raise UserError(f"decoding: {name} has to be finite")

    def calibrated(self, confidence: float) -> float:
        """A decoder's confidence in [0, 1] as it is shown: the logistic map (Platt 1999) that `asr calibrate`
        fits, on log-odds that are kept within those of 1e-4 and 1 - 1e-4."""
        if (self.confidence_scale, self.confidence_bias) == (1.0, 0.0):
            return confidence
        bounded = min(max(confidence, 1e-4), 1 - 1e-4)
        odds = math.log(bounded / (1 - bounded))
        return 1 / (1 + math.exp(-self.confidence_scale * odds - self.confidence_bias))


_LEAST: dict[str, float] = {
    "beam": 1,
    "tokens": 1,
    "token_threshold": 0,
    "threshold": 0,
    "lm_weight": 0,
    "hotword_boost": 0,
    "temperature": 1e-3,
    "confidence_scale": 0,
    "stable_frames": 0,
    "max_tentative": 1,
}

# For tokens of phones, 20 ms each: they are sure of little, the words of the lexicon are many, and others
# there are none.
OF_PHONES = DecodingConfig(
    beam=512,
    tokens=80,
    token_threshold=6.0,
    threshold=16.0,
    lm_weight=1.0,
    word_bonus=0.0,
    unknown_penalty=-1000.0,
    stable_frames=4,
    max_tentative=250,
)
