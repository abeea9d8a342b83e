"""Where a segment of speech ends: the rules that users know from Kaldi, on frames of silence and words.

Knows neither audio nor decoders. An endpoint ends a segment and nothing else: encoder and VAD go on, and no
frame is heard twice or not at all.
"""

from __future__ import annotations

from dataclasses import dataclass

from asr.transcript import Reason


@dataclass(frozen=True)
class EndpointConfig:
    """In seconds; a rule that is None is off.

    silence: a segment with words ends after so much of it.
    no_speech: so much silence without a word is told once, until there are words again.
    max_length: a segment that has lasted so long since its first word began ends at its last final word, so
    no word is cut; words that are not final yet belong to the next one.
    """

    silence: float | None = 1.2
    no_speech: float | None = 5.0
    max_length: float | None = 20.0


class Endpointer:
    """Of one stream: what is true after so many frames in, the rule that is met out.

    To be asked after frame `due` and no other: so what it says depends on the stream alone, and not on how it
    was cut. Silence grows by a frame a frame, hence a rule of silence cannot be met earlier.
    """

    def __init__(self, config: EndpointConfig, frame_seconds: float) -> None:
        def frames(seconds: float | None) -> int | None:
            return None if seconds is None else max(1, round(seconds / frame_seconds))

        self._silence, self._no_speech = frames(config.silence), frames(config.no_speech)
        self._max_length = frames(config.max_length)
        self._pause = min(max(1, round(1 / frame_seconds)), self._silence or 10**9)  # without a word yet
        self._ended = 0  # after how many frames the last segment did
        self._told = False  # that there is no speech
        self.due = min(self._pause, self._no_speech or self._pause)

    def check(self, frame: int, silence: int, first: int | None, final: bool) -> Reason | None:
        """After `frame` frames, the last `silence` of them silent.

        first: the frame in which the segment's first word began, None if there is none; final: whether any
        of its words is. After "length" the words that are final belong to the segment that ended.
        """
        quiet = min(silence, frame - self._ended)
        waits = [self._pause] if first is None else []
        reason: Reason | None = None
        if first is None:
            if self._no_speech is not None and not self._told:
                waits.append(self._no_speech - quiet)
                reason = "no speech" if quiet >= self._no_speech else None
        else:
            self._told = False
            if self._max_length is not None:
                waits.append(self._max_length - (frame - first))
                reason = "length" if waits[-1] <= 0 and final else None
            if self._silence is not None:
                waits.append(self._silence - silence)
                reason = "silence" if waits[-1] <= 0 else reason
        if reason:
            self._ended, self._told = frame, reason == "no speech"
        # right after an endpoint the words are others: look again
        self.due = frame + (1 if reason else max(1, min(waits, default=self._pause)))
        return reason
