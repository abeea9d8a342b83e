"""benchmarks.common: figures as JSON of one shape, whichever benchmark writes them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pytest

from asr.errors import UserError
from benchmarks import common, interval_coverage, recurrence, roofline, step
from benchmarks.common import check_output, markdown, ratios, write_json

KEYS = {"what", "command", "machine", "date", "torch", "rows"}


@dataclass(frozen=True)
class Row:
    size: int
    seconds: dict[str, float]


def test_figures_say_what_where_and_when(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    rows = [Row(3, {"ours": 0.5}), {"size": 4}]
    best = {"a": Row(1, {})}
    write_json(path, "step", "a step", ["--runs", "1", "--model", "my model"], rows, lm="none", best=best)
    found = json.loads(path.read_text())
    assert found["rows"] == [{"size": 3, "seconds": {"ours": 0.5}}, {"size": 4}]
    assert found["command"] == "python -m benchmarks.step --runs 1 --model 'my model'"
    assert found["best"] == {"a": {"size": 1, "seconds": {}}}
    assert (found["what"], found["lm"], found["date"]) == ("a step", "none", str(date.today()))
    assert found["machine"]["threads"] == 1 and found["machine"]["cores"] >= 1 and found["machine"]["cpu"]
    assert found["torch"].startswith("2.")


def test_without_an_output_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_json(None, "step", "a step", [], [])
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_is_told_before_the_work(tmp_path: Path) -> None:
    check_output(None)
    check_output(tmp_path / "x.json")
    with pytest.raises(UserError, match="its folder does not exist"):
        check_output(tmp_path / "nowhere" / "x.json")


def test_a_ratio_is_how_many_times_as_fast_as_the_first() -> None:
    cells = ratios({"nn.GRU": 0.003, "int8": 0.00015})
    assert cells == ["3 ms", "20.0 (0.15 ms)"]
    assert markdown(["", "a"], [["b", 1]]) == "|  | a |\n| --- | --- |\n| b | 1 |"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recurrence, "SIZES", [(1, 2, 8)])
    monkeypatch.setattr(step, "SIZE", 16)
    monkeypatch.setattr(step, "BATCHES", [1, 3])
    monkeypatch.setattr(step, "CHUNKS_MS", [40])
    monkeypatch.setattr(step, "find_spec", lambda name: None)  # ONNX Runtime takes too long
    monkeypatch.setattr(roofline, "PRODUCT", 16)
    monkeypatch.setattr(roofline, "MEMORY", 2**14)
    monkeypatch.setattr(roofline, "CACHE", 2**13)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("name", "main", "options", "rows"),
    [
        ("recurrence", recurrence.main, ["--runs", "1", "--threads", "1"], 1),
        ("step", step.main, ["--runs", "1"], 3),
        ("roofline", roofline.main, ["--runs", "1"], 8),
        ("interval_coverage", interval_coverage.main, ["--corpora", "1"], 5),
    ],
)
def test_every_benchmark_writes_the_same_shape(
    name: str, main: Callable[[list[str]], int], options: list[str], rows: int, bundle: Path, tmp_path: Path
) -> None:
    path = tmp_path / "x.json"
    options = [*options, "--output", str(path), *(["--model", str(bundle)] if name == "step" else [])]
    assert main(options) == 0
    found = json.loads(path.read_text())
    assert set(found) >= KEYS and len(found["rows"]) == rows
    assert found["command"].startswith(f"python -m benchmarks.{name} --")
    assert set(found["machine"]) == set(common.machine())
