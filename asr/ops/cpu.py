"""The MGU recurrence as a C operator, `torch.ops.asr.mgu`: CPU, float32.

The C library does what has to go step by step (csrc/mgu.c) and the large products over B x T: the input
projection, its gradient and those of the weights (csrc/mgu_products.c). Of the large ones small and bfloat16
ones are torch's; under autocast a step's factors are rounded to bfloat16 where the processor has AMX.

Legend: `B` batch, `T` time, `D` input features, `H` hidden units.
"""

import ctypes
import functools
import logging
import os
from typing import Any

import torch
from torch import Tensor

from asr import native
from asr.steady import ROWS

log = logging.getLogger("asr")

LARGE = 512  # rows from which our product repays packing the weight, against oneDNN's

AMX = 3  # an instruction set, for products of bfloat16 alone

_PROCESS = os.getpid()  # OpenMP's threads do not survive a fork: a child uses one thread

_SCHEMA = (
    "(Tensor inputs, Tensor hidden, Tensor weight_ih, Tensor weight_hh, Tensor bias, Tensor? bias_hn,"
    " bool keep, bool half) -> (Tensor outputs, Tensor final, Tensor gates, Tensor product)"
)
_BACKWARD_SCHEMA = (
    "(Tensor grad_outputs, Tensor grad_final, Tensor inputs, Tensor hidden, Tensor weight_ih,"
    " Tensor weight_hh, Tensor outputs, Tensor gates, Tensor? product, bool half)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
)


def mgu(
    inputs: Tensor, hidden: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor, bias_hn: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Same arguments and results as `asr.ops.reference.mgu`."""
    arguments = (inputs, hidden, weight_ih, weight_hh, bias, bias_hn)
    keep = torch.is_grad_enabled() and any(
        tensor is not None and tensor.requires_grad for tensor in arguments
    )
    half = torch.is_autocast_enabled("cpu")
    outputs, final, _, _ = torch.ops.asr.mgu(*arguments, keep, half)
    return outputs, final


def is_available() -> bool:
    """Whether the C library is there, compiling it at the first call; says why not, once, in the log."""
    return not isinstance(library(), str)


@functools.cache
def library() -> ctypes.CDLL | str:
    """The loaded C library, or one line saying why there is none."""
    try:
        loaded = ctypes.CDLL(str(native.find_or_build(native.MGU)))
    except (native.BuildError, OSError) as error:
        log.warning("the C operator is missing, the recurrence runs 1.5 to 3 times slower: %s", error)
        return str(error)
    pointer, size, integer = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    loaded.mgu_forward.argtypes = [pointer] * 6 + [size] * 3 + [integer] * 3
    loaded.mgu_backward.argtypes = [pointer] * 12 + [size] * 3 + [integer] * 2
    loaded.mgu_linear.argtypes = [pointer] * 4 + [size] * 3 + [integer] * 3
    loaded.mgu_weight_gradients.argtypes = [pointer] * 7 + [size] * 4 + [integer] * 2
    loaded.step_forward.argtypes = [pointer] * 4 + [size] * 2 + [integer] * 2
    loaded.vad_forward.argtypes = [pointer] * 4 + [size] * 2 + [integer]
    loaded.denominator.argtypes = [pointer] * 13 + [size] * 4 + [integer] * 2
    return loaded


@functools.cache
def instruction_set() -> int:
    """The best that this processor has for floats: 0 portable, 1 AVX2 with FMA, 2 AVX-512."""
    return loaded().mgu_best()


@functools.cache
def has_amx() -> bool:
    """Whether a step's product of bfloat16 is one of tiles."""
    return bool(loaded().mgu_has_amx())


def loaded() -> ctypes.CDLL:
    """The C library. Raises RuntimeError where there is none."""
    loaded = library()
    if isinstance(loaded, str):
        raise RuntimeError(f"asr::mgu: {loaded}")
    return loaded


def threads() -> int:
    """How many the C library may use here."""
    return torch.get_num_threads() if os.getpid() == _PROCESS else 1


def _call(function: Any, tensors: tuple[Tensor | None, ...], *sizes: int, half: bool = False) -> None:
    """Run a C function; ctypes releases the GIL meanwhile. half: with products of bfloat16, if it has any."""
    for tensor in tensors:
        if tensor is not None and (tensor.dtype != torch.float32 or tensor.device.type != "cpu"):
            raise RuntimeError(f"asr::mgu is for float32 on a CPU, not {tensor.dtype} on {tensor.device}")
    dense = [None if tensor is None else tensor.contiguous() for tensor in tensors]
    pointers = [None if tensor is None else tensor.data_ptr() for tensor in dense]
    if function(*pointers, *sizes, threads(), AMX if half and has_amx() else instruction_set()):
        raise MemoryError("asr::mgu: not enough memory for the packed weights")


def _rounded(rows: Tensor) -> Tensor:
    """(N, C) as bfloat16, with rows of zeros up to a whole number of `ROWS`."""
    made = rows.new_zeros((-(-len(rows) // ROWS) * ROWS, rows.size(1)), dtype=torch.bfloat16)
    made[: len(rows)] = rows
    return made


def _linear(inputs: Tensor, weight: Tensor, bias: Tensor | None, half: bool) -> Tensor:
    """inputs (N, D) @ weight.T (D, E) + bias (E). In float32 ours; for few rows, and where only portable C is
    there, by oneDNN, as torch.compile does it: 5 to 30 % faster than MKL, which `@` calls. half: of factors
    rounded to bfloat16, 2.4 times as fast on AVX-512."""
    if half:
        product = (_rounded(inputs) @ weight.T.bfloat16())[: len(inputs)].float()
        return product if bias is None else product.add_(bias)
    if inputs.numel() and len(inputs) >= LARGE and instruction_set():
        made = inputs.new_empty(len(inputs), len(weight))
        transposed = weight.T.is_contiguous()
        _call(
            loaded().mgu_linear,
            (inputs, weight.T if transposed else weight, bias, made),
            *(*inputs.shape, len(weight), int(transposed)),
        )
        return made
    if inputs.numel() and torch.backends.mkldnn.is_available():
        linear: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, "none", [], "")
        return linear
    product = inputs @ weight.T
    return product if bias is None else product.add_(bias)


def _forward(
    inputs: Tensor,
    hidden: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor,
    bias_hn: Tensor | None,
    keep: bool,
    half: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    outputs, final, gates, product = _forward_fake(
        inputs, hidden, weight_ih, weight_hh, bias, bias_hn, keep, half
    )
    (batch, time, features), size = inputs.shape, hidden.shape[1]
    # C overwrites the projection with f and n.
    projection = _linear(inputs.reshape(batch * time, features), weight_ih, bias, half)
    kept = product if keep and bias_hn is not None else None
    _call(
        loaded().mgu_forward,
        (weight_hh, bias_hn, hidden, projection, kept, outputs),
        *(batch, time, size, int(keep)),
        half=half,
    )
    final.copy_(outputs[:, -1] if time else hidden)
    return outputs, final, projection.view(gates.shape) if keep else gates, product


def _forward_fake(
    inputs: Tensor,
    hidden: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor,
    bias_hn: Tensor | None,
    keep: bool,
    half: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    (batch, time, _), size = inputs.shape, hidden.shape[1]
    return (
        inputs.new_empty(batch, time, size),
        inputs.new_empty(batch, size),
        inputs.new_empty((batch, time, 2 * size) if keep else (0,)),
        inputs.new_empty((batch, time, size) if keep and bias_hn is not None else (0,)),
    )


def _backward(
    grad_outputs: Tensor,
    grad_final: Tensor,
    inputs: Tensor,
    hidden: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    outputs: Tensor,
    gates: Tensor,
    product: Tensor | None,
    half: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    (batch, time, features), size = inputs.shape, hidden.shape[1]
    grad_projection = torch.empty_like(gates)
    grad_product = None if product is None else torch.empty_like(product)
    grad_hidden = torch.empty_like(hidden, memory_format=torch.contiguous_format)
    grad_bias, grad_bias_hn = hidden.new_empty(2 * size), hidden.new_empty(size)
    _call(
        loaded().mgu_backward,
        (
            *(weight_hh, hidden, gates, product, outputs, grad_outputs, grad_final),
            *(grad_projection, grad_product, grad_hidden, grad_bias, grad_bias_hn),
        ),
        *(batch, time, size),
        half=half,
    )
    grad_weights = _weight_gradients(inputs, hidden, outputs, grad_projection, grad_product, half)
    del grad_product  # the gradient of the inputs, as large, takes its memory
    flat = grad_projection.view(batch * time, 2 * size)
    return (
        _linear(flat, weight_ih.T, None, half).view(batch, time, features),
        grad_hidden,
        *grad_weights,
        grad_bias,
        hidden.new_empty(0) if product is None else grad_bias_hn,
    )


def _weight_gradients(
    inputs: Tensor,
    hidden: Tensor,
    outputs: Tensor,
    grad_projection: Tensor,
    grad_product: Tensor | None,
    half: bool,
) -> tuple[Tensor, Tensor]:
    """Of weight_ih and weight_hh."""
    (batch, time, features), size = inputs.shape, hidden.shape[1]
    if not half and instruction_set():  # portable C is slower than any library
        made = inputs.new_empty(2 * size, features), inputs.new_empty(2 * size, size)
        _call(
            loaded().mgu_weight_gradients,
            (inputs, hidden, outputs, grad_projection, grad_product, *made),
            *(batch, time, features, size),
        )
        return made
    before = torch.cat([hidden.unsqueeze(1), outputs[:, : max(time - 1, 0)]], 1)[:, :time]

    def rows(tensor: Tensor) -> Tensor:
        flat = tensor.reshape(batch * time, tensor.size(-1))
        return _rounded(flat) if half else flat

    gradients, states = rows(grad_projection), rows(before)
    if grad_product is None:
        grad_weight_hh = gradients.T @ states
    else:
        grad_weight_hh = torch.cat([gradients[:, :size].T @ states, rows(grad_product).T @ states])
    return (gradients.T @ rows(inputs)).float(), grad_weight_hh.float()


def _backward_fake(
    grad_outputs: Tensor,
    grad_final: Tensor,
    inputs: Tensor,
    hidden: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    outputs: Tensor,
    gates: Tensor,
    product: Tensor | None,
    half: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    size = hidden.shape[1]
    shapes = [inputs.shape, hidden.shape, weight_ih.shape, weight_hh.shape, (2 * size,)]
    first, second, third, fourth, fifth = (inputs.new_empty(shape) for shape in shapes)
    return first, second, third, fourth, fifth, inputs.new_empty(0 if product is None else size)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    features, hidden, weight_ih, weight_hh, _, bias_hn, _, half = inputs
    outputs, _, gates, product = output
    ctx.reset_gate, ctx.half = bias_hn is not None, half
    ctx.mark_non_differentiable(gates, product)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(features, hidden, weight_ih, weight_hh, outputs, gates, product)


def _autograd(
    ctx: Any, grad_outputs: Tensor | None, grad_final: Tensor | None, *_: None
) -> tuple[Tensor | None, ...]:
    inputs, hidden, weight_ih, weight_hh, outputs, gates, product = ctx.saved_tensors
    *gradients, grad_bias_hn = torch.ops.asr.mgu_backward(
        torch.zeros_like(outputs) if grad_outputs is None else grad_outputs,
        torch.zeros_like(hidden) if grad_final is None else grad_final,
        *(inputs, hidden, weight_ih, weight_hh, outputs, gates),
        product if ctx.reset_gate else None,
        ctx.half,
    )
    return (*gradients, grad_bias_hn if ctx.reset_gate else None, None, None)


torch.library.define("asr::mgu", _SCHEMA)
torch.library.impl("asr::mgu", "cpu", _forward)
torch.library.register_fake("asr::mgu", _forward_fake)
torch.library.register_autograd("asr::mgu", _autograd, setup_context=_setup_context)
torch.library.define("asr::mgu_backward", _BACKWARD_SCHEMA)
torch.library.impl("asr::mgu_backward", "cpu", _backward)
torch.library.register_fake("asr::mgu_backward", _backward_fake)
