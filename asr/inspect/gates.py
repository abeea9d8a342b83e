"""The gates of recurrent layers, computed from what a layer was given: layers know nothing of this.

T time, D input features, H hidden units.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from asr.cells.gru import GRU
from asr.cells.variational import Variational
from asr.cells.zoneout import Zoneout
from asr.mgu import MGU


class Call(NamedTuple):
    """Of a module (inputs, state) -> (outputs, new state)."""

    inputs: Tensor  # (B, T, ...)
    outputs: Tensor  # (B, T', ...)


@contextmanager
def recorded(modules: Iterable[nn.Module]) -> Iterator[Mapping[nn.Module, Sequence[Call]]]:
    """The calls of each of these modules while the context lasts."""
    calls: dict[nn.Module, list[Call]] = defaultdict(list)

    def keep(module: nn.Module, arguments: tuple[Tensor, Any], results: tuple[Tensor, Any]) -> None:
        calls[module].append(Call(arguments[0], results[0]))

    handles = [module.register_forward_hook(keep) for module in modules]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def gates(layer: nn.Module, inputs: Tensor, before: Tensor) -> dict[str, Tensor]:
    """By name, (..., H) in [0, 1] each; none of a layer whose gates are not known here.

    inputs (..., D); before (..., H): what the layer put out in the step before.
    """
    if isinstance(layer, MGU):
        size = layer.hidden
        projection = inputs @ layer.weight_ih[:size].T + layer.bias[:size]
        return {"f": torch.sigmoid(projection + before @ layer.weight_hh[:size].T)}
    if isinstance(layer, GRU):
        return dict(zip("rz", layer.gates(inputs, before), strict=True))
    if isinstance(layer, Variational | Zoneout):
        return gates(layer.layer, inputs, before)
    return {}
