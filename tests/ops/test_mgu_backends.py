"""Every back-end of the recurrence against the plain loop: outputs, final state and every gradient."""

import itertools
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import pytest
import torch
from torch import Tensor, nn

from asr import native, ops
from asr.errors import UserError
from asr.ops import Backend, bptt, cpu

Arguments = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None]

# B, T, D, H: ones, odd sizes, one more and one less than a vector and a tile, more rows than a tile holds
SIZES = [
    (1, 1, 1, 1),
    (3, 7, 5, 4),
    (2, 5, 3, 15),
    (5, 6, 7, 33),
    (13, 4, 16, 16),
    (29, 5, 9, 64),
    (7, 3, 4, 97),
    (2, 0, 3, 4),
    (0, 3, 3, 4),
    (0, 0, 2, 3),
]
BACKENDS: list[Backend] = ["bptt", "tied_gru", "cpu", "triton"]
needs_fork = pytest.mark.skipif(
    sys.platform in ("win32", "darwin"), reason="forking is unsafe on this platform"
)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Backend:
    if request.param == "cpu" and not cpu.is_available():
        pytest.skip(f"no C operator: {cpu.library()}")
    if request.param == "triton":
        if not find_spec("triton"):
            pytest.skip("torch brings Triton with CUDA, on Linux")
        monkeypatch.setattr(
            "asr.ops.triton_step.LONG", 4
        )  # in the interpreter a step takes a tenth of a second
        monkeypatch.setattr("asr.ops.triton_step.SHORT", 2)
    return request.param


@pytest.fixture
def operator() -> None:
    if not cpu.is_available():
        pytest.skip(f"no C operator: {cpu.library()}")


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def random_arguments(
    batch: int,
    steps: int,
    features: int,
    size: int,
    reset_gate: bool,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> Arguments:
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=dtype).requires_grad_()

    weights = [random(2 * size, features), random(2 * size, size), random(2 * size)]
    for weight in weights[:2]:
        weight.data /= weight.shape[1] ** 0.5
    bias_hn = random(size) if reset_gate else None
    return random(batch, steps, features), random(batch, size), *weights, bias_hn


def results(arguments: Arguments, backend: Backend, weigh: str = "both") -> list[Tensor]:
    """Outputs, final state, and the gradients of a random combination of outputs, of final state, or both."""
    outputs, final = ops.mgu(*arguments, backend=backend)
    generator = torch.Generator().manual_seed(7)
    by_outputs = torch.randn(outputs.shape, generator=generator).to(outputs)
    by_final = torch.randn(final.shape, generator=generator).to(final)
    losses = {"outputs": (outputs * by_outputs).sum(), "final": (final * by_final).sum()}
    loss = losses[weigh] if weigh in losses else losses["outputs"] + losses["final"]
    leaves = [tensor for tensor in arguments if tensor is not None]
    return [outputs, final, *torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)]


def assert_same(got: list[Tensor], expected: list[Tensor], tolerance: float = 2e-5) -> None:
    names = ["outputs", "final", "inputs", "hidden", "weight_ih", "weight_hh", "bias", "bias_hn"]
    for name, ours, theirs in zip(names, got, expected, strict=False):
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype, name
        scale = float(theirs.detach().abs().max()) if theirs.numel() else 0.0
        error = float((ours - theirs).detach().abs().max()) if theirs.numel() else 0.0
        assert error <= tolerance * (1 + scale), f"{name}: {error} off, at values up to {scale}"


@pytest.mark.parametrize("backend", ["bptt", "tied_gru", "cpu"], indirect=True)  # Triton: test_triton_step.py
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("reset_gate", [True, False])
def test_back_ends_equal_the_loop_in_outputs_state_and_gradients(
    backend: Backend, size: tuple[int, int, int, int], reset_gate: bool, threads: int
) -> None:
    arguments = random_arguments(*size, reset_gate=reset_gate)
    assert_same(results(arguments, backend), results(arguments, "reference"))


@pytest.mark.parametrize("reset_gate", [True, False])
@pytest.mark.parametrize("batch", [1, 3, 8, 17])
def test_threads_change_nothing_but_speed(operator: None, batch: int, reset_gate: bool, threads: int) -> None:
    arguments = random_arguments(
        batch, 32, 40, 160, reset_gate
    )  # large enough for a second thread to be woken, with 17 rows for products of our own
    assert_same(results(arguments, "cpu"), results(arguments, "reference"), 5e-5)


@pytest.mark.parametrize("weigh", ["outputs", "final"])
def test_a_loss_on_only_one_of_the_results_gives_its_gradient(backend: Backend, weigh: str) -> None:
    arguments = random_arguments(3, 5, 4, 6, True)
    assert_same(results(arguments, backend, weigh), results(arguments, "reference", weigh))


@pytest.mark.parametrize("kind", range(3))
@pytest.mark.parametrize("reset_gate", [True, False])
def test_every_instruction_set_equals_the_loop(
    operator: None, kind: int, reset_gate: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind > cpu.instruction_set():
        pytest.skip("this processor does not have it")
    monkeypatch.setattr(cpu, "instruction_set", lambda: kind)
    rows = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 26]
    for batch, steps, size in itertools.product(rows, [3, 33], [5, 32]):  # weights unpacked, and packed
        arguments = random_arguments(batch, steps, 4, size, reset_gate)
        assert_same(results(arguments, "cpu"), results(arguments, "reference"))


@pytest.mark.parametrize("reset_gate", [True, False])
def test_bptt_equals_the_loop_in_float64(reset_gate: bool) -> None:
    arguments = random_arguments(4, 9, 5, 6, reset_gate, torch.float64)
    assert_same(results(arguments, "bptt"), results(arguments, "reference"), 1e-13)
    assert torch.autograd.gradcheck(bptt.mgu, random_arguments(2, 4, 3, 3, reset_gate, torch.float64))


@pytest.mark.parametrize("reset_gate", [True, False])
def test_padding_on_the_right_changes_nothing(backend: Backend, reset_gate: bool) -> None:
    inputs, hidden, *weights = random_arguments(3, 8, 4, 5, reset_gate)
    lengths = [8, 3, 5]
    leaves = [weight for weight in weights if weight is not None]
    outputs, _ = ops.mgu(inputs, hidden, *weights, backend=backend)
    padded = torch.autograd.grad(sum(outputs[b, :n].square().sum() for b, n in enumerate(lengths)), leaves)
    alone = [torch.zeros_like(leaf) for leaf in leaves]
    for b, length in enumerate(lengths):
        single, final = ops.mgu(inputs[b : b + 1, :length], hidden[b : b + 1], *weights, backend=backend)
        torch.testing.assert_close(single[0], outputs[b, :length], atol=1e-5, rtol=0)
        torch.testing.assert_close(final[0], outputs[b, length - 1], atol=1e-5, rtol=0)
        for total, gradient in zip(alone, torch.autograd.grad(single.square().sum(), leaves), strict=True):
            total += gradient
    torch.testing.assert_close(list(padded), alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("reset_gate", [True, False])
def test_a_stream_in_pieces_equals_the_stream_at_once(backend: Backend, reset_gate: bool) -> None:
    inputs, hidden, *weights = random_arguments(2, 11, 4, 5, reset_gate)
    outputs, final = ops.mgu(inputs, hidden, *weights, backend=backend)
    pieces = []
    for piece in inputs.split([1, 0, 4, 6], 1):
        out, hidden = ops.mgu(piece, hidden, *weights, backend=backend)
        pieces.append(out)
    torch.testing.assert_close(torch.cat(pieces, 1), outputs, atol=1e-5, rtol=0)
    torch.testing.assert_close(hidden, final, atol=1e-5, rtol=0)


def test_strides_change_nothing(backend: Backend) -> None:
    dense = random_arguments(4, 6, 5, 7, True)
    strided = tuple(
        torch.stack([tensor.detach(), tensor.detach() + 1], -1)[..., 0].requires_grad_() for tensor in dense
    )
    expected = results(dense, "reference")
    assert_same(results(strided, backend), expected)
    time_first = dense[0].detach().transpose(0, 1).contiguous().transpose(0, 1).requires_grad_()
    assert_same(results((time_first, *dense[1:]), backend), expected)


@pytest.mark.parametrize("reset_gate", [True, False])
@pytest.mark.parametrize("forget_bias", [-200.0, -60.0, 60.0])
@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")  # of NumPy, for Triton: 1 / (1 + inf) is meant
def test_saturated_gates_give_finite_gradients(
    backend: Backend, reset_gate: bool, forget_bias: float
) -> None:
    arguments = random_arguments(3, 6, 4, 20, reset_gate)
    with torch.no_grad():
        arguments[4][:20] = forget_bias
        arguments[0][0] *= 1e4
    got = results(arguments, backend)
    assert all(bool(tensor.isfinite().all()) for tensor in got)
    assert_same(got, results(arguments, "reference"))


def test_a_nan_in_one_row_stays_in_that_row(backend: Backend) -> None:
    arguments = random_arguments(9, 4, 3, 5, True)
    with torch.no_grad():
        arguments[0][4, 1] = torch.nan
        outputs, final = ops.mgu(*arguments, backend=backend)
    assert outputs[4, 1:].isnan().all() and final[4].isnan().all()
    rest = [row for row in range(9) if row != 4]
    assert outputs[rest].isfinite().all() and outputs[4, 0].isfinite().all()


def test_python_threads_do_not_disturb_each_other(operator: None, threads: int) -> None:
    jobs = [random_arguments(batch, 20, 8, 130, True, seed=batch) for batch in (1, 2, 9, 16)]
    expected = [results(job, "reference") for job in jobs]
    start = threading.Barrier(len(jobs))

    def repeat(job: Arguments) -> list[list[Tensor]]:
        start.wait()
        return [results(job, "cpu") for _ in range(5)]

    with ThreadPoolExecutor(len(jobs)) as pool:
        for found, wanted in zip(pool.map(repeat, jobs), expected, strict=True):
            for got in found:
                assert_same(got, wanted, 5e-5)


@needs_fork
def test_a_forked_child_can_go_on(operator: None) -> None:
    program = """
        import os, sys, torch
        from asr import ops
        from asr.ops import cpu
        torch.set_num_threads(2)
        torch.manual_seed(0)
        weights = torch.randn(512, 1), torch.randn(512, 256) / 16, torch.randn(512), torch.randn(256)
        inputs, hidden = torch.randn(16, 20, 1), torch.randn(16, 256)
        before, _ = ops.mgu(inputs, hidden, *weights, backend="cpu")  # wakes the pool of threads
        child = os.fork()
        if child == 0:
            assert torch.get_num_threads() == 2 and cpu.threads() == 1
            torch.set_num_threads(1)  # as a data-loader worker does: torch's own products hang without it
            after, _ = ops.mgu(inputs, hidden, *weights, backend="cpu")
            os._exit(0 if torch.allclose(before, after, atol=1e-6) else 1)
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True, timeout=60)


@pytest.mark.parametrize("reset_gate", [True, False])
@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize("size", [(2, 3, 4, 5), (2, 0, 4, 5)], ids=str)
def test_opcheck_finds_nothing(
    operator: None, reset_gate: bool, keep: bool, half: bool, size: tuple[int, int, int, int]
) -> None:
    arguments = random_arguments(*size, reset_gate=reset_gate)
    if not keep:
        arguments = tuple(None if tensor is None else tensor.detach() for tensor in arguments)
    torch.library.opcheck(torch.ops.asr.mgu.default, (*arguments, keep, half))


@pytest.mark.parametrize("reset_gate", [True, False])
@pytest.mark.parametrize("amx", [True, False])
def test_autocast_rounds_factors_of_products_and_nothing_else(
    operator: None, reset_gate: bool, amx: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bfloat16 keeps 8 bits: outputs and gradients agree to about a hundredth, and are not the same."""
    if amx and not cpu.has_amx():
        pytest.skip("this processor has no AMX")
    monkeypatch.setattr(cpu, "has_amx", lambda: amx)
    exact, rounded = [], []
    for half, results in ((False, exact), (True, rounded)):
        arguments = random_arguments(3, 20, 24, 32, reset_gate=reset_gate)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            outputs, final = ops.mgu(*arguments, backend="cpu")
        (outputs.square().sum() + final.sum()).backward()
        results += [outputs, *(tensor.grad for tensor in arguments if tensor is not None)]
    for one, other in zip(exact, rounded, strict=True):
        assert other.dtype == torch.float32
        error = ((one - other).norm() / one.norm()).item()
        assert 0 < error < 0.03


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("reset_gate", [True, False])
@pytest.mark.parametrize("size", [(13, 4, 16), (29, 5, 64), (17, 30, 97), (40, 3, 384), (1, 40, 33)], ids=str)
def test_the_products_of_amx_are_those_of_rounded_factors(
    operator: None, size: tuple[int, int, int], reset_gate: bool, threads: int
) -> None:
    """B, T, H. With weights and states that bfloat16 has exactly nothing is rounded in the first step."""
    if not cpu.has_amx():
        pytest.skip("this processor has no AMX")
    batch, time, hidden = size
    _, state, _, weight, _, bias_hn = random_arguments(batch, time, 1, hidden, reset_gate)
    state, weight = (tensor.detach().bfloat16().float() for tensor in (state, weight))
    projection = torch.randn(batch, time, 2 * hidden)
    found = {}
    for kind in (cpu.instruction_set(), cpu.AMX):
        gates, product, outputs = projection.clone(), torch.zeros(batch, time, hidden), state.new_zeros(*size)
        bias = None if bias_hn is None else bias_hn.detach()
        given = [weight, bias, state, gates, None if bias is None else product, outputs]
        pointers = [None if tensor is None else tensor.data_ptr() for tensor in given]
        assert not cpu.loaded().mgu_forward(*pointers, *size, 1, threads, kind)
        found[kind] = gates, product, outputs
    exact, rounded = found.values()
    for one, other in zip(exact, rounded, strict=True):
        torch.testing.assert_close(one[:, 0], other[:, 0], atol=2e-6, rtol=1e-5)
        torch.testing.assert_close(one, other, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("reset_gate", [True, False])
def test_without_the_c_operator_autocast_changes_nothing(reset_gate: bool) -> None:
    exact, cast = [], []
    for half, results in ((False, exact), (True, cast)):
        arguments = random_arguments(3, 5, 4, 6, reset_gate=reset_gate)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            outputs, final = ops.mgu(*arguments, backend="bptt")
        (outputs.square().sum() + final.sum()).backward()
        results += [outputs, *(tensor.grad for tensor in arguments if tensor is not None)]
    assert all(map(torch.equal, exact, cast))


class Layer(nn.Module):
    def __init__(self, reset_gate: bool, backend: Backend) -> None:
        super().__init__()
        self.backend = backend
        _, _, *weights = random_arguments(1, 1, 4, 6, reset_gate)
        for name, weight in zip(("weight_ih", "weight_hh", "bias", "bias_hn"), weights, strict=True):
            setattr(self, name, None if weight is None else nn.Parameter(weight))

    def forward(self, inputs: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        return ops.mgu(inputs, hidden, self.weight_ih, self.weight_hh, self.bias, self.bias_hn, self.backend)


@pytest.mark.parametrize("reset_gate", [True, False])
def test_a_layer_is_exported_for_any_batch_and_length(operator: None, reset_gate: bool) -> None:
    layer = Layer(reset_gate, "cpu")
    inputs, hidden = torch.randn(2, 7, 4), torch.randn(2, 6)
    batch, steps = torch.export.Dim("batch"), torch.export.Dim("steps")
    with torch.no_grad():
        program = torch.export.export(
            layer, (inputs, hidden), dynamic_shapes={"inputs": {0: batch, 1: steps}, "hidden": {0: batch}}
        )
        assert "asr.mgu" in str(program.graph)
        inputs, hidden = torch.randn(5, 3, 4), torch.randn(5, 6)
        torch.testing.assert_close(program.module()(inputs, hidden), layer(inputs, hidden))


def test_auto_takes_the_c_operator_for_float32_and_bptt_for_the_rest(operator: None) -> None:
    inputs, hidden, _, weight_hh, *_ = random_arguments(2, 3, 4, 5, True)
    assert ops.choose(inputs, hidden, weight_hh) == "cpu"
    assert ops.choose(inputs.double(), hidden.double(), weight_hh.double()) == "bptt"


def test_without_a_compiler_auto_works_on_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def missing(library: native.Library) -> None:
        raise native.BuildError("no C compiler (cc, gcc or clang) on the PATH")

    monkeypatch.setattr(native, "find_or_build", missing)
    cpu.library.cache_clear()
    try:
        arguments = random_arguments(2, 3, 4, 5, True)
        for _ in range(2):
            assert_same(results(arguments, "auto"), results(arguments, "reference"))
        assert [record.name for record in caplog.records] == ["asr"]
        with pytest.raises(UserError, match="install a C compiler"):
            ops.mgu(*arguments, backend="cpu")
    finally:
        cpu.library.cache_clear()


def test_a_back_end_asked_for_by_name_is_refused_where_it_cannot_run(operator: None) -> None:
    with pytest.raises(UserError, match="float64"):
        ops.mgu(*random_arguments(2, 3, 4, 5, True, torch.float64), backend="cpu")
    with pytest.raises(UserError, match="unknown back-end"):
        ops.mgu(*random_arguments(2, 3, 4, 5, True), backend="cudnn")  # type: ignore[arg-type]


def test_shapes_that_do_not_fit_are_refused(backend: Backend) -> None:
    inputs, hidden, *weights = random_arguments(2, 3, 4, 5, True)
    with pytest.raises(ValueError, match="D = 3"):
        ops.mgu(inputs[..., :3], hidden, *weights, backend=backend)
    with pytest.raises(ValueError, match=r"\(B, T, D\)"):
        ops.mgu(inputs, hidden[:1], *weights, backend=backend)
