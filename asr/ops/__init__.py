"""The MGU recurrence, one function for all back-ends. Knows nothing about layers: parameters are arguments.

| back-end    | what it is                                          | where                              |
|-------------|-----------------------------------------------------|------------------------------------|
| `reference` | the plain loop, the specification                   | anywhere                           |
| `bptt`      | one autograd function, back-propagation by hand     | anywhere                           |
| `tied_gru`  | torch's GRU with tied weights, cuDNN on a GPU       | float32, float64; on a GPU, half   |
| `cpu`       | the C operator                                      | CPU, float32                       |
| `triton`    | a kernel a step, as CUDA graphs                     | CUDA, float32, half                |

Legend: `B` batch, `T` time, `D` input features, `H` hidden units.
"""

from importlib.util import find_spec
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from asr.errors import UserError
from asr.ops import bptt, cpu, reference, tied_gru

Backend = Literal["auto", "reference", "bptt", "tied_gru", "cpu", "triton"]


class Measured(NamedTuple):
    """What `python -m benchmarks.gpu` found, forward and backward, by which `auto` chooses on a GPU."""

    dtype: torch.dtype  # of the products
    sizes: tuple[int, int]  # H, from and up to
    batches: tuple[int, int]
    backend: Backend
    ratio: float  # time of tied_gru over its own
    where: str  # device and date


MEASURED: tuple[Measured, ...] = ()  # the first row that fits counts; none yet, since no GPU was at hand


def mgu(
    inputs: Tensor,  # (B, T, D)
    hidden: Tensor,  # (B, H)
    weight_ih: Tensor,  # (2H, D), rows 0..H are f, rows H..2H are n
    weight_hh: Tensor,  # (2H, H)
    bias: Tensor,  # (2H,)
    bias_hn: Tensor | None,  # (H,); None: no reset gate
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor]:
    """All hidden states (B, T, H) and the last one (B, H); the equation stands in `asr.ops.reference`.

    Raises `UserError` when a back-end is asked for by name and cannot run here, ValueError for shapes that do
    not fit together.
    """
    if inputs.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        inputs, hidden = inputs.float(), hidden.float()
    _check_shapes(inputs, hidden, weight_ih, weight_hh, bias, bias_hn)
    arguments = (inputs, hidden, weight_ih, weight_hh, bias, bias_hn)
    if backend == "auto":
        backend = choose(inputs, hidden, weight_hh)
    if backend == "cpu":
        _check_cpu(*arguments)
        return cpu.mgu(*arguments)
    if backend == "reference":
        return reference.mgu(*arguments)
    if backend == "bptt":
        return bptt.mgu(*arguments)
    if backend == "tied_gru":
        return tied_gru.mgu(*arguments)
    if backend == "triton":
        _check_triton(inputs)
        from asr.ops import triton_step  # triton is there only on Linux, and takes a while to import

        return triton_step.mgu(*arguments)
    raise UserError(f"unknown back-end {backend!r}: use auto, reference, bptt, tied_gru, cpu or triton")


def choose(inputs: Tensor, hidden: Tensor, weight_hh: Tensor) -> Backend:
    """The fastest back-end for these tensors."""
    if inputs.is_cuda:
        half = torch.is_autocast_enabled("cuda")
        dtype = torch.get_autocast_dtype("cuda") if half else inputs.dtype
        return fastest_on_gpu(dtype, *hidden.shape)
    tensors = (inputs, hidden, weight_hh)
    if (
        all(tensor.device.type == "cpu" and tensor.dtype == torch.float32 for tensor in tensors)
        and cpu.is_available()
    ):
        return "cpu"
    return "bptt"


def fastest_on_gpu(dtype: torch.dtype, batch: int, size: int) -> Backend:
    """What `MEASURED` has for it, else tied_gru."""
    for row in MEASURED:
        fits = row.sizes[0] <= size <= row.sizes[1] and row.batches[0] <= batch <= row.batches[1]
        if fits and dtype == row.dtype and (row.backend != "triton" or find_spec("triton")):
            return row.backend
    return "tied_gru"


def _check_cpu(*tensors: Tensor | None) -> None:
    if not cpu.is_available():
        raise UserError(f"back-end cpu: {cpu.library()}; install a C compiler (gcc or clang), or use auto")
    for tensor in tensors:
        if tensor is not None and (tensor.device.type != "cpu" or tensor.dtype != torch.float32):
            raise UserError(
                f"back-end cpu is for float32 on the CPU, not {tensor.dtype} on {tensor.device}: use auto"
            )


def _check_triton(inputs: Tensor) -> None:
    if find_spec("triton") is None:
        raise UserError(
            "back-end triton: its package is missing, which comes with torch for CUDA on Linux; use auto"
        )
    from triton import knobs

    if not inputs.is_cuda and not knobs.runtime.interpret:
        raise UserError(
            "back-end triton needs a GPU: use auto (or, to test it on the CPU, set TRITON_INTERPRET=1)"
        )
    if inputs.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        raise UserError(f"back-end triton is for float32 and half, not {inputs.dtype}: use auto")


def _check_shapes(
    inputs: Tensor, hidden: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor, bias_hn: Tensor | None
) -> None:
    if inputs.dim() != 3 or hidden.dim() != 2 or inputs.shape[0] != hidden.shape[0]:
        shapes = f"{tuple(inputs.shape)}, {tuple(hidden.shape)}"
        raise ValueError(f"inputs and hidden have to be (B, T, D) and (B, H), and are {shapes}")
    features, size = inputs.shape[2], hidden.shape[1]
    parameters = [tuple(tensor.shape) for tensor in (weight_ih, weight_hh, bias)]
    if parameters != [(2 * size, features), (2 * size, size), (2 * size,)]:
        raise ValueError(f"weight_ih, weight_hh, bias {parameters} do not fit D = {features}, H = {size}")
    if bias_hn is not None and tuple(bias_hn.shape) != (size,):
        raise ValueError(f"bias_hn {tuple(bias_hn.shape)} does not fit H = {size}")
