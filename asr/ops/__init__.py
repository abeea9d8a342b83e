"""The MGU recurrence, one function for all back-ends. Knows nothing about layers: parameters are arguments.

| back-end    | what it is                                          | where                              |
|-------------|-----------------------------------------------------|------------------------------------|
| `reference` | the plain loop, the specification                   | anywhere                           |
| `bptt`      | one autograd function, back-propagation by hand     | anywhere                           |
| `tied_gru`  | torch's GRU with tied weights, cuDNN on a GPU       | float32, float64; on a GPU, half   |
| `cpu`       | the C operator                                      | CPU, float32                       |

Legend: `B` batch, `T` time, `D` input features, `H` hidden units.
"""

from typing import Literal

import torch
from torch import Tensor

from asr.errors import UserError
from asr.ops import bptt, cpu, reference, tied_gru

Backend = Literal["auto", "reference", "bptt", "tied_gru", "cpu"]


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
    raise UserError(f"unknown back-end {backend!r}: use auto, reference, bptt, tied_gru or cpu")


def choose(inputs: Tensor, hidden: Tensor, weight_hh: Tensor) -> Backend:
    """The fastest back-end for these tensors."""
    if inputs.is_cuda:
        return "tied_gru"
    tensors = (inputs, hidden, weight_hh)
    if (
        all(tensor.device.type == "cpu" and tensor.dtype == torch.float32 for tensor in tensors)
        and cpu.is_available()
    ):
        return "cpu"
    return "bptt"


def _check_cpu(*tensors: Tensor | None) -> None:
    if not cpu.is_available():
        raise UserError(f"back-end cpu: {cpu.library()}; install a C compiler (gcc or clang), or use auto")
    for tensor in tensors:
        if tensor is not None and (tensor.device.type != "cpu" or tensor.dtype != torch.float32):
            raise UserError(
                f"back-end cpu is for float32 on the CPU, not {tensor.dtype} on {tensor.device}: use auto"
            )


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
