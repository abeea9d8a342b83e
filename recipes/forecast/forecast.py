"""Tomorrow's sales from the last three weeks: the MGU outside of speech, beside torch's GRU.

    python recipes/forecast/forecast.py --picture recipes/forecast/forecast.png

Sequence to one: a recurrent layer reads a day a step, and a line through its last output is tomorrow. Each
seed draws another series and other weights. The cells have about as many parameters; all else is alike.

N windows, T days, D features a day, H hidden units.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from asr.cli import at_least
from asr.mgu import MGU

YEAR = 365
TRAINING, VALIDATION, TEST = 6 * YEAR, YEAR, YEAR  # days, one after the other
DAYS = TRAINING + VALIDATION + TEST
WINDOW = 21  # days that a forecast is made from
UNITS = {"MGU": 39, "GRU": 32}  # so that both have about as many parameters
COLOURS = ("0.6", "C0", "C1", "C2")
BATCH, LEARNING_RATE = 128, 2e-2

Array = NDArray[np.float64]


class Series(NamedTuple):
    """Of each day: units sold, how many that would be without noise, whether there is a promotion."""

    sales: Array
    expected: Array
    promotion: NDArray[np.bool_]


class Windows(NamedTuple):
    inputs: Tensor  # (N, T, 2): sales as a multiple of the window's mean; whether tomorrow has a promotion
    targets: Tensor  # (N,): the day after the window, as a multiple of the same mean
    means: Tensor  # (N,)


class Forecaster(nn.Module):
    def __init__(self, cell: str) -> None:
        super().__init__()
        hidden = UNITS[cell]
        self.layer = MGU(2, hidden) if cell == "MGU" else nn.GRU(2, hidden, batch_first=True)
        self.head = nn.Linear(hidden, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, T, 2) -> (N,)"""
        state = inputs.new_zeros(len(inputs), self.head.in_features)
        outputs, _ = self.layer(inputs, state if isinstance(self.layer, MGU) else state[None])
        return self.head(outputs[:, -1]).squeeze(-1)


def draw_series(seed: int) -> Series:
    """Trend x week x year x promotions x noise. A promotion sells more, and the three days after it less."""
    random = np.random.default_rng(seed)
    day = np.arange(DAYS)
    trend = 200 * np.exp(np.cumsum(random.normal(2e-4, 2e-3, DAYS)))  # 7 % a year, wandering
    week = np.array([0.85, 0.8, 0.9, 1.0, 1.2, 1.5, 0.75])[day % 7]
    year = 1 + 0.3 * np.sin(2 * np.pi * day / YEAR)
    promotion, effect = np.zeros(DAYS, bool), np.ones(DAYS)
    for start in np.flatnonzero(random.random(DAYS) < 12 / YEAR):
        end = start + random.integers(3, 8)
        promotion[start:end], effect[end : end + 3] = True, 0.8
    effect[promotion] = 1.5
    expected = trend * week * year * effect
    return Series(expected * np.exp(random.normal(0, 0.06, DAYS)), expected, promotion)


def windows(series: Series, first: int, last: int) -> Windows:
    """Those whose forecast is for the days [first, last)."""
    inputs, targets, means = [], [], []
    for day in range(max(first, WINDOW), last):
        past = series.sales[day - WINDOW : day]
        inputs.append(np.stack([past / past.mean(), series.promotion[day - WINDOW + 1 : day + 1]], -1))
        targets.append(series.sales[day] / past.mean())
        means.append(past.mean())
    return Windows(*(torch.from_numpy(np.array(each, np.float32)) for each in (inputs, targets, means)))


def train(cell: str, series: Series, seed: int, epochs: int) -> Forecaster:
    """By MSE and Adam, its rate falling as a cosine; the weights of the epoch that validates best."""
    torch.manual_seed(seed)
    model = Forecaster(cell)
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    training = windows(series, 0, TRAINING)
    validation = windows(series, TRAINING, TRAINING + VALIDATION)
    best, weights = float("inf"), model.state_dict()
    for _ in range(epochs):
        for batch in torch.randperm(len(training.targets)).split(BATCH):
            optimizer.zero_grad()
            mse_loss(model(training.inputs[batch]), training.targets[batch]).backward()
            optimizer.step()
        schedule.step()
        with torch.inference_mode():
            error = mse_loss(model(validation.inputs), validation.targets).item()
        if error < best:
            best, weights = error, copy.deepcopy(model.state_dict())
    model.load_state_dict(weights)
    return model


def forecasts(seed: int, epochs: int) -> tuple[Series, dict[str, Array]]:
    """A series, and for each day of its last year what was forecast the day before, by each of the ways."""
    series = draw_series(seed)
    test = windows(series, DAYS - TEST, DAYS)
    ways = {"same weekday last week": series.sales[DAYS - TEST - 7 : DAYS - 7]}
    for cell in UNITS:
        model = train(cell, series, seed, epochs)
        with torch.inference_mode():
            ways[cell] = (model(test.inputs) * test.means).double().numpy()
    ways["all but the noise known"] = series.expected[DAYS - TEST :]
    return series, ways


def draw(path: Path, series: Series, ways: dict[str, Array], errors: dict[str, list[float]]) -> None:
    """The last ten weeks of a series and what was forecast of them; beside it the errors of all seeds."""
    from matplotlib.figure import Figure  # an extra: pip install 'asr[plot]'

    figure = Figure(figsize=(12, 4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(4, 1))
    days = np.arange(DAYS - 70, DAYS)
    left.plot(days, series.sales[-70:], color="black", linewidth=2.5, label="sold")
    left.fill_between(
        days, 0, 1, series.promotion[-70:], step="mid", transform=left.get_xaxis_transform(), color="0.92"
    )
    for place, (name, forecast) in enumerate(ways.items()):
        left.plot(days, forecast[-70:], color=COLOURS[place], linewidth=1.2, label=name)
        right.scatter([place] * len(errors[name]), errors[name], color=COLOURS[place], s=14)
    left.set(xlabel="day (grey: promotion)", ylabel="units", xlim=(days[0], days[-1]))
    right.set(ylabel="RMSE of each seed (units)", ylim=(0, None), xlim=(-0.5, len(ways) - 0.5), xticks=[])
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=len(ways) + 1)
    figure.savefig(path, dpi=100)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--seeds",
        type=at_least(2, int),
        default=5,
        metavar="N",
        help="series, and trainings of each cell (5)",
    )
    parser.add_argument(
        "--epochs", type=at_least(1, int), default=60, metavar="N", help="of each training (60)"
    )
    parser.add_argument(
        "--picture", type=Path, metavar="FILE", help="drawn of the first seed; needs matplotlib"
    )
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    found = [forecasts(seed, args.epochs) for seed in range(args.seeds)]
    errors: dict[str, list[float]] = {}
    for series, ways in found:
        for name, forecast in ways.items():
            errors.setdefault(name, []).append(rmse(forecast, series.sales[-TEST:]))
    print(f"{'':26}parameters   RMSE (units), mean of {args.seeds} seeds and their standard deviation")
    for name, each in errors.items():
        size = sum(p.numel() for p in Forecaster(name).parameters()) if name in UNITS else 0
        print(f"{name:26}{size or '-':>10}   {np.mean(each):5.1f} +- {np.std(each, ddof=1):.1f}")
    less = np.subtract(errors["GRU"], errors["MGU"])
    print(f"GRU - MGU, seed by seed: {less.mean():.1f} +- {less.std(ddof=1):.1f}")
    if args.picture:
        draw(args.picture, *found[0], errors)


def rmse(forecast: Array, sold: Array) -> float:
    return float(np.sqrt(np.mean((forecast - sold) ** 2)))


if __name__ == "__main__":
    main()
