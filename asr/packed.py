"""A model's encoder and head for streaming on a CPU: weights packed once, a chunk in one call of C.

| packing | weights                   | computed with                                     |
|---------|---------------------------|---------------------------------------------------|
| `f32`   | float32                   | float32                                           |
| `f16`   | float16                   | float32                                           |
| `int8`  | int8, scaled by output    | activations of int16, scaled by row; int32 sums   |

The equations are those of asr/encoder.py, and so are the states; csrc/step.c computes them.

Legend: `B` batch, `T` time, `M` mel bands, `V` vocabulary.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, Structure, c_int64, c_void_p
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import pad

from asr.errors import UserError
from asr.ops import cpu
from asr.state import leaves, pack, with_leaves

if TYPE_CHECKING:
    from asr.encoder import EncoderState
    from asr.model import CtcModel

Packing = Literal["f32", "f16", "int8"]
PACKINGS: tuple[Packing, ...] = get_args(Packing)  # in the order of step.c's enum


def _fields(kind: Any, *names: str) -> list[Any]:
    return [(name, kind) for name in names]


class _Product(Structure):
    _fields_ = [*_fields(c_void_p, "weights", "scales", "bias"), *_fields(c_int64, "depth", "columns")]


class _Convolution(Structure):
    _fields_ = [("product", _Product), ("norm", c_void_p)]


class _Block(Structure):
    _fields_ = [
        *_fields(_Product, "inputs", "recurrent", "projection"),
        *_fields(c_void_p, "norm", "ahead"),
        ("lookahead", c_int64),
    ]


class _Encoder(Structure):
    _fields_ = [
        *_fields(_Product, "input", "head"),
        ("norm", c_void_p),
        ("convolutions", POINTER(_Convolution)),
        ("blocks", POINTER(_Block)),
        *_fields(c_int64, "convolution_count", "block_count", "packing", "gtu", "reset_gate"),
        *_fields(c_int64, "context", "width", "hidden", "vocabulary", "state"),
    ]


class Packed:
    """`CtcModel`'s encoder, head and log_softmax, with its weights as they were when this was made.

    kind: the instruction set, 0 portable, 1 AVX2, 2 AVX-512 with VNNI; without it the best that there is.
    Calls from several threads do not disturb each other, and release the GIL.

    Raises UserError where the C library is missing, and for an unknown packing.
    """

    def __init__(self, model: CtcModel, packing: Packing, kind: int | None = None) -> None:
        if packing not in PACKINGS:
            raise UserError(f"unknown packing {packing!r}: use {', '.join(PACKINGS)}")
        library = cpu.library()
        if isinstance(library, str):
            raise UserError(f"packing {packing}: {library}; install a C compiler (gcc or clang)")
        self.packing, self.config = packing, model.config
        self._step = library.step_forward
        self._kind = library.step_best() if kind is None else kind
        self._lanes = 4 << self._kind
        self._shapes = [leaf.shape[1:] for leaf in leaves(model.encoder.initial_state(1))]
        self._sizes = [shape.numel() for shape in self._shapes]
        self._kept: list[Tensor] = []  # what the C structures point to
        self._encoder = self._describe(model)

    def __call__(self, features: Tensor, state: EncoderState) -> tuple[Tensor, EncoderState]:
        """features (B, T, M), T a multiple of the subsampling -> log-probabilities (B, T', V), state."""
        batch, length, mels = features.shape
        subsampling = 2 ** len(self.config.encoder.channels)
        if mels != self.config.frontend.mels or length % subsampling:
            raise ValueError(
                f"features {tuple(features.shape)} are not (B, T, M), T in steps of {subsampling}"
            )
        steps, features, carried = length // subsampling, features.contiguous(), pack(state)
        if carried.shape != (batch, self._encoder.state):
            raise ValueError(f"the state does not fit features {tuple(features.shape)}")
        if any(not tensor.is_cpu or tensor.dtype != torch.float32 for tensor in (features, carried)):
            raise ValueError("a packed model is for float32 on a CPU")
        log_probs = features.new_empty(batch, steps * self.config.outputs, self.config.vocabulary)
        pointers = [tensor.data_ptr() for tensor in (features, carried, log_probs)]
        if self._step(ctypes.byref(self._encoder), *pointers, batch, steps, cpu.threads(), self._kind):
            raise MemoryError(f"not enough memory for {batch} streams of {steps} steps")
        parts = carried.split(self._sizes, 1)
        return log_probs, with_leaves(
            state, [part.view(batch, *shape) for part, shape in zip(parts, self._shapes, strict=True)]
        )

    def takes(self, features: Tensor) -> bool:
        """Whether this can stand for the model: in inference mode, float32 on a CPU."""
        return torch.is_inference_mode_enabled() and features.is_cpu and features.dtype == torch.float32

    @torch.no_grad()
    def _describe(self, model: CtcModel) -> _Encoder:
        encoder, config = model.encoder, model.config.encoder
        convolutions = [
            _Convolution(
                # a window is (kernel, inputs) in memory
                self._product(layer.convolution.weight.transpose(1, 2).flatten(1), layer.convolution.bias),
                self._keep(layer.norm.weight),
            )
            for layer in encoder.convolutions
        ]
        blocks = []
        for block in encoder.blocks:
            mgu, projection = block.mgu, block.projection
            bias = torch.zeros_like(mgu.bias)
            if mgu.bias_hn is not None:
                bias[mgu.hidden :] = mgu.bias_hn
            blocks.append(
                _Block(
                    self._product(mgu.weight_ih, mgu.bias),
                    self._product(mgu.weight_hh, bias),
                    self._product(projection.weight, projection.bias)
                    if isinstance(projection, torch.nn.Linear)
                    else _Product(),
                    self._keep(block.norm.weight),
                    self._keep(block.lookahead.weight),
                    block.lookahead.frames,
                )
            )
        return _Encoder(
            self._product(encoder.input.weight, encoder.input.bias),
            self._product(model.head.weight, model.head.bias),
            self._keep(encoder.norm.weight),
            (_Convolution * len(convolutions))(*convolutions),
            (_Block * len(blocks))(*blocks),
            len(convolutions),
            len(blocks),
            PACKINGS.index(self.packing),
            config.gate == "gtu",
            config.reset_gate,
            config.kernel - 2,
            config.width,
            config.hidden,
            model.config.vocabulary,
            sum(self._sizes),
        )

    def _product(self, weight: Tensor, bias: Tensor | None) -> _Product:
        """weight (columns, depth), bias (columns,), both padded with zeros to whole panels (csrc/step.c)."""
        columns, depth = weight.shape
        bias = weight.new_zeros(columns) if bias is None else bias
        pair = 2 if self.packing == "int8" else 1
        missing = -columns % (2 * self._lanes)
        weight = pad(weight, (0, -depth % pair, 0, missing))
        scales = None
        if self.packing == "int8":
            scales = weight.abs().amax(1) / 127
            weight = (weight / scales.clamp(min=1e-30)[:, None]).round()
        dtype = {"f32": torch.float32, "f16": torch.float16, "int8": torch.int8}[self.packing]
        panels = weight.view(-1, 2, self._lanes, weight.shape[1] // pair, pair).permute(0, 3, 1, 2, 4)
        return _Product(
            self._keep(panels.to(dtype)),
            None if scales is None else self._keep(scales),
            self._keep(pad(bias, (0, missing))),
            depth,
            columns,
        )

    def _keep(self, tensor: Tensor) -> int:
        kept = tensor.detach().clone(memory_format=torch.contiguous_format)
        self._kept.append(kept)
        return kept.data_ptr()
