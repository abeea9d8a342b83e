"""Weights exchanged with Flax's MGUCell, and its own outputs (golden/make_mgu.py) met by every back-end."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from asr.errors import UserError
from asr.flax import from_flax, to_flax
from asr.mgu import MGU
from asr.ops import Backend, cpu

CASES = json.loads((Path(__file__).parent / "golden" / "mgu.json").read_text())["cases"]
BACKENDS: list[Backend] = ["reference", "bptt", "tied_gru", "cpu", "triton", "auto"]


@pytest.fixture(params=CASES, ids=lambda case: "reset_gate" if case["reset_gate"] else "no_reset_gate")
def case(request: pytest.FixtureRequest) -> dict[str, Any]:
    return request.param


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_back_end_gives_the_outputs_of_flax(case: dict[str, Any], backend: Backend) -> None:
    if backend == "cpu" and not cpu.is_available():
        pytest.skip(f"no C operator: {cpu.library()}")
    if backend == "triton":
        pytest.importorskip("triton", reason="torch brings Triton with CUDA, on Linux")
    inputs, hidden, outputs, final = (
        torch.tensor(case[key]) for key in ("inputs", "hidden", "outputs", "final")
    )
    layer = MGU(inputs.shape[2], hidden.shape[1], reset_gate=case["reset_gate"], backend=backend)
    layer.load_state_dict(from_flax(case["params"]))
    with torch.no_grad():
        ours, last = layer(inputs, hidden)
    torch.testing.assert_close(ours, outputs, atol=1e-5, rtol=0)
    torch.testing.assert_close(last, final, atol=1e-5, rtol=0)


def test_a_tree_of_flax_survives_the_way_there_and_back(case: dict[str, Any]) -> None:
    tree = to_flax(from_flax(case["params"]))
    assert {name: set(leaves) for name, leaves in tree.items()} == {
        name: set(leaves) for name, leaves in case["params"].items()
    }
    for name, leaves in case["params"].items():
        for kind, leaf in leaves.items():
            np.testing.assert_array_equal(tree[name][kind], np.array(leaf, np.float32))


@pytest.mark.parametrize("reset_gate", [True, False])
def test_a_layer_survives_the_way_through_flax(reset_gate: bool) -> None:
    layer = MGU(3, 5, reset_gate=reset_gate)
    state = from_flax(to_flax(layer.state_dict()))
    assert set(state) == set(layer.state_dict())
    for name, tensor in layer.state_dict().items():
        torch.testing.assert_close(state[name], tensor, atol=0, rtol=0)


def test_another_tree_is_refused_by_the_name_of_what_is_missing() -> None:
    with pytest.raises(UserError, match="'if' is missing"):
        from_flax({"dense": {"kernel": np.zeros((2, 2))}})
