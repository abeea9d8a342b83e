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
from torch.nn.functional import pad

from asr.bundle import load_bundle
from asr.cells.gru import GRU
from asr.inspect.gates import recorded
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
    layers: list[GRU] = [block.mgu for block in model.encoder.blocks]
    with recorded(layers) as calls:
        for start, end in zip(speech.starts[:-1:EVERY], speech.starts[1::EVERY], strict=True):
            features = torch.from_numpy(speech.features[start:end]).float().flatten(0, 1)
            model.encoder(features.unsqueeze(0), model.encoder.initial_state(1))
    found = []
    for layer in layers:
        # each call is an utterance from its beginning, before which the state is zero
        own = [layer.gates(inputs, pad(outputs[:, :-1], (0, 0, 1, 0))) for inputs, outputs in calls[layer]]
        found.append(Gates(*(torch.cat(each, 1)[0].numpy() for each in zip(*own, strict=True))))
    return found


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
