"""The learning curves of the trainings as a picture.

python recipes/en_small/plot_curve.py exp/en-small/phones/curve.jsonl exp/en-small/mmi/curve.jsonl curve.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot


def main(trainings: list[Path], picture: Path) -> None:
    figure, (frames, losses) = pyplot.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for training in trainings:
        points = [json.loads(line) for line in training.read_text(encoding="utf-8").splitlines()]
        _draw(frames, points, "dev_frame_error", training.parent.name)
        _draw(losses, points, "dev_loss", training.parent.name)
    frames.set(ylabel="dev frame error (%)")
    losses.set(ylabel="dev loss (nats a frame or phone)")
    for axes in (frames, losses):
        axes.set_xlabel("minutes of the training")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(picture, dpi=110)


def _draw(axes: Any, points: list[dict[str, float]], key: str, name: str) -> None:
    known = [point for point in points if key in point]
    if known:
        minutes, errors = [p["minutes"] for p in known], [p[key] for p in known]
        axes.plot(minutes, errors, marker="o", label=name)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The learning curves of the trainings as a picture.")
    parser.add_argument("trainings", type=Path, nargs="+", metavar="JSONL", help="a curve.jsonl")
    parser.add_argument("picture", type=Path, metavar="PNG")
    args = parser.parse_args()
    main(args.trainings, args.picture)
