"""The recipe outside of speech: no forecast knows its day, and the MGU learns the week and the promotions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from recipes.forecast.forecast import (
    DAYS,
    TEST,
    TRAINING,
    WINDOW,
    Forecaster,
    draw_series,
    main,
    rmse,
    train,
    windows,
)


def test_a_seed_is_a_series() -> None:
    assert np.array_equal(draw_series(3).sales, draw_series(3).sales)
    assert not np.array_equal(draw_series(3).sales, draw_series(4).sales)


def test_a_window_ends_before_its_day_and_knows_that_days_promotion() -> None:
    series, day = draw_series(0), 500
    (inputs,), (target,), (mean,) = windows(series, day, day + 1)
    assert inputs.shape == (WINDOW, 2)
    np.testing.assert_allclose(inputs[:, 0] * mean, series.sales[day - WINDOW : day], rtol=1e-5)
    assert inputs[-1, 1] == series.promotion[day]
    assert float(target * mean) == pytest.approx(series.sales[day])


def test_the_first_days_have_no_window() -> None:
    assert len(windows(draw_series(0), 0, TRAINING).targets) == TRAINING - WINDOW


def test_the_cells_have_about_as_many_parameters() -> None:
    mgu, gru = (sum(p.numel() for p in Forecaster(cell).parameters()) for cell in ("MGU", "GRU"))
    assert abs(mgu / gru - 1) < 0.05


def test_the_mgu_soon_forecasts_better_than_the_same_weekday_last_week() -> None:
    series = draw_series(0)
    model, test = train("MGU", series, seed=0, epochs=6), windows(series, DAYS - TEST, DAYS)
    with torch.inference_mode():
        forecast = (model(test.inputs) * test.means).numpy()
    assert rmse(forecast, series.sales[-TEST:]) < 0.8 * rmse(
        series.sales[-TEST - 7 : -7], series.sales[-TEST:]
    )


def test_the_command_prints_all_ways_and_draws_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    main(["--seeds", "2", "--epochs", "1", "--picture", str(tmp_path / "sales.png")])
    printed = capsys.readouterr().out
    for way in ("same weekday last week", "MGU ", "GRU ", "all but the noise known", "seed by seed"):
        assert way in printed
    assert (tmp_path / "sales.png").read_bytes().startswith(b"\x89PNG")
