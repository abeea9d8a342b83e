"""The MGU recurrence on a GPU: a step is one Triton kernel, the steps are launched as CUDA graphs.

A step is small (67 MFLOP at B = 64, H = 512): what counts is what surrounds it, launches, and passes over
(B, H) between product and gates. The forward kernel still has h W_hh^T in registers when it computes the
gates; the backward kernel takes the gradient of a step back through W_hh and at once through the gates of the
step before. Factors of products have the dtype of the projection (half under autocast), all else is float32.

A graph is bound to addresses and to a number of steps. So it has buffers of its own, into which the values of
a piece of the sequence are copied, and the results out; and a sequence is a few replays of a long graph and
of a short one, which serve every T. The batch is filled up to whole tiles, and the last piece to all its
steps: what these compute, from whatever lies in the buffers, is not copied out.

With TRITON_INTERPRET=1, without CUDA, the same launches run in NumPy, one after the other.
The module is not called `triton`, as the back-end is, since it imports the package of that name.

Legend: `B` batch, `T` time, `D` input features, `H` hidden units, `S` steps of a graph.
"""

import functools
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

LONG, SHORT = 128, 16  # steps of the two graphs
BUFFERED = 8192  # S x B at most, where S can be as small: 120 MB at H = 640
GRAPHS = 32  # of a direction that are kept, those used last

# The interpreter has no product of bfloat16; in float32, its terms are exact. And each call of a function
# takes it 10 ms (tl.sigmoid is one), so that the kernels have none.
INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)

_lock = threading.Lock()  # the buffers of a graph serve one call at a time


def mgu(
    inputs: Tensor, hidden: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor, bias_hn: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Same arguments and results as `asr.ops.reference.mgu`; under autocast the outputs are half, and the
    final state has the dtype of `hidden`."""
    projection = linear(inputs, weight_ih, bias)  # (B, T, 2H)
    if not projection.numel():
        return projection.new_zeros(*inputs.shape[:2], hidden.shape[1]), hidden
    if torch.is_grad_enabled():
        return _MGU.apply(projection, hidden, weight_hh, bias_hn)
    outputs, final, _ = _forward(projection, hidden, weight_hh, bias_hn, keep=False)
    return outputs, final


class _MGU(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, projection: Tensor, hidden: Tensor, weight_hh: Tensor, bias_hn: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        outputs, final, gates = _forward(projection, hidden, weight_hh, bias_hn, keep=True)
        ctx.reset_gate = bias_hn is not None
        ctx.save_for_backward(hidden, weight_hh, outputs, gates)
        return outputs, final

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_outputs: Tensor, grad_final: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight_hh, outputs, gates = ctx.saved_tensors
        size = hidden.shape[1]
        before = torch.cat([hidden.to(outputs.dtype).unsqueeze(1), outputs[:, :-1]], 1)  # (B, T, H)
        grad_gates, grad_product, grad_hidden = _backward(
            grad_outputs, grad_final, before, gates, weight_hh, ctx.reset_gate
        )
        # the weight's gradient is one product over B x T
        states = before.flatten(0, 1)
        forget, new = grad_gates.flatten(0, 1).split(size, -1)
        recurrent = new if grad_product is None else grad_product.flatten(0, 1)
        grad_weight_hh = torch.cat([forget.T @ states, recurrent.T @ states])
        grad_bias_hn = None if grad_product is None else grad_product.sum((0, 1), dtype=torch.float32)
        return grad_gates, grad_hidden.to(hidden), grad_weight_hh.to(weight_hh), grad_bias_hn


def _forward(
    projection: Tensor, hidden: Tensor, weight_hh: Tensor, bias_hn: Tensor | None, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs (B, T, H), final state (B, H), and if they are to be kept, the gates (T, B, 2H or 3H): f, n,
    and with the reset gate the product W_hn h + b_hn."""
    (batch, time, _), size = projection.shape, hidden.shape[1]
    outputs = projection.new_empty(batch, time, size)
    width = (2 if bias_hn is None else 3) * size
    gates = projection.new_empty(time if keep else 0, batch, width, dtype=torch.float32)
    with _lock:
        key = _Key.of(projection, size, bias_hn is not None)
        runs = _runs(time, key.batch)
        graphs = {run.steps: _forward_graph(key, run.steps) for run in runs}
        for graph in graphs.values():
            graph.weight.copy_(weight_hh)
            if bias_hn is not None:
                graph.bias_hn.copy_(bias_hn)
        state = hidden
        for start, length, steps in runs:
            graph, now = graphs[steps], slice(start, start + length)
            graph.projection[:length, :batch].copy_(projection[:, now].transpose(0, 1))
            graph.states[0, :batch].copy_(state)
            graph.rounded[0, :batch].copy_(state)
            graph.replay()
            state = graph.states[length, :batch]
            outputs[:, now].copy_(graph.rounded[1 : length + 1, :batch].transpose(0, 1))
            if keep:
                gates[now].copy_(graph.gates[:length, :batch])
        return outputs, state.to(hidden.dtype, copy=True), gates


def _backward(
    grad_outputs: Tensor,
    grad_final: Tensor,
    before: Tensor,
    gates: Tensor,
    weight_hh: Tensor,
    reset_gate: bool,
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Gradients of the projection (B, T, 2H), of W_hn h + b_hn (B, T, H) and of the initial state (B, H)."""
    batch, time, size = before.shape
    grad_gates = before.new_empty(batch, time, 2 * size)
    grad_product = before.new_empty(batch, time, size) if reset_gate else None
    with _lock:
        key = _Key.of(before, size, reset_gate)
        runs = _runs(time, key.batch)
        graphs = {run.steps: _backward_graph(key, run.steps) for run in runs}
        for graph in graphs.values():
            graph.weight.copy_(weight_hh.T)
        kept = grad_final  # behind the last step there is no product to go back through
        later = before.new_zeros(batch, 2 * size)
        for start, length, steps in reversed(runs):
            # the steps of the piece are at the end of the buffers, where the backward begins
            graph, now, first = graphs[steps], slice(start, start + length), steps - length
            graph.gates[first:, :batch].copy_(gates[now])
            graph.before[first:, :batch].copy_(before[:, now].transpose(0, 1))
            graph.grad_outputs[first:, :batch].copy_(grad_outputs[:, now].transpose(0, 1))
            graph.kept[steps, :batch].copy_(kept)
            graph.grad_recurrent[steps, :batch].copy_(later)
            graph.replay()
            kept, later = graph.kept[first, :batch], graph.grad_recurrent[first, :batch]
            found = graph.grad_recurrent[first:steps, :batch].transpose(0, 1)
            if grad_product is None:
                grad_gates[:, now].copy_(found)
            else:
                grad_gates[:, now, :size].copy_(found[..., :size])
                grad_gates[:, now, size:].copy_(graph.grad_new[first:, :batch].transpose(0, 1))
                grad_product[:, now].copy_(found[..., size:])
        return grad_gates, grad_product, torch.addmm(kept, later.float(), weight_hh.float())


class _Run(NamedTuple):
    start: int
    length: int  # in steps of the sequence
    steps: int  # of the graph, the others are computed in vain


def _runs(time: int, batch: int) -> list[_Run]:
    """The pieces of a sequence in order: long ones, and short ones for the rest."""
    long = max(SHORT, min(LONG, BUFFERED // batch))
    runs: list[_Run] = []
    start = 0
    while start < time:
        steps = long if time - start > long - SHORT else SHORT
        runs.append(_Run(start, min(steps, time - start), steps))
        start += steps
    return runs


class _Tile(NamedTuple):
    """What one program of a kernel computes, rows of the batch by hidden units, and how: `depth` columns of
    the factors at a time, while those of the next `stages` - 1 times are on their way."""

    rows: int
    units: int
    depth: int
    warps: int
    stages: int


def _tile(batch: int, size: int, dtype: torch.dtype) -> _Tile:
    """So small that a step has about as many tiles as an H200 has multiprocessors (132); in the interpreter
    large, since its time goes by operations and not by their size."""
    if INTERPRETED:
        return _Tile(rows=16, units=64, depth=64, warps=4, stages=1)
    rows = 16 if batch <= 64 else 32 if batch <= 128 else 64
    units = 16 if size <= 512 else 32
    depth = 32 if dtype == torch.float32 else 64  # 128 bytes, a line of the cache
    # a small tile has nearly all its factors on their way at once, a large one what fits in shared memory
    return _Tile(rows, units, depth, warps=4 if rows == 64 else 2, stages=8 if rows == 16 else 4)


class _Key(NamedTuple):
    """What the graphs of a call have in common. The stream too: calls that share buffers must not overlap."""

    batch: int  # whole tiles
    size: int
    reset_gate: bool
    tile: _Tile
    dtype: torch.dtype
    device: torch.device
    stream: int

    @staticmethod
    def of(like: Tensor, size: int, reset_gate: bool) -> "_Key":
        tile = _tile(len(like), size, like.dtype)
        batch = triton.cdiv(len(like), tile.rows) * tile.rows
        stream = torch.cuda.current_stream(like.device).cuda_stream if like.is_cuda else 0
        return _Key(batch, size, reset_gate, tile, like.dtype, like.device, stream)


class _Forward:
    """S steps forward. Weights, `projection` and the first row of `states` and `rounded` go in."""

    @torch.inference_mode(False)  # buffers made in validation serve training too
    def __init__(self, key: _Key, steps: int) -> None:
        batch, size = key.batch, key.size
        zeros = functools.partial(torch.zeros, dtype=torch.float32, device=key.device)
        self.projection = zeros(steps, batch, 2 * size, dtype=key.dtype)
        self.weight, self.bias_hn = zeros(2 * size, size, dtype=key.dtype), zeros(size)
        self.states = zeros(steps + 1, batch, size)
        self.rounded = zeros(steps + 1, batch, size, dtype=key.dtype)  # the states as factors, and as outputs
        self.gates = zeros(steps, batch, (3 if key.reset_gate else 2) * size)
        tensors = (self.projection, self.weight, self.bias_hn, self.states, self.rounded, self.gates)
        self.replay = _capture(functools.partial(_launch, _forward_step, key, tensors, range(steps)), key)


class _Backward:
    """S steps backward. Weights, `gates`, `before`, `grad_outputs` and the last row of `kept` and
    `grad_recurrent` go in."""

    @torch.inference_mode(False)  # buffers made in validation serve training too
    def __init__(self, key: _Key, steps: int) -> None:
        batch, size = key.batch, key.size
        zeros = functools.partial(torch.zeros, dtype=torch.float32, device=key.device)
        self.weight = zeros(size, 2 * size, dtype=key.dtype)  # W_hh^T
        self.gates = zeros(steps, batch, (3 if key.reset_gate else 2) * size)
        self.before = zeros(steps, batch, size, dtype=key.dtype)
        self.grad_outputs = zeros(steps, batch, size, dtype=key.dtype)
        self.kept = zeros(steps + 1, batch, size)  # what of dh a step hands on without W_hh: dh f
        self.grad_recurrent = zeros(steps + 1, batch, 2 * size, dtype=key.dtype)  # of both rows of W_hh h
        # of n's pre-activation, which with the reset gate is not that of W_hn h
        self.grad_new = zeros(steps if key.reset_gate else 0, batch, size, dtype=key.dtype)
        tensors = (self.weight, self.gates, self.before, self.grad_outputs, self.kept, self.grad_recurrent)
        order = range(steps - 1, -1, -1)
        launch = functools.partial(_launch, _backward_step, key, (*tensors, self.grad_new), order)
        self.replay = _capture(launch, key)


_forward_graph = functools.lru_cache(GRAPHS)(_Forward)
_backward_graph = functools.lru_cache(GRAPHS)(_Backward)


def _launch(kernel: Any, key: _Key, tensors: tuple[Tensor, ...], order: range) -> None:
    """One launch a step. The kernels have no mask for rows, since `key.batch` is a whole number of tiles."""
    tile = key.tile
    grid = (key.batch // tile.rows, triton.cdiv(key.size, tile.units))
    sizes = dict(ROWS=tile.rows, UNITS=tile.units, DEPTH=tile.depth)
    options = dict(num_warps=tile.warps, num_stages=tile.stages)
    for t in order:
        kernel[grid](*tensors, t, key.batch, key.size, key.reset_gate, **sizes, **options)


def _capture(launch: Callable[[], None], key: _Key) -> Callable[[], None]:
    """`launch` as one CUDA graph; itself in the interpreter."""
    if INTERPRETED:
        return launch
    with torch.cuda.device(key.device):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())  # the buffers are being filled with zeros
        with torch.cuda.stream(stream):
            launch()  # compiles the kernel, which must not happen in a capture
        graph = torch.cuda.CUDAGraph()
        # thread_local: the thread that pins the loader's memory may go on calling CUDA
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            launch()
        torch.cuda.current_stream().wait_stream(stream)
    return graph.replay


@triton.jit(do_not_specialize=["t"])
def _forward_step(  # type: ignore[no-untyped-def]
    projection,  # (S, B, 2H)
    weight,  # (2H, H)
    bias_hn,  # (H,)
    states,  # (S + 1, B, H)
    rounded,  # (S + 1, B, H)
    gates,  # (S, B, 2H or 3H)
    t,
    batch,
    SIZE: tl.constexpr,
    RESET_GATE: tl.constexpr,
    ROWS: tl.constexpr,
    UNITS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """states[t], projection[t] -> states[t + 1], gates[t]; a tile of rows of the batch and hidden units."""
    row = (t * batch + tl.program_id(0) * ROWS + tl.arange(0, ROWS))[:, None]
    unit = (tl.program_id(1) * UNITS + tl.arange(0, UNITS))[None, :]
    inside = unit < SIZE
    # what the gates need besides the product is fetched meanwhile
    at = row * 2 * SIZE + unit
    input_f = tl.load(projection + at, mask=inside, other=0.0).to(tl.float32)
    input_n = tl.load(projection + at + SIZE, mask=inside, other=0.0).to(tl.float32)
    before = tl.load(states + row * SIZE + unit, mask=inside, other=0.0)
    recurrent_f = tl.full((ROWS, UNITS), 0.0, tl.float32)
    recurrent_n = tl.full((ROWS, UNITS), 0.0, tl.float32)
    for start in range(0, SIZE, DEPTH):
        k = start + tl.arange(0, DEPTH)
        state = tl.load(rounded + row * SIZE + k[None, :], mask=k[None, :] < SIZE, other=0.0)
        part = weight + unit * SIZE + k[:, None]  # transposed
        mask = inside & (k[:, None] < SIZE)
        weight_f = tl.load(part, mask=mask, other=0.0)
        weight_n = tl.load(part + SIZE * SIZE, mask=mask, other=0.0)
        if INTERPRETED:
            state, weight_f, weight_n = state.to(tl.float32), weight_f.to(tl.float32), weight_n.to(tl.float32)
        recurrent_f = tl.dot(state, weight_f, recurrent_f, input_precision="ieee")
        recurrent_n = tl.dot(state, weight_n, recurrent_n, input_precision="ieee")
    f = 1 / (1 + tl.exp(-(input_f + recurrent_f)))
    if RESET_GATE:
        product = recurrent_n + tl.load(bias_hn + unit, mask=inside, other=0.0)
        recurrent_n = f * product
        at = row * 3 * SIZE + unit
        tl.store(gates + at + 2 * SIZE, product, mask=inside)
    n = 2 / (1 + tl.exp(-2 * (input_n + recurrent_n))) - 1  # tanh
    tl.store(gates + at, f, mask=inside)
    tl.store(gates + at + SIZE, n, mask=inside)
    state = n + f * (before - n)
    after = (row + batch) * SIZE + unit
    tl.store(states + after, state, mask=inside)
    tl.store(rounded + after, state.to(rounded.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["t"])
def _backward_step(  # type: ignore[no-untyped-def]
    weight,  # (H, 2H), W_hh transposed
    gates,  # (S, B, 2H or 3H)
    before,  # (S, B, H)
    grad_outputs,  # (S, B, H)
    kept,  # (S + 1, B, H)
    grad_recurrent,  # (S + 1, B, 2H)
    grad_new,  # (S, B, H), with the reset gate
    t,
    batch,
    SIZE: tl.constexpr,
    RESET_GATE: tl.constexpr,
    ROWS: tl.constexpr,
    UNITS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """dh = grad_outputs[t] + kept[t + 1] + grad_recurrent[t + 1] W_hh, and it through the gates of step t, as
    `asr.ops.bptt` has it; a tile of rows of the batch and hidden units."""
    row = (t * batch + tl.program_id(0) * ROWS + tl.arange(0, ROWS))[:, None]
    unit = (tl.program_id(1) * UNITS + tl.arange(0, UNITS))[None, :]
    inside = unit < SIZE
    # what else the step needs is fetched while the product is computed
    at = row * SIZE + unit
    grad = tl.load(kept + at + batch * SIZE, mask=inside, other=0.0)
    grad += tl.load(grad_outputs + at, mask=inside, other=0.0).to(tl.float32)
    gate = gates + row * (3 if RESET_GATE else 2) * SIZE + unit
    f = tl.load(gate, mask=inside, other=0.0)
    n = tl.load(gate + SIZE, mask=inside, other=0.0)
    through_n = (1 - f) * (1 - n * n)
    through_f = tl.load(before + at, mask=inside, other=0.0).to(tl.float32) - n
    if RESET_GATE:
        through_f += through_n * tl.load(gate + 2 * SIZE, mask=inside, other=0.0)
    through_f *= f * (1 - f)
    for start in range(0, 2 * SIZE, DEPTH):
        k = start + tl.arange(0, DEPTH)
        later = tl.load(
            grad_recurrent + (row + batch) * 2 * SIZE + k[None, :], mask=k[None, :] < 2 * SIZE, other=0.0
        )
        mask = inside & (k[:, None] < 2 * SIZE)
        part = tl.load(weight + unit * 2 * SIZE + k[:, None], mask=mask, other=0.0)
        if INTERPRETED:
            later, part = later.to(tl.float32), part.to(tl.float32)
        grad = tl.dot(later, part, grad, input_precision="ieee")
    tl.store(kept + at, grad * f, mask=inside)
    grad_n = grad * through_n
    half: tl.constexpr = grad_recurrent.dtype.element_ty
    if RESET_GATE:
        tl.store(grad_new + at, grad_n.to(half), mask=inside)
        grad_n *= f
    at = row * 2 * SIZE + unit
    tl.store(grad_recurrent + at, (grad * through_f).to(half), mask=inside)
    tl.store(grad_recurrent + at + SIZE, grad_n.to(half), mask=inside)
