"""The Triton back-end in the interpreter (tests/conftest.py), and compiled for a GPU that need not be there.

What all back-ends promise is in test_mgu_backends.py.
"""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from torch import Tensor

from asr import ops
from asr.errors import UserError
from asr.ops import Measured
from tests.ops.test_mgu_backends import Arguments, assert_same, random_arguments, results

triton = pytest.importorskip("triton", reason="torch brings Triton with CUDA, on Linux")
triton_step = pytest.importorskip("asr.ops.triton_step")


@pytest.fixture(autouse=True)
def short_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of four steps and of two, so that a short sequence has seams and an unfilled end."""
    monkeypatch.setattr(triton_step, "LONG", 4)
    monkeypatch.setattr(triton_step, "SHORT", 2)


def in_float64(arguments: Arguments) -> list[Tensor]:
    doubled = tuple(None if x is None else x.detach().double().requires_grad_() for x in arguments)
    return results(doubled, "reference")  # type: ignore[arg-type]


def relative_errors(got: list[Tensor], expected: list[Tensor]) -> list[float]:
    pairs = zip(got, expected, strict=True)
    return [float((x.detach() - y.detach()).norm() / y.detach().norm()) for x, y in pairs]


@pytest.mark.parametrize("reset_gate", [True, False])
@pytest.mark.parametrize(
    "size", [(1, 1, 1, 1), (3, 7, 5, 4), (17, 3, 4, 97), (2, 0, 3, 4), (0, 3, 3, 4)], ids=str
)
def test_the_kernels_equal_the_loop_in_float64(size: tuple[int, int, int, int], reset_gate: bool) -> None:
    arguments = random_arguments(*size, reset_gate=reset_gate)
    got = [tensor.double() for tensor in results(arguments, "triton")]
    assert_same(got, in_float64(arguments), 2e-6)


@pytest.mark.parametrize("reset_gate", [True, False])
@pytest.mark.parametrize("dtype, tolerance", [(torch.bfloat16, 1e-2), (torch.float16, 1e-3)])
def test_half_costs_only_its_rounding(dtype: torch.dtype, tolerance: float, reset_gate: bool) -> None:
    exact = random_arguments(5, 14, 7, 33, reset_gate)
    rounded = tuple(None if x is None else x.detach().to(dtype).requires_grad_() for x in exact)
    got = results(rounded, "triton")  # type: ignore[arg-type]
    assert {tensor.dtype for tensor in got} == {dtype}
    assert max(relative_errors(got, in_float64(rounded))) < tolerance  # type: ignore[arg-type]


def test_under_autocast_outputs_are_half_and_the_state_is_not() -> None:
    arguments = random_arguments(3, 6, 5, 9, True)
    with torch.autocast("cpu", torch.bfloat16):
        got = results(arguments, "triton")
    assert [tensor.dtype for tensor in got] == [torch.bfloat16] + 7 * [torch.float32]
    assert max(relative_errors(got, in_float64(arguments))) < 1e-2


@pytest.mark.parametrize("reset_gate", [True, False])
def test_what_other_calls_left_in_the_buffers_changes_nothing(reset_gate: bool) -> None:
    larger = random_arguments(9, 8, 3, 5, reset_gate)
    with torch.no_grad():
        larger[0].fill_(torch.nan)
    assert results(larger, "triton")[0].isnan().all()
    arguments = random_arguments(2, 7, 3, 5, reset_gate)
    assert_same(results(arguments, "triton"), results(arguments, "reference"))


def test_buffers_made_while_validating_serve_training() -> None:
    arguments = random_arguments(2, 3, 3, 6, True)
    with torch.inference_mode():
        outputs, final = ops.mgu(*arguments, backend="triton")
    after = results(arguments, "triton")
    assert torch.equal(outputs, after[0]) and torch.equal(final, after[1])


def test_batches_that_fill_the_same_tiles_share_their_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_step, "BUFFERED", 32)  # so that there are fewer steps for more rows
    results(random_arguments(9, 3, 3, 7, True), "triton")
    graphs = triton_step._forward_graph, triton_step._backward_graph
    made = [graph.cache_info().misses for graph in graphs]
    results(random_arguments(5, 4, 3, 7, True), "triton")
    assert [graph.cache_info().misses for graph in graphs] == made


@pytest.mark.parametrize("batch", [16, 64, 256, 5120])
def test_the_pieces_are_the_sequence(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    for time in range(1, 500):
        runs = triton_step._runs(time, batch)
        covered = [t for run in runs for t in range(run.start, run.start + run.length)]
        assert covered == list(range(time))
        assert len({run.steps for run in runs}) <= 2
        assert all(run.length == run.steps for run in runs[:-1])
        assert 0 <= sum(run.steps for run in runs) - time < triton_step.SHORT


COMPILE = """
    import sys, torch, triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource
    from asr.ops import triton_step

    FLOATS = {"bias_hn", "states", "gates", "kept"}

    def compile(kernel, batch, size, reset_gate, dtype):
        half = {torch.bfloat16: "*bf16", torch.float16: "*fp16"}[dtype]
        tile = triton_step._tile(batch, size, dtype)
        constants = dict(SIZE=size, RESET_GATE=reset_gate, ROWS=tile.rows, UNITS=tile.units, DEPTH=tile.depth)
        signature, aligned = {}, {}
        for place, name in enumerate(kernel.arg_names):
            kind = "i32" if name in ("t", "batch") else "*fp32" if name in FLOATS else half
            signature[name] = "constexpr" if name in constants else kind
            if name != "t" and name not in constants:
                aligned[place,] = [["tt.divisibility", 16]]
        places = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
        source = ASTSource(kernel, signature, places, aligned)
        options = dict(num_warps=tile.warps, num_stages=tile.stages)
        return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)

    for kernel in triton_step._forward_step, triton_step._backward_step:
        for batch, size, reset_gate, dtype, instruction in [
            (64, 512, True, torch.bfloat16, "mma.sync"),
            (256, 640, False, torch.float16, "wgmma"),
            (16, 97, True, torch.bfloat16, "mma.sync"),
        ]:
            made = compile(kernel, batch, size, reset_gate, dtype)
            assert instruction in made.asm["ptx"] and made.asm["cubin"], (kernel, batch, size)
            assert made.metadata.shared <= 96 * 1024, made.metadata.shared  # of the 227 KB that an H200 has
"""


def test_the_kernels_compile_for_an_h200(tmp_path: Path) -> None:
    """To machine code, with the tensor cores' instructions, without a GPU: Triton brings an assembler."""
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    program = [sys.executable, "-c", textwrap.dedent(COMPILE)]
    subprocess.run(program, check=True, timeout=300, env=environment)


def test_what_it_cannot_do_is_said_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = random_arguments(2, 3, 4, 5, True)
    with pytest.raises(UserError, match="float64"):
        ops.mgu(*random_arguments(2, 3, 4, 5, True, torch.float64), backend="triton")
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.raises(UserError, match="needs a GPU"):
        ops.mgu(*arguments, backend="triton")
    monkeypatch.setattr(ops, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="package is missing"):
        ops.mgu(*arguments, backend="triton")


def test_on_a_gpu_auto_takes_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    half = torch.bfloat16
    rows = (
        Measured(half, (256, 512), (16, 64), "triton", 2.1, "a GPU, a day"),
        Measured(half, (256, 1024), (1, 128), "bptt", 1.1, "a GPU, a day"),
    )
    monkeypatch.setattr(ops, "MEASURED", rows)
    assert ops.fastest_on_gpu(half, 16, 512) == "triton"
    assert ops.fastest_on_gpu(half, 65, 512) == "bptt"
    assert ops.fastest_on_gpu(half, 129, 512) == "tied_gru"
    assert ops.fastest_on_gpu(torch.float16, 16, 512) == "tied_gru"
    monkeypatch.setattr(ops, "find_spec", lambda name: None)
    assert ops.fastest_on_gpu(half, 16, 512) == "bptt"
