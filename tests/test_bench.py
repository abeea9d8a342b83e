"""`asr bench` finds the benchmarks of a clone, and says so where there is none."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from asr import bench
from asr.cli import dispatch
from asr.errors import UserError


def test_a_benchmark_gets_its_options_and_gives_its_status(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[list[str]] = []
    fake = SimpleNamespace(main=lambda argv: given.append(argv) or 3)
    monkeypatch.setitem(sys.modules, "benchmarks.end_to_end", fake)
    assert dispatch(["bench", "end-to-end", "--rounds", "2", "--output", "x.json"]) == 3
    assert given == [["--rounds", "2", "--output", "x.json"]]


@pytest.mark.parametrize("name", bench.BENCHMARKS)
def test_every_benchmark_helps_and_writes_json(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        dispatch(["bench", name, "--help"])
    assert end.value.code == 0
    assert "--output" in capsys.readouterr().out


def test_help_lists_every_benchmark(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench.main(["--help"])
    out = capsys.readouterr().out
    assert all(help in out for help in bench.BENCHMARKS.values())


def test_without_a_clone_one_line_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "CLONE", tmp_path)
    with pytest.raises(UserError, match="asr bench needs a clone of the repository"):
        bench.main(["step"])
