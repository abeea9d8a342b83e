"""The reliability diagram: of the words with about this confidence, how many are right? matplotlib is an
extra.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from asr.errors import UserError
from asr.evaluation.confidence import BINS, Calibration


def check_plot(path: Path) -> None:
    """Before the work: UserError where there is no matplotlib, or no such folder."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UserError("--plot needs matplotlib: pip install 'asr[plot]'") from error
    if not path.parent.is_dir():
        raise UserError(f"{path}: its folder does not exist; make it")


def reliability_diagram(path: Path, found: Mapping[str, Calibration]) -> None:
    """One line for each name, above; below, in how many words each bin has, on a logarithmic scale."""
    from matplotlib.figure import Figure  # needs no display, and changes no global state

    figure = Figure(figsize=(5.6, 6.4), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.plot((0, 1), (0, 1), color="0.6", linewidth=1, linestyle="--")
    for index, (name, own) in enumerate(found.items()):
        filled = [each for each in own.bins if each.count]
        label = f"{name}: calibration error {own.error:.3f}, {own.likelihood:.3f} nats"
        upper.plot(
            [each.confidence for each in filled], [each.correct for each in filled], marker="o", label=label
        )
        width = 1 / BINS / len(found)
        left = [each.low + (index + 0.5) * width for each in own.bins]
        bars = lower.bar(left, [each.count for each in own.bins], 0.9 * width)
        lower.bar_label(
            bars, [str(each.count or "") for each in own.bins], fontsize=6, rotation=90, padding=2
        )
    upper.set(ylabel="share of right words", xlim=(0, 1), ylim=(0, 1))
    upper.legend(loc="best")
    upper.grid(alpha=0.3)
    lower.set(xlabel="confidence", ylabel="words", yscale="log")
    lower.margins(y=0.5)
    figure.savefig(path, dpi=130)
