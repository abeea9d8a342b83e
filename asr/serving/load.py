"""How many streams a machine can carry, from how long its steps take. Knows neither streams nor clocks.

A step of b streams takes `fixed + each * b` seconds: weights have to be read once, the rest is work for each.
The steps that are measured differ in b, so both are found by least squares; steps long ago count less.
"""

from __future__ import annotations

import math

KEPT = 0.98  # of a step's weight after the next one: about 50 steps count
WEIGHT = 5.0  # of a step that is measured before anybody is served: it is never forgotten
SMOOTHED = 0.9  # of the last steps' mean after the next one


class Load:
    """chunk: seconds of audio that a step computes of a stream."""

    def __init__(self, chunk: float) -> None:
        self.chunk = chunk
        self.recent = 0.0  # seconds that steps take at present
        self._first: tuple[float, ...] = (0.0,) * 5  # sums of 1, b, b^2, s, s b over the first steps ...
        self._later: tuple[float, ...] = (0.0,) * 5  # ... and over those after them

    def learn(self, streams: int, seconds: float) -> None:
        """A step that nobody waited for, in which the two parts can be told apart."""
        self._first = _plus(self._first, streams, seconds, 1.0, WEIGHT)

    def observe(self, streams: int, seconds: float) -> None:
        self._later = _plus(self._later, streams, seconds, KEPT, 1.0)
        self.recent = seconds + SMOOTHED * (self.recent - seconds)

    def forget(self) -> None:
        """All but what was learnt at first."""
        self.recent, self._later = 0.0, (0.0,) * 5

    def step(self, streams: int) -> float:
        """Seconds of each step when so many live streams are heard; infinity if they cannot be.

        A stream brings 1 / chunk chunks a second, so a step of t seconds is one of streams * t / chunk.
        """
        fixed, each = self._fit()
        idle = 1 - each * streams / self.chunk
        return fixed / idle if idle > 0 else math.inf

    def _fit(self) -> tuple[float, float]:
        count, b, bb, s, sb = map(sum, zip(self._first, self._later, strict=True))
        if not count:
            return 0.0, 0.0
        spread = bb - b * b / count
        each = max(0.0, (sb - s * b / count) / spread) if spread > 1e-9 else 0.0
        return max(0.0, (s - each * b) / count), each


def _plus(
    sums: tuple[float, ...], streams: int, seconds: float, kept: float, weight: float
) -> tuple[float, ...]:
    new = (1, streams, streams**2, seconds, seconds * streams)
    return tuple(kept * old + weight * value for old, value in zip(sums, new, strict=True))
