"""A model for streaming on a CPU: weights packed once, a chunk of audio in one call of C.

| packing | weights                   | computed with                                     |
|---------|---------------------------|---------------------------------------------------|
| `f32`   | float32                   | float32                                           |
| `f16`   | float16                   | float32                                           |
| `int8`  | int8, scaled by output    | activations of int16, scaled by row; int32 sums   |

The front-end is float32 in all of them. The equations are those of asr/frontend.py and asr/encoder.py, and so
are the states; csrc/step.c computes them.

Legend: `B` batch, `S` samples, `T` time, `V` vocabulary.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, Structure, c_float, c_int64, c_void_p
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import pad

from asr.errors import UserError
from asr.frontend import HANGOVER, HEARD, LOG_FLOOR, RISE
from asr.ops import cpu
from asr.state import pack

if TYPE_CHECKING:
    from asr.encoder import EncoderConfig
    from asr.frontend import LogMel
    from asr.model import CtcModel

Packing = Literal["f32", "f16", "int8"]
PACKINGS: tuple[Packing, ...] = get_args(Packing)  # in the order of step.c's enum


def fields(kind: Any, *names: str) -> list[Any]:
    return [(name, kind) for name in names]


class Product(Structure):
    _fields_ = [*fields(c_void_p, "weights", "scales", "bias"), *fields(c_int64, "depth", "columns")]


class _FrontEnd(Structure):
    _fields_ = [
        *fields(c_void_p, "taper", "mean", "std", "turns", "places", "filters", "bins"),
        *fields(c_int64, "window", "hop", "fft", "mels"),
        *fields(c_float, "floor", "mean_frames", "hangover", "heard", "rise"),
    ]


class _Convolution(Structure):
    _fields_ = [("product", Product), ("norm", c_void_p)]


class _Block(Structure):
    _fields_ = [
        *fields(Product, "inputs", "recurrent", "projection"),
        *fields(c_void_p, "norm", "ahead"),
        ("lookahead", c_int64),
    ]


class _Encoder(Structure):
    _fields_ = [
        ("front_end", _FrontEnd),
        *fields(Product, "input", "head"),
        ("norm", c_void_p),
        ("convolutions", POINTER(_Convolution)),
        ("blocks", POINTER(_Block)),
        *fields(c_int64, "convolution_count", "block_count", "packing", "gtu", "reset_gate"),
        *fields(c_int64, "context", "width", "hidden", "vocabulary", "state"),
    ]


class Panels:
    """Weights and other arrays as C reads them, and the memory that its structures point to."""

    def __init__(self, packing: Packing, kind: int) -> None:
        self.packing, self.lanes = packing, 4 << kind
        self._kept: list[Tensor] = []

    def product(self, weight: Tensor, bias: Tensor | None) -> Product:
        """weight (columns, depth), bias (columns,), both padded with zeros to whole panels (csrc/step.c)."""
        columns, depth = weight.shape
        bias = weight.new_zeros(columns) if bias is None else bias
        pair = 2 if self.packing == "int8" else 1
        missing = -columns % (2 * self.lanes)
        weight = pad(weight, (0, -depth % pair, 0, missing))
        scales = None
        if self.packing == "int8":
            scales = weight.abs().amax(1) / 127
            weight = (weight / scales.clamp(min=1e-30)[:, None]).round()
        dtype = {"f32": torch.float32, "f16": torch.float16, "int8": torch.int8}[self.packing]
        panels = weight.view(-1, 2, self.lanes, weight.shape[1] // pair, pair).permute(0, 3, 1, 2, 4)
        return Product(
            self.keep(panels.to(dtype)),
            None if scales is None else self.keep(scales),
            self.keep(pad(bias, (0, missing))),
            depth,
            columns,
        )

    def keep(self, tensor: Tensor) -> int:
        kept = tensor.detach().clone(memory_format=torch.contiguous_format)
        self._kept.append(kept)
        return kept.data_ptr()


def can_pack(config: EncoderConfig) -> bool:
    """Whether step.c knows the equations; those of cells and gates that are studied it does not."""
    return config.cell == "mgu" and config.gate in ("glu", "gtu")


class Packed:
    """`CtcModel` and log_softmax, with its weights as they were when this was made.

    kind: the instruction set, 0 portable, 1 AVX2, 2 AVX-512 with VNNI; without it the best that there is.
    Calls from several threads do not disturb each other, and release the GIL.

    Raises UserError where the C library is missing, for an unknown packing, and for an encoder that cannot be
    packed.
    """

    def __init__(self, model: CtcModel, packing: Packing, kind: int | None = None) -> None:
        if packing not in PACKINGS:
            raise UserError(f"unknown packing {packing!r}: use {', '.join(PACKINGS)}")
        encoder = model.config.encoder
        if not can_pack(encoder):
            raise UserError(
                f"packing {packing}: is for the MGU behind GLU or GTU, not for {encoder.cell} behind"
                f" {encoder.gate}; compute it with --packing torch"
            )
        library = cpu.library()
        if isinstance(library, str):
            raise UserError(f"packing {packing}: {library}; install a C compiler (gcc or clang)")
        self.packing, self.config = packing, model.config
        self._step, self._step_samples = library.step_forward, model.step_samples
        self._kind = library.step_best() if kind is None else kind
        self.state_size = pack(model.initial_state(1)).shape[1]  # floats of a row
        self._panels = Panels(packing, self._kind)
        self._encoder = self._describe(model)

    def __call__(self, audio: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """audio (B, S), S a multiple of the model's `step_samples` -> log-probabilities (B, T, V), rows.

        rows (B, D): the model's states as `asr.state.pack` packs them.
        """
        batch, samples = audio.shape
        if samples % self._step_samples:
            raise ValueError(f"{samples} samples are not a multiple of step_samples, {self._step_samples}")
        if rows.shape != (batch, self.state_size):
            raise ValueError(
                f"states {tuple(rows.shape)} do not fit audio {tuple(audio.shape)} and the model"
            )
        if any(not tensor.is_cpu or tensor.dtype != torch.float32 for tensor in (audio, rows)):
            raise ValueError("a packed model is for float32 on a CPU")
        steps = samples // self._step_samples
        audio, rows = audio.contiguous(), rows.clone(memory_format=torch.contiguous_format)
        log_probs = audio.new_empty(batch, steps * self.config.outputs, self.config.vocabulary)
        pointers = audio.data_ptr(), rows.data_ptr(), log_probs.data_ptr()
        if self._step(ctypes.byref(self._encoder), *pointers, batch, steps, cpu.threads(), self._kind):
            raise MemoryError(f"not enough memory for {batch} streams of {steps} steps")
        return log_probs, rows

    def takes(self, audio: Tensor) -> bool:
        """Whether this can stand for the model: in inference mode, float32 on a CPU."""
        return torch.is_inference_mode_enabled() and audio.is_cpu and audio.dtype == torch.float32

    @torch.no_grad()
    def _describe(self, model: CtcModel) -> _Encoder:
        encoder, config, panels = model.encoder, model.config.encoder, self._panels
        convolutions = [
            _Convolution(
                # a window is (kernel, inputs) in memory
                panels.product(layer.convolution.weight.transpose(1, 2).flatten(1), layer.convolution.bias),
                panels.keep(layer.norm.weight),
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
                    panels.product(mgu.weight_ih, mgu.bias),
                    panels.product(mgu.weight_hh, bias),
                    panels.product(projection.weight, projection.bias)
                    if isinstance(projection, torch.nn.Linear)
                    else Product(),
                    panels.keep(block.norm.weight),
                    panels.keep(block.lookahead.weight),
                    block.lookahead.frames,
                )
            )
        return _Encoder(
            _front_end(model.frontend, panels),
            panels.product(encoder.input.weight, encoder.input.bias),
            panels.product(model.head.weight, model.head.bias),
            panels.keep(encoder.norm.weight),
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
            self.state_size,
        )


def _front_end(frontend: LogMel, panels: Panels) -> _FrontEnd:
    config, fft = frontend.config, frontend.fft
    angles = torch.arange(fft // 2, dtype=torch.float64) * (-2 * torch.pi / fft)
    bits = (fft // 2).bit_length() - 1
    places = torch.tensor([int(f"{k:0{bits}b}"[::-1], 2) for k in range(fft // 2)])
    filters = frontend.filters.T  # (M, bins)
    used = [row.nonzero().flatten().tolist() or [0] for row in filters]
    return _FrontEnd(
        panels.keep(frontend.taper),
        panels.keep(frontend.mean),
        panels.keep(frontend.std),
        panels.keep(torch.stack([angles.cos(), angles.sin()], 1).float()),
        panels.keep(places),
        panels.keep(filters),
        panels.keep(torch.tensor([(row[0], row[-1] + 1) for row in used])),
        config.window,
        config.hop,
        fft,
        config.mels,
        LOG_FLOOR,
        config.mean_frames,
        HANGOVER,
        HEARD,
        RISE,
    )
