"""The learning curve of a training as a picture: curve.jsonl in, PNG out.

python recipes/mini_librispeech/plot_curve.py exp/mini_librispeech/curve.jsonl curve.png
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot


def main(curve: Path, picture: Path) -> None:
    points = [json.loads(line) for line in curve.read_text(encoding="utf-8").splitlines()]
    minutes = [point["minutes"] for point in points]
    figure, (words, loss) = pyplot.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    words.plot(minutes, [point["dev_wer"] for point in points], marker="o")
    words.set(xlabel="minutes of training", ylabel="dev WER, greedy (%)", ylim=(0, 100))
    loss.plot(minutes, [point["dev_loss"] for point in points], marker="o", label="dev")
    loss.plot(minutes, [point["loss"] for point in points], marker=".", label="train, last batch, masked")
    loss.set(xlabel="minutes of training", ylabel="CTC loss (nats a token)", ylim=(0, None))
    loss.legend()
    for axes in (words, loss):
        axes.grid(alpha=0.3)
    figure.savefig(picture, dpi=110)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
