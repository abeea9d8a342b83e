"""What benchmarks share: which machine it was, and figures as JSON of one shape.

    {"what": ..., "command": ..., "machine": {"cpu", "cores", "threads"}, "date", "torch", "rows": [...]}

and what else a benchmark has to say of its rows. Needs no torch: decoders are compared where there is none.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

from asr.errors import UserError

Cut = TypeVar("Cut")


def add_output(parser: argparse.ArgumentParser) -> None:
    """The option whose value `write_json` takes."""
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the figures here too, as JSON")


def check_output(path: Path | None) -> None:
    """Before the work: UserError where there is no such folder."""
    if path is not None and not path.parent.is_dir():
        raise UserError(f"{path}: its folder does not exist; make it")


def write_json(
    path: Path | None, name: str, what: str, argv: Sequence[str] | None, rows: Sequence[Any], **more: object
) -> None:
    """Nothing where `path` is None.

    name: of the benchmark's module. argv: its arguments, None for those of the process. rows: dataclasses or
    mappings, as may be what is in `more`, which belongs to all of them.
    """
    if path is None:
        return
    arguments = sys.argv[1:] if argv is None else argv
    document = {
        "what": what,
        "command": shlex.join(["python", "-m", f"benchmarks.{name}", *arguments]),
        "machine": machine(),
        "date": str(date.today()),
        "torch": _installed("torch"),
        **more,
        "rows": rows,
    }
    path.write_text(json.dumps(document, default=asdict, indent=1) + "\n", encoding="utf-8")


def machine() -> dict[str, str | int | None]:
    """threads: of torch, and of our C, which uses as many."""
    torch = sys.modules.get("torch")
    return {"cpu": cpu(), "cores": os.cpu_count(), "threads": torch.get_num_threads() if torch else 1}


def cpu() -> str:
    """The processor's model."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def evenly(cuts: Sequence[Cut], most: int | None) -> Sequence[Cut]:
    """At most so many of them, evenly spread; all where it is None."""
    return cuts[:: max(1, len(cuts) // most)][:most] if most else cuts


def clock(threads: int) -> Callable[[], float]:
    """Of one thread the CPU time, in which other work on the machine is not counted; of several the time."""
    return time.process_time if threads == 1 else time.perf_counter


def where() -> str:
    """One line below a table."""
    found = machine()
    torch = _installed("torch")
    return (
        f"{found['cores']} cores, {found['cpu']}; {found['threads']} threads; {date.today()}"
        f"{f'; torch {torch}' if torch else ''}"
    )


def markdown(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table as the documentation has it."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def ratios(seconds: Mapping[str, float]) -> list[str]:
    """The first contender's time, and of the others how many times as fast each is, and its time."""
    first, *others = seconds.items()
    cells = [f"{first[1] / own:.1f} ({_milliseconds(own)})" for _, own in others]
    return [_milliseconds(first[1]), *cells]


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms"


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
