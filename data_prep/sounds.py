"""Sounds without words: noise to mix with speech and to train on as silence, and rooms to hear speech in.

    python -m data_prep.sounds noise/clips.tsv --output data/noise.jsonl.gz [--only PREFIX ...]

The table is tab-separated, with a column `path` and perhaps `clip_id`; `--only` takes the clips whose names
begin so, as those of ESC-50 begin with their fold. As training data a sound is an utterance without words.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from lhotse import CutSet

from asr.cli import run
from asr.data.manifest import write_cuts
from asr.errors import UserError
from data_prep.common import recording_of

DESCRIPTION = "Write a manifest of sounds without words."


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="data_prep.sounds", description=DESCRIPTION)
    parser.add_argument("table", type=Path, help="TSV with a column `path`")
    parser.add_argument("--output", type=Path, required=True, help="the manifest, <name>.jsonl.gz")
    parser.add_argument("--only", nargs="+", default=[""], metavar="PREFIX", help="of the names of the clips")
    parser.add_argument(
        "--audio-root", type=Path, help="the folder of the files, or where their paths start (the table's)"
    )
    args = parser.parse_args(argv)
    with args.table.open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file, delimiter="\t"))
    if not table or "path" not in table[0]:
        raise UserError(
            f"{args.table}: has no rows with a column `path`; give a tab-separated table with one"
        )
    root = args.audio_root or args.table.parent
    cuts = []
    for row in table:
        path = root / row["path"]
        if not path.exists():
            path = root / path.name
        name = row.get("clip_id") or path.stem
        if name.startswith(tuple(args.only)):
            cuts.append(recording_of(f"sound-{name}", path))
    if not cuts:
        raise UserError(f"{args.table}: no clip begins with {' or '.join(args.only)}; correct --only")
    write_cuts(CutSet.from_cuts(cuts), args.output)
    print(f"{args.output}: {len(cuts)} sounds, {sum(cut.duration for cut in cuts) / 3600:.2f} h")
    return 0


if __name__ == "__main__":
    run(main)
