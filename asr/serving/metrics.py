"""Counts of what the server does, in the text format that Prometheus reads (version 0.0.4)."""

from __future__ import annotations

import resource
import sys
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0)
STREAMS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Count:
    """A number for each value of a label, or one without: a counter, which only grows, or a gauge."""

    def __init__(self, name: str, help: str, label: str = "") -> None:
        self.name, self.help, self.label = name, help, label
        self.kind = "counter" if name.endswith("_total") else "gauge"
        self.values: Counter[str] = Counter() if label else Counter({"": 0})

    def add(self, amount: float = 1, value: str = "") -> None:
        self.values[value] += amount  # type: ignore[assignment]  # seconds too

    def lines(self) -> Iterator[str]:
        yield from _head(self.name, self.help, self.kind)
        for value, amount in self.values.items():
            label = f'{{{self.label}="{value}"}}' if self.label else ""
            yield f"{self.name}{label} {amount:.10g}"


class Histogram:
    """How many observations were at most each of some bounds."""

    def __init__(self, name: str, help: str, bounds: Sequence[float]) -> None:
        self.name, self.help, self.bounds = name, help, bounds
        self.counts, self.sum = [0] * (len(bounds) + 1), 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def lines(self) -> Iterator[str]:
        yield from _head(self.name, self.help, "histogram")
        total = 0
        for bound, count in zip((*self.bounds, "+Inf"), self.counts, strict=True):
            total += count
            yield f'{self.name}_bucket{{le="{bound}"}} {total}'
        yield f"{self.name}_sum {self.sum:.10g}"
        yield f"{self.name}_count {total}"


class Metrics:
    """All there are; labels have few values, and none that a client can choose."""

    def __init__(self) -> None:
        self.sessions = Count("asr_sessions_total", "Connections let in.", "protocol")
        self.open = Count("asr_sessions", "Connections open now.", "protocol")
        self.refused = Count("asr_refusals_total", "Refused, or ended by a limit.", "code")
        self.streams = Count("asr_streams", "Streams of audio open now.")
        self.audio = Count("asr_audio_seconds_total", "Audio computed.")
        self.tick = Histogram("asr_tick_seconds", "Computing one batch.", SECONDS)
        self.batch = Histogram("asr_tick_streams", "Streams in one batch.", STREAMS)
        self.lag = Histogram("asr_lag_seconds", "From a sample's arrival until its words are known.", SECONDS)

    def text(self) -> str:
        used = resource.getrusage(resource.RUSAGE_SELF)
        cpu = Count("process_cpu_seconds_total", "User and system CPU time.")
        cpu.add(used.ru_utime + used.ru_stime)
        peak = Count("process_peak_resident_memory_bytes", "The most memory that was resident.")
        peak.add(used.ru_maxrss * (1 if sys.platform == "darwin" else 1024))
        every: Iterable[Count | Histogram] = (*vars(self).values(), cpu, peak)
        return "\n".join(line for each in every for line in each.lines()) + "\n"


def _head(name: str, help: str, kind: str) -> tuple[str, str]:
    return f"# HELP {name} {help}", f"# TYPE {name} {kind}"
