"""Weights of an MGU to and from the parameter tree of Flax's MGUCell. No Flax needed: trees are nested dicts.

| Flax                        | ours                                  |
|-----------------------------|---------------------------------------|
| `if`, `in`: kernel (D, H)   | `weight_ih` (2H, D), rows f, then n   |
| `if`, `in`: bias (H,)       | `bias` (2H,)                          |
| `hf`, `hn`: kernel (H, H)   | `weight_hh` (2H, H)                   |
| `hn`: bias, with reset gate | `bias_hn` (H,)                        |

Flax's kernels multiply from the right, torch's weights from the left, hence the transpositions.

    mgu.load_state_dict(from_flax(variables["params"]["cell"]))
    params = to_flax(mgu.state_dict())
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from asr.errors import UserError

Tree = Mapping[str, Mapping[str, Any]]


def from_flax(tree: Tree) -> dict[str, Tensor]:
    """State dict of `asr.mgu.MGU` from the parameters of an `MGUCell`; no `bias_hn` if it has no reset gate.

    Raises `UserError` when the tree is not that of an `MGUCell`.
    """
    try:
        state = {
            "weight_ih": torch.cat([_tensor(tree[gate]["kernel"]).T for gate in ("if", "in")]),
            "weight_hh": torch.cat([_tensor(tree[gate]["kernel"]).T for gate in ("hf", "hn")]),
            "bias": torch.cat([_tensor(tree[gate]["bias"]) for gate in ("if", "in")]),
        }
    except KeyError as error:
        found = ", ".join(sorted(tree))
        raise UserError(
            f"no MGUCell of Flax: {error} is missing, among {found}; give the cell's own tree"
        ) from None
    if "bias" in tree["hn"]:
        state["bias_hn"] = _tensor(tree["hn"]["bias"])
    return state


def to_flax(state: Mapping[str, Tensor]) -> dict[str, dict[str, np.ndarray]]:
    """Parameters of an `MGUCell` from the state dict of `asr.mgu.MGU`; `bias_hn` there means a reset gate."""
    tree: dict[str, dict[str, np.ndarray]] = {}
    for gate, kernel in zip(("if", "in"), state["weight_ih"].chunk(2), strict=True):
        tree[gate] = {"kernel": _array(kernel.T)}
    for gate, bias in zip(("if", "in"), state["bias"].chunk(2), strict=True):
        tree[gate]["bias"] = _array(bias)
    for gate, kernel in zip(("hf", "hn"), state["weight_hh"].chunk(2), strict=True):
        tree[gate] = {"kernel": _array(kernel.T)}
    if "bias_hn" in state:
        tree["hn"]["bias"] = _array(state["bias_hn"])
    return tree


def _tensor(leaf: Any) -> Tensor:
    return torch.from_numpy(np.array(leaf, np.float32))  # a copy: arrays of jax are read-only


def _array(tensor: Tensor) -> np.ndarray:
    return np.array(tensor.detach().cpu())  # a copy: a view would change with the layer
