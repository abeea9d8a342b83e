"""Golden vectors for the MGU from Flax itself: writes mgu.json beside this file.

Flax is no dependency of ours. Run this once, in an environment to throw away:

    python -m venv /tmp/flax && /tmp/flax/bin/pip install jax flax
    /tmp/flax/bin/python tests/golden/make_mgu.py

The parameters, biases included, and the first state are random: with zeros or ones a shift in time, or two
swapped gates, would go unseen. The tree is written as Flax names it.
"""

import json
from pathlib import Path
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen

BATCH, TIME, FEATURES, HIDDEN = 2, 6, 3, 5


def rounded(array: Any) -> list[Any]:
    """Nested lists of float32 values, each written with the digits that give it back exactly."""
    return np.asarray(array, np.float32).tolist()  # type: ignore[no-any-return]


def case(reset_gate: bool, seed: int) -> dict[str, Any]:
    keys = iter(jax.random.split(jax.random.PRNGKey(seed), 64))
    inputs = jax.random.normal(next(keys), (BATCH, TIME, FEATURES))
    hidden = jax.random.normal(next(keys), (BATCH, HIDDEN))
    cell = linen.MGUCell(HIDDEN, reset_gate=reset_gate)
    params = cell.init(next(keys), hidden, inputs[:, 0])["params"]
    params = jax.tree.map(lambda leaf: 0.7 * jax.random.normal(next(keys), leaf.shape), params)
    carry, outputs = hidden, []
    for step in range(TIME):
        carry, output = cell.apply({"params": params}, carry, inputs[:, step])
        outputs.append(output)
    return {
        "reset_gate": reset_gate,
        "params": jax.tree.map(rounded, params),
        "inputs": rounded(inputs),
        "hidden": rounded(hidden),
        "outputs": rounded(jnp.stack(outputs, 1)),
        "final": rounded(carry),
    }


if __name__ == "__main__":
    jax.config.update("jax_default_matmul_precision", "highest")
    made = {"flax": flax.__version__, "jax": jax.__version__, "cases": [case(True, 1), case(False, 2)]}
    Path(__file__).with_name("mgu.json").write_text(json.dumps(made) + "\n")
