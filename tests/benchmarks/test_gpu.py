"""benchmarks.gpu without a GPU: its tables and figures of tiny sizes, with Triton in the interpreter."""

import json

import pytest
import torch

from asr.errors import UserError
from benchmarks.gpu import Size, both_work, faster, forward_work, layers, main, spans

pytest.importorskip("triton", reason="torch brings Triton with CUDA, on Linux")
SECOND = (1.0, 3.0)


def test_every_table_has_its_rows_and_the_figures_are_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("asr.ops.triton_step.SHORT", 2)
    found = layers([Size(2, 2, 4)], [Size(3, 2, 5)], runs=1, device=torch.device("cpu"), where="here, today")
    tables = capsys.readouterr().out.strip().split("\n\n")
    assert [table.count("\n") for table in tables[:3]] == [1 + 9, 1 + 1, 1 + 1]
    assert tables[3].startswith("MEASURED")
    errors = json.loads(json.dumps(found))["errors"]
    tolerance = {"float32": 1e-5, "bfloat16": 5e-2, "float16": 5e-3}
    assert all(max(row["relative"]) < tolerance[row["of"][1]] for row in errors)
    (layer,) = found["rows"]
    assert set(layer["seconds"]) == {"nn.GRU bf16", "nn.LSTM fp16", "tied_gru", "triton"}


def test_a_measured_size_stands_for_what_lies_above_the_next_smaller() -> None:
    assert spans([64, 16, 32]) == {16: (16, 16), 32: (17, 32), 64: (33, 64)}


def test_rows_for_auto_are_where_triton_is_faster_with_its_backward() -> None:
    gru, lstm = {"tied_gru": (1.0, 3.0)}, {"nn.GRU bf16": SECOND, "nn.LSTM fp16": SECOND}
    times = {
        Size(16, 400, 256): {**lstm, **gru, "triton": (2.0, 1.5)},
        Size(32, 400, 256): {**lstm, **gru, "triton": (0.5, 3.1)},
        Size(32, 400, 512): {**lstm, **gru, "triton": (0.5, 2.0)},
    }
    rows = faster(times, "a GPU, a day")
    assert [(row.sizes, row.batches, row.ratio) for row in rows] == [
        ((256, 256), (16, 16), 2.0),
        ((257, 512), (17, 32), 1.5),
    ]


def test_the_floor_is_steps_where_they_are_small_and_arithmetic_where_they_are_not() -> None:
    assert forward_work(Size(64, 400, 512)).seconds() == pytest.approx(400e-6)
    assert both_work(Size(64, 400, 512)).seconds() == pytest.approx(800e-6)
    large = forward_work(Size(4096, 400, 2048))
    assert large.seconds() == pytest.approx(large.flops / 7.8e14) and large.seconds() > 400e-6


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so() -> None:
    with pytest.raises(UserError, match="needs a CUDA GPU"):
        main([])
