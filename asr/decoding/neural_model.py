"""Neural language models: their file, and mixing one with n-grams. csrc/neural.h has the equations.

V words, E size of an embedding, H hidden units, D outputs. Of gates, f comes before n.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from asr.decoding.language_model import SPECIAL, LanguageModel, checked, library
from asr.errors import UserError

FORMAT = "asr-neural-lm 2"

_ROWS = ("embeddings", "outputs")
_LAYERS = (
    *("weight_ih", "bias_ih", "weight_hh", "bias_hn"),
    *("weight_mix", "bias_mix", "weight_out", "bias_out"),
)


@dataclass(frozen=True)
class NeuralModel:
    """words: without `SPECIAL`, which come before. share: of the mixture that is its own, between 0 and 1.
    embeddings (V, E), outputs (V, D), bias (V). layers: weight_ih (E, 2H), bias_ih (2H), weight_hh (H, 2H),
    bias_hn (H), weight_mix (H, H), bias_mix (H), weight_out (H, D), bias_out (D). Float32.
    """

    words: tuple[str, ...]
    share: float
    embeddings: NDArray[np.float32]
    outputs: NDArray[np.float32]
    bias: NDArray[np.float32]
    layers: dict[str, NDArray[np.float32]]

    @classmethod
    def load(cls, path: Path) -> NeuralModel:
        """Raises UserError for what is no neural model, or not whole."""
        tensors, share = _read(path)
        embeddings, outputs = (tensors[name] * tensors[f"{name}.scales"][:, None] for name in _ROWS)
        words = tuple(tensors["words"].tobytes().decode().split("\n"))
        layers = {name: tensors[name] for name in _LAYERS}
        return cls(words, share, embeddings, outputs, tensors["bias"], layers)

    def save(self, path: Path) -> None:
        """Embeddings and outputs as 8-bit integers with a scale a row, the rest as float16."""
        tensors: dict[str, NDArray[Any]]
        tensors = {name: layer.astype(np.float16) for name, layer in self.layers.items()}
        for name, rows in (("embeddings", self.embeddings), ("outputs", self.outputs)):
            tensors[name], tensors[f"{name}.scales"] = _quantised(rows)
        tensors["bias"] = self.bias.astype(np.float16)
        tensors["words"] = np.frombuffer("\n".join(self.words).encode(), np.uint8)
        partial = path.with_name(path.name + ".partial")
        save_file(tensors, partial, {"format": FORMAT, "share": repr(self.share)})
        partial.chmod(0o644)  # safetensors lets its owner alone read it
        partial.replace(path)


class MixedModel(LanguageModel):
    """What a model of n-grams and a neural one say together; the vocabulary is that of the n-grams."""

    def __init__(self, ngrams: LanguageModel, path: Path) -> None:
        """Raises UserError for what is no neural model, or not whole."""
        tensors, share = _read(path)
        words = tensors["words"].tobytes()
        weights = _Weights.of(tensors)
        given = (ngrams.handle, words, len(words), ctypes.byref(weights), share)
        handle = checked(library().asr_lm_mixed, *given)
        super().__init__(handle, ngrams.path, ngrams.counts)
        self.ngrams = ngrams  # has to live as long
        self.neural, self.share = path, share

    @property
    def lexicon(self) -> int:
        return self.ngrams.lexicon


class _Rows(ctypes.Structure):
    _fields_ = (("values", ctypes.c_void_p), ("scales", ctypes.c_void_p))


class _Weights(ctypes.Structure):
    """NeuralWeights of csrc/neural.h; the arrays have to live until it has been read."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("words", "embedding", "hidden", "output")),
        *((name, _Rows) for name in _ROWS),
        *((name, ctypes.c_void_p) for name in ("bias", *_LAYERS)),
    )

    @classmethod
    def of(cls, tensors: dict[str, NDArray[Any]]) -> _Weights:
        rows = (_Rows(*(tensors[key].ctypes.data for key in (name, f"{name}.scales"))) for name in _ROWS)
        sizes = (*tensors["embeddings"].shape, *tensors["weight_out"].shape)
        return cls(*sizes, *rows, *(tensors[name].ctypes.data for name in ("bias", *_LAYERS)))


def _quantised(rows: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    scales = np.maximum(np.abs(rows).max(1), 1e-8) / 127
    return np.rint(rows / scales[:, None]).astype(np.int8), scales.astype(np.float32)


def _read(path: Path) -> tuple[dict[str, NDArray[Any]], float]:
    """All tensors, floats as float32, of sizes that fit each other, and the share."""
    try:
        with safe_open(path, "np") as file:
            about = file.metadata() or {}
            if about.get("format") != FORMAT:
                raise UserError(f"{path}: no neural language model of this version; asr neural-lm makes one")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            share = float(about["share"])
            if not 0 <= share <= 1:
                raise ValueError(f"a share of {share}")
        floats = {name: each for name, each in tensors.items() if each.dtype == np.float16}
        tensors |= {name: np.ascontiguousarray(each, np.float32) for name, each in floats.items()}
        words = tensors["words"].tobytes().count(b"\n") + 1 + len(SPECIAL)
        (hidden, output), embedding = tensors["weight_out"].shape, tensors["embeddings"].shape[1]
        sizes = {
            "embeddings": (words, embedding),
            "embeddings.scales": (words,),
            "outputs": (words, output),
            "outputs.scales": (words,),
            "bias": (words,),
            "weight_ih": (embedding, 2 * hidden),
            "bias_ih": (2 * hidden,),
            "weight_hh": (hidden, 2 * hidden),
            "bias_hn": (hidden,),
            "weight_mix": (hidden, hidden),
            "bias_mix": (hidden,),
            "bias_out": (output,),
        }
        wrong = [name for name, size in sizes.items() if tensors[name].shape != size]
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such neural language model; asr neural-lm makes one") from error
    except (SafetensorError, KeyError, ValueError, IndexError, OSError) as error:
        raise UserError(f"{path}: cannot be read ({error}); copy it again") from error
    if wrong:
        raise UserError(f"{path}: {wrong[0]} has another size than the rest; copy it again")
    return tensors, share
