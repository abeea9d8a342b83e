"""Text as it is being said: a live region of the terminal, committed plain and tentative dim; or lines."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from asr.transcript import Transcript, join

LENGTH = 400  # committed characters shown, so that they fit a screen
WORDS = 200  # more than that length holds, but for words of one letter


class Show(Protocol):
    def __call__(self, transcript: Transcript, seconds: float, status: Text | None = None) -> None:
        """A partial, the seconds of audio it has heard, and a line below it, which only a terminal shows."""
        ...


def add_partials(parser: argparse.ArgumentParser) -> None:
    """The option whose value `partials` takes."""
    parser.add_argument(
        "--partials",
        choices=("auto", "lines", "off"),
        default="auto",
        help="auto: live if standard error is a terminal; lines: each change is a line",
    )


@contextmanager
def partials(screen: Console, how: str, by_segment: bool = False) -> Iterator[Show]:
    """Where partial text goes.

    how: "auto", a live region if `screen` is a terminal; "lines", of each change, on standard error; "off".
    by_segment: only the words since the last endpoint, for a caller that prints those before.
    """
    if how == "lines":
        last = ""

        def line(transcript: Transcript, seconds: float, status: Text | None = None) -> None:
            nonlocal last
            committed, tentative = tail(transcript, by_segment)
            text = f"{committed} [{tentative}]" if tentative else committed
            if text != last:
                print(f"{seconds:7.2f} s  {text[-100:]}", file=sys.stderr, flush=True)
            last = text

        yield line
    elif how == "auto" and screen.is_terminal:
        # Standard output may lead elsewhere than the screen: what is printed there has to stay there.
        live = Live(console=screen, transient=True, refresh_per_second=12, redirect_stdout=False)

        def show(transcript: Transcript, seconds: float, status: Text | None = None) -> None:
            committed, tentative = tail(transcript, by_segment)
            text = Text.assemble(committed, " " if committed else "", (tentative, "dim"))
            live.update(Group(text, status) if status else text)

        with live:
            yield show
    else:
        yield lambda transcript, seconds, status=None: None


def tail(transcript: Transcript, by_segment: bool = False) -> tuple[str, str]:
    """The last of the committed text, and the tentative text."""
    record, first = transcript.record, max(0, transcript.count - WORDS)
    if by_segment and transcript.endpoint_count:
        first = max(first, record.endpoints[transcript.endpoint_count - 1].words)
    return join(record.words[first : transcript.count])[-LENGTH:], transcript.tentative
