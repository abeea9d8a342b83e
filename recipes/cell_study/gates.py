"""Do a GRU's gates do the same? Update against reset gate of a trained one, on the dev set, layer by layer.

Three correlations (Pearson) a layer: of all values of r and z, units and frames alike; of the means over
units, frame by frame, as Ravanelli et al. 2018 (arXiv 1803.10225) plotted them; and of each unit over the
frames, the mean of these.

N frames, H units.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib import pyplot
from numpy.typing import NDArray
from torch import Tensor

from asr.bundle import load_bundle
from asr.cells.gru import GRU
from asr.model import CtcModel
from recipes.cell_study.corpus import Speech

EVERY = 4  # every so many utterances of the dev set are enough
BINS = 60


class Gates(NamedTuple):
    reset: NDArray[np.float32]  # (N, H)
    update: NDArray[np.float32]  # (N, H)


class Correlation(NamedTuple):
    values: float
    means: float
    units: float


@torch.inference_mode()
def activations(model: CtcModel, speech: Speech) -> list[Gates]:
    """Of each layer of a model with cell gru."""
    layers = [block.mgu for block in model.encoder.blocks]
    found: dict[int, list[tuple[Tensor, Tensor]]] = {place: [] for place in range(len(layers))}

    def keep(layer: GRU, arguments: tuple[Tensor, Tensor], results: tuple[Tensor, Tensor]) -> None:
        (inputs, hidden), (outputs, _) = arguments, results
        before = torch.cat([hidden.unsqueeze(1), outputs[:, :-1]], 1)
        r, z = layer.gates(inputs, before)
        found[layers.index(layer)].append((r[0], z[0]))

    hooks = [layer.register_forward_hook(keep) for layer in layers]
    for start, end in zip(speech.starts[:-1:EVERY], speech.starts[1::EVERY], strict=True):
        features = torch.from_numpy(speech.features[start:end]).float().flatten(0, 1)
        model.encoder(features.unsqueeze(0), model.encoder.initial_state(1))
    for hook in hooks:
        hook.remove()
    return [Gates(*(torch.cat(each).numpy() for each in zip(*own, strict=True))) for own in found.values()]


def correlation(gates: Gates) -> Correlation:
    by_unit = [np.corrcoef(r, z)[0, 1] for r, z in zip(gates.reset.T, gates.update.T, strict=True)]
    pairs = [(gates.reset.ravel(), gates.update.ravel()), (gates.reset.mean(1), gates.update.mean(1))]
    return Correlation(*(float(np.corrcoef(*pair)[0, 1]) for pair in pairs), float(np.mean(by_unit)))


def draw(bundles: Sequence[Path], speech: Speech, picture: Path) -> list[list[Correlation]]:
    """Joint histograms of the first bundle's layers; the correlations of all bundles, layer by layer."""
    found: list[list[Correlation]] = []
    for place, bundle in enumerate(bundles):
        layers = activations(load_bundle(bundle).model, speech)
        found.append([correlation(gates) for gates in layers])
        if place == 0:
            _histograms(layers, found[0], picture)
    return found


def _histograms(layers: Sequence[Gates], correlations: Sequence[Correlation], picture: Path) -> None:
    figure, axes = pyplot.subplots(1, len(layers), figsize=(3.4 * len(layers), 3.6), layout="constrained")
    own: Any
    for number, (own, gates, found) in enumerate(zip(axes, layers, correlations, strict=True), 1):
        counts, _, _ = np.histogram2d(gates.reset.ravel(), gates.update.ravel(), BINS, [[0, 1], [0, 1]])
        own.imshow(np.log10(1 + counts.T), origin="lower", extent=(0, 1, 0, 1), cmap="magma")
        own.set(
            title=f"layer {number}: {found.values:+.2f}, of means {found.means:+.2f}",
            xlabel="reset gate r",
            ylabel="update gate z (keeps)",
        )
    figure.savefig(picture, dpi=110)
    pyplot.close(figure)
