"""Anyone's own recordings: a table of audio paths and texts becomes a manifest.

    python -m data_prep.tsv mine/transcripts.tsv --output data/mine/train.jsonl.gz

The table is TSV or CSV in UTF-8, its first line the names of the columns: `path` and `text`, and if you have
them `utt_id`, `speaker` and `language`; others are ignored. Relative paths start at the table's folder. Every
file is decoded once, so that a damaged one is found here and not in the middle of a training. Each bad row is
named on stderr and left out; the exit status is then 1.
"""

from __future__ import annotations

import argparse
import csv
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from lhotse import CutSet
from lhotse.cut.data import DataCut

from asr import audio
from asr.cli import run
from asr.data.manifest import write_cuts
from asr.errors import UserError
from data_prep.common import progress, utterance, warn

DESCRIPTION = "Make a manifest of a TSV or CSV table with the columns path and text."


class Row(NamedTuple):
    """One row of the table, or what is wrong with it."""

    line: int
    values: dict[str, str]
    problem: str = ""


def rows(table: Path) -> Iterator[Row]:
    """The rows of a table, bad ones too. Raises UserError if it is no table or has no column path or text."""
    try:
        data = table.read_bytes()
    except OSError as error:
        raise UserError(f"{table}: cannot be read ({error.strerror}): give a TSV or CSV file") from error
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise UserError(f"{table}: is UTF-16: save it as UTF-8")
    lines = data.decode("utf-8-sig", errors="surrogateescape").splitlines(keepends=True)
    yield from _parse(table, lines)


def _parse(table: Path, lines: list[str]) -> Iterator[Row]:
    # quotes mean something in CSV; in TSV they are just part of the text
    tabs = bool(lines) and "\t" in lines[0]
    reader = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE) if tabs else csv.reader(lines)
    try:
        header = [name.strip().lower() for name in next(reader, [])]
        for name in ("path", "text"):
            if name not in header:
                found = ", ".join(header) or "nothing"
                raise UserError(
                    f"{table}: no column {name!r} in its first line ({found}): name the columns there"
                )
        for cells in reader:
            if any(cells):
                yield _row(reader.line_num, header, cells)
    except csv.Error as error:
        raise UserError(
            f"{table}, line {reader.line_num}: not a table ({error}): is a quote not closed?"
        ) from error


def _row(line: int, header: list[str], cells: list[str]) -> Row:
    if len(cells) != len(header):
        return Row(line, {}, f"{len(cells)} columns, and the first line has {len(header)}")
    values = {name: cell.strip() for name, cell in zip(header, cells, strict=True)}
    if any("\udc80" <= letter <= "\udcff" for cell in cells for letter in cell):
        return Row(line, values, "not UTF-8: save the table as UTF-8")
    if "\n" in values["path"] + values["text"]:
        return Row(line, values, "goes over several lines: is a quote not closed?")
    for name in ("path", "text"):
        if not values[name]:
            return Row(line, values, f"empty {name}")
    return Row(line, values)


def check_ids(table: Iterable[Row]) -> Iterator[Row]:
    """Gives each row its `utt_id`, by default the path without suffix; a second use of one is marked."""
    first: dict[str, int] = {}
    for row in table:
        if row.problem:
            yield row
            continue
        name = row.values.get("utt_id") or Path(row.values["path"]).with_suffix("").as_posix()
        before = first.setdefault(name, row.line)
        again = f"{name} is already on line {before}: give each row its own utt_id"
        problem = "" if before == row.line else again
        yield Row(row.line, {**row.values, "utt_id": name}, problem)


def cut(row: Row, root: Path) -> DataCut | str:
    """The row's cut with all of its audio checked, or what is wrong with it."""
    if row.problem:
        return row.problem
    speaker = row.values.get("speaker", "")
    path = root / row.values["path"]
    try:
        made = utterance(
            row.values["utt_id"],
            path,
            row.values["text"],
            speaker=None if speaker.lower() in ("", "unknown") else speaker,  # not one speaker: none is known
            language=row.values.get("language") or None,
        )
        rate = made.recording.sampling_rate
        if all([audio.is_silent(piece) for piece in audio.blocks(path, 10.0, rate)]):  # a list: to the end
            return f"{path}: digital silence: record it again"
    except UserError as error:
        return str(error)
    return made


def prepare(table: Path, root: Path, output: Path) -> tuple[int, int]:
    """Write the manifest of a table; returns how many rows were good and how many bad.

    Raises UserError if no row is good; a manifest that is there already then stays.
    """
    todo = list(check_ids(rows(table)))
    cuts, notes = [], Counter[str]()
    with ThreadPoolExecutor(os.cpu_count()) as pool, progress() as bar:
        results = pool.map(lambda row: cut(row, root), todo)
        for row, result in zip(todo, bar.track(results, len(todo), description=table.name), strict=True):
            if isinstance(result, str):
                warn(f"{table}, line {row.line}: {result}")
            else:
                cuts.append(result)
                notes.update(_remarks(result))
    if not cuts:
        raise UserError(f"{table}: no good row among {len(todo)}: see the lines above, or add rows")
    for note, count in notes.items():
        warn(f"{table}: {count} files: {note}")
    write_cuts(CutSet.from_cuts(cuts), output)
    hours = sum(made.duration for made in cuts) / 3600
    speakers = len({made.supervisions[0].speaker for made in cuts} - {None}) or "unknown"
    bad = len(todo) - len(cuts)
    print(f"{output}: {len(cuts)} utterances, {hours:.2f} h, {speakers} speakers; {bad} bad rows left out")
    return len(cuts), bad


def _remarks(made: DataCut) -> list[str]:
    recording = made.recording
    return audio.remarks(
        audio.AudioInfo(recording.sampling_rate, recording.num_channels, recording.num_samples)
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m data_prep.tsv", description=DESCRIPTION)
    parser.add_argument("table", type=Path, help="TSV or CSV with a first line of column names")
    parser.add_argument("--output", type=Path, required=True, help="the manifest, <name>.jsonl.gz")
    parser.add_argument("--audio-root", type=Path, help="where relative paths start (the table's folder)")
    args = parser.parse_args(argv)
    if not args.output.name.endswith(".jsonl.gz"):
        raise UserError(f"{args.output}: a manifest's name ends in .jsonl.gz: correct --output")
    _, bad = prepare(args.table, args.audio_root or args.table.parent, args.output)
    return 1 if bad else 0


if __name__ == "__main__":
    run(main)
