"""The learning curves of the stages as a picture.

python recipes/en_small/plot_curve.py exp/en-small/phones/curve.jsonl exp/en-small/joint/curve.jsonl curve.png
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot


def main(stages: list[Path], picture: Path) -> None:
    figure, (phones, words) = pyplot.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for stage in stages:
        points = [json.loads(line) for line in stage.read_text(encoding="utf-8").splitlines()]
        _draw(phones, points, "dev_phone_error", stage.parent.name)
        _draw(words, points, "dev_wer", stage.parent.name)
    phones.set(xlabel="minutes of the stage", ylabel="slots of 20 ms with a wrong phone (%)", ylim=(0, None))
    words.set(xlabel="minutes of the stage", ylabel="dev WER, greedy (%)", ylim=(0, 100))
    for axes in (phones, words):
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(picture, dpi=110)


def _draw(axes: Any, points: list[dict[str, float]], key: str, name: str) -> None:
    known = [point for point in points if key in point]
    if known:
        minutes, errors = [p["minutes"] for p in known], [p[key] for p in known]
        axes.plot(minutes, errors, marker="o", label=name)


if __name__ == "__main__":
    main([Path(path) for path in sys.argv[1:-1]], Path(sys.argv[-1]))
