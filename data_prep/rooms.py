"""Rooms that nobody measured: impulse responses of boxes with a speaker and a microphone somewhere in them.

    pip install pyroomacoustics
    python -m data_prep.rooms --count 300 --output data/rooms.jsonl.gz

Image sources for the first echoes and rays for the rest (pyroomacoustics, Scheibler et al. 2018, arXiv
1710.04196). Sizes, distances, and how long the sound takes to fall by 60 dB are drawn: from a small office to
a hall, from an arm's length to the other end of a table. Files are written to a folder beside the manifest.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from lhotse import CutSet
from numpy.typing import NDArray

from asr.cli import at_least, run
from asr.data.manifest import write_cuts
from asr.errors import UserError
from data_prep.common import recording_of

DESCRIPTION = "Make impulse responses of rooms, and a manifest of them."
RATE = 16000
SMALLEST, LARGEST = (2.5, 2.5, 2.3), (9.0, 7.0, 4.0)  # metres
DECAY = (0.15, 1.0)  # seconds for 60 dB, in the middle of the spectrum
DISTANCE = (0.3, 5.0)  # metres
TRIES = 2000  # before such a room is given up
WALL = 0.3  # metres from it, at least
FREQUENCIES = (125, 250, 500, 1000, 2000, 4000)
ABSORBED = (0.6, 0.8, 1.0, 1.0, 1.1, 1.2)  # more of the treble than of the bass, as carpets and curtains do


def response(
    random: np.random.Generator, acoustics: Any, decay: tuple[float, float], distance: tuple[float, float]
) -> NDArray[np.float32]:
    """(S,) at `RATE`, its loudest sample 0.5; acoustics: the module; decay, distance: ranges.

    Raises UserError where there is no such room.
    """
    for _ in range(TRIES):
        size = random.uniform(SMALLEST, LARGEST)
        try:
            absorption, _ = acoustics.inverse_sabine(random.uniform(*decay), size)
        except ValueError:
            continue  # such walls there are not: too large a room for so short an echo
        away = np.exp(random.uniform(*np.log(distance)))
        microphone = random.uniform(WALL, size - WALL)
        direction = random.standard_normal(3) * (1, 1, 0.3)
        speaker = microphone + away * direction / np.linalg.norm(direction)
        if np.all((speaker >= WALL) & (speaker <= size - WALL)):
            break
    else:
        raise UserError(
            f"no room of up to {LARGEST[0]:g} m fades in {decay[0]:g} to {decay[1]:g} s and has"
            f" {distance[0]:g} to {distance[1]:g} m in it: give another --decay or --distance"
        )
    coefficients = np.clip(absorption * np.array(ABSORBED), 0.01, 0.99)
    walls = acoustics.Material({"coeffs": coefficients, "center_freqs": FREQUENCIES, "description": "walls"})
    room = acoustics.ShoeBox(
        size, fs=RATE, materials=walls, max_order=3, ray_tracing=True, air_absorption=True
    )
    room.add_source(speaker)
    room.add_microphone(microphone)
    room.compute_rir()
    heard = np.asarray(room.rir[0][0])
    heard = heard[int(np.abs(heard).argmax()) :]
    left = np.cumsum(np.square(heard)[::-1])[::-1]
    heard = heard[: int(np.count_nonzero(left > 1e-6 * left[0]))]
    return (0.5 * heard / np.abs(heard).max()).astype(np.float32)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="data_prep.rooms", description=DESCRIPTION)
    parser.add_argument(
        "--count", type=at_least(1, int), default=300, metavar="N", help="rooms (%(default)s)"
    )
    parser.add_argument("--output", type=Path, required=True, help="the manifest, <name>.jsonl.gz")
    spans = (("--decay", DECAY, "seconds for 60 dB"), ("--distance", DISTANCE, "metres"))
    for name, default, unit in spans:
        parser.add_argument(
            name,
            type=at_least(0.01, float),
            nargs=2,
            default=default,
            metavar=("LEAST", "MOST"),
            help=f"{unit} ({default[0]:g} {default[1]:g})",
        )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    try:
        import pyroomacoustics
    except ImportError as error:
        raise UserError("rooms are computed by pyroomacoustics: pip install pyroomacoustics") from error
    pyroomacoustics.random.seed(args.seed)  # of the rays
    folder = args.output.with_name(args.output.name.removesuffix(".jsonl.gz"))
    folder.mkdir(parents=True, exist_ok=True)
    cuts = []
    for number in range(args.count):
        path = folder / f"{number:04}.flac"
        random = np.random.default_rng((args.seed, number))
        made = response(random, pyroomacoustics, tuple(sorted(args.decay)), tuple(sorted(args.distance)))
        soundfile.write(path, made, RATE)
        cuts.append(recording_of(f"room-{args.seed}-{number:04}", path))
    write_cuts(CutSet.from_cuts(cuts), args.output)
    print(f"{args.output}: {len(cuts)} rooms")
    return 0


if __name__ == "__main__":
    run(main)
