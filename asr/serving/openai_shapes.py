"""What OpenAI's HTTP and Realtime protocols have in common: hotwords, log-probabilities, shapes of errors."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from asr.decoding.hotwords import Hotword
from asr.errors import UserError
from asr.serving.hints import suited
from asr.serving.refusal import Refusal
from asr.serving.server import Service
from asr.transcript import Word, join

Json = dict[str, object]


class Invalid(Refusal):
    """A request that is wrong in one parameter."""

    def __init__(self, message: str, param: str | None = None, kind: str = "invalid_value") -> None:
        super().__init__("bad_message", message)
        self.param, self.kind = param, kind


def error_shape(error: UserError) -> Json:
    """{"message", "type", "param", "code"}."""
    refusal = error if isinstance(error, Refusal) else Invalid(str(error))
    ours = refusal.status >= 500
    code = {"unauthorised": "invalid_api_key"}.get(refusal.code, refusal.code)
    return {
        "message": str(refusal),
        "type": "server_error" if ours else "invalid_request_error",
        "param": refusal.param if isinstance(refusal, Invalid) else None,
        "code": refusal.kind if isinstance(refusal, Invalid) else code,
    }


def hotwords_of(service: Service, keywords: object, prompt: str) -> tuple[Hotword, ...]:
    """keywords: phrases, each of which has to be right. prompt: as for whisper-1 a list with commas (or one
    a line), of which what can be is taken; other models are given whole sentences there, which say nothing.

    Raises UserError for keywords.
    """
    given = service.hotwords(keywords)
    return (*given, *(each for each in suited(service, re.split(r"[,;\n]", prompt)) if each not in given))


def delta(words: Sequence[Word], first: bool) -> str:
    """What is appended to the text; first: if they are its first words."""
    return join(words) if first or not words else f" {join(words)}"


def logprobs(words: Sequence[Word], first: bool) -> list[Json]:
    """A token a word: its confidence's logarithm. The tokens together are the text."""
    tokens = [delta([word], first and index == 0) for index, word in enumerate(words)]
    scores = [round(math.log(max(word.confidence, 1e-9)), 4) for word in words]
    return [
        {"token": token, "bytes": list(token.encode()), "logprob": score}
        for token, score in zip(tokens, scores, strict=True)
    ]
