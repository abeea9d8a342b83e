"""The picture of an inspection: panels over one axis of time, from the sound below to the words on top.

matplotlib is an extra. T frames, R rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure  # needs no display, and changes no global state
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patheffects import withStroke

from asr.data.phones import phone_log_probs
from asr.inspect.listen import Array, Inspection
from asr.lexicon import PhoneTokenizer
from asr.phones import INDEX, PHONES
from asr.text import BLANK, Tokenizer

# Neighbours are alike: vowels from the front of the mouth to its back, then consonants from open to closed.
ORDER = "IY IH EY EH AE AH AA AO OW UH UW ER AY AW OY Y W R L M N NG DH V Z ZH TH F S SH HH JH CH B D G P T K"
SHOWN = 0.1  # a token whose posterior is nowhere higher has no row
AGAIN = 0.15  # seconds until a token on the best path is named again
RANGE = 60.0  # dB below the loudest that have a colour
INCHES, LEAST = 1.4, 6.0  # a second has so many, and a part is as wide as so many seconds at least
INK = (0.03, 0.19, 0.42)  # of posteriors, the more opaque the likelier


class Posteriors(NamedTuple):
    """The tokens that matter, each with a name, and the blank."""

    names: list[str]
    rows: Array  # (R, T), the first on top
    blank: Array  # (T,)


class Scale(NamedTuple):
    """Of the heat maps of all layers."""

    low: float
    high: float
    colours: str
    label: str


def draw(
    path: Path,
    inspection: Inspection,
    tokenizer: Tokenizer | PhoneTokenizer,
    layers: Sequence[int],
    title: str,
) -> None:
    """Write the picture, in the format of the path's suffix. layers: which of them, the lowest is 1."""
    tokens = posteriors(inspection.log_probs, tokenizer)
    maps = {}
    for number in sorted(set(layers), reverse=True):
        layer = inspection.layers[number - 1]
        for name, values in layer.gates.items() or [("", layer.outputs)]:
            maps[f"layer {number}\n{name}"] = values
    heights = [0.5, max(1.3, 0.5 + 0.11 * len(tokens.names)), *[1.0] * len(maps), 1.5]
    width = INCHES * max(LEAST, inspection.end - inspection.start)
    layout = ConstrainedLayoutEngine(h_pad=0.03, hspace=0)
    figure = Figure(figsize=(width + 2, sum(heights) + 1), layout=layout)
    figure.suptitle(title, fontsize=11)
    axes = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
    top, heat, *middle, bottom = axes
    _words(top, inspection, width)
    _tokens(heat, inspection, tokens)
    _units(middle, inspection, maps)
    _spectrogram(bottom, inspection)
    bottom.set(xlim=(inspection.start, inspection.end), xlabel="seconds")
    for panel in axes[1:]:
        for word in inspection.words:
            panel.axvline(word.start, color="0.6", linewidth=0.5)
    figure.savefig(path, dpi=110)


def posteriors(log_probs: Array, tokenizer: Tokenizer | PhoneTokenizer) -> Posteriors:
    """Of (T, V): both tokens of a phone together, alike phones as neighbours; text in order of appearance."""
    if isinstance(tokenizer, PhoneTokenizer):
        names, order = list(PHONES), [INDEX[phone] for phone in ORDER.split()]
        probabilities = phone_log_probs(torch.from_numpy(log_probs)).exp().numpy()
    else:
        names, probabilities = tokenizer.pieces, np.exp(log_probs)
        order = np.argmax(probabilities >= SHOWN, 0).argsort(kind="stable").tolist()
    peaks = probabilities.max(0)
    least = min(SHOWN, np.delete(peaks, BLANK).max())  # of silence, one row
    shown = [token for token in order if token != BLANK and peaks[token] >= least]
    return Posteriors([names[token] for token in shown], probabilities[:, shown].T, probabilities[:, BLANK])


def _words(axes: Any, inspection: Inspection, width: float) -> None:
    """Spans coloured by confidence, which stands below each word. width: of the panel in inches, about."""
    points = 72 * width / (inspection.end - inspection.start)  # a second
    axes.axis("off")
    axes.set_ylim(0, 1)
    for word in inspection.words:
        start, end = max(word.start, inspection.start), min(word.end, inspection.end)
        colour = 0.45 + 0.55 * np.array(colormaps["RdYlGn"](word.confidence)[:3])
        axes.barh(0.5, end - start, 1, start, color=colour, edgecolor="white", linewidth=1)
        fitting = points * (end - start) / (0.6 * len(word.text))  # a letter is 0.6 of its size wide
        middle = (start + end) / 2
        axes.text(middle, 0.62, word.text, fontsize=min(max(5, fitting), 11), ha="center", va="center")
        axes.text(middle, 0.2, f"{word.confidence:.2f}", fontsize=6, ha="center", va="center", color="0.35")


def _tokens(axes: Any, inspection: Inspection, tokens: Posteriors) -> None:
    """Posteriors as a heat map on a ground that is grey where the blank is likely; the best path is named."""
    rows, frames = tokens.rows.shape
    end = inspection.start + frames * inspection.frame
    extent = (inspection.start, end, rows - 0.5, -0.5)
    options = {"aspect": "auto", "interpolation": "nearest", "extent": extent}
    axes.imshow(tokens.blank[None], cmap="Greys", vmin=0, vmax=8, **options)
    ink = np.broadcast_to(INK, (rows, frames, 3))
    axes.imshow(np.concatenate([ink, tokens.rows[..., None]], -1), **options)
    best = np.where(tokens.rows.max(0) > tokens.blank, tokens.rows.argmax(0), -1)
    time, named = inspection.start, dict.fromkeys(range(rows), -np.inf)
    for token, run in groupby(best):
        time += inspection.frame * len(list(run))
        if token >= 0 and time > named[token] + AGAIN:
            axes.text(time, token, f" {tokens.names[token]}", fontsize=6.5, va="center", clip_on=True)
            named[token] = time
    axes.set_yticks(range(rows), tokens.names, fontsize=6)
    axes.set_ylabel("CTC posteriors", fontsize=9)


def _units(panels: Sequence[Any], inspection: Inspection, maps: dict[str, Array]) -> None:
    """Units sorted by their mean, and the mean over units as a line on the axis of values."""
    layers = inspection.layers
    if layers[0].gates:
        scale = Scale(0, 1, "viridis", "gates")
    else:
        most = max(float(np.abs(layer.outputs).max()) for layer in layers)
        scale = Scale(-most, most, "RdBu_r", f"hidden states of {layers[0].cell}, whose gates are not known")
    for axes, (name, values) in zip(panels, maps.items(), strict=True):
        end = inspection.start + len(values) * inspection.step
        image = axes.imshow(
            values[:, values.mean(0).argsort()].T,
            cmap=scale.colours,
            vmin=scale.low,
            vmax=scale.high,
            aspect="auto",
            origin="lower",
            extent=(inspection.start, end, scale.low, scale.high),
        )
        times = inspection.start + inspection.step * (np.arange(len(values)) + 0.5)
        halo = [withStroke(linewidth=2.5, foreground="black")]
        axes.plot(times, values.mean(1), color="white", linewidth=1.2, path_effects=halo)
        axes.set_ylabel(name, fontsize=9)
    panels[0].set_title(
        f"{scale.label}: a row a unit, sorted by mean; the line is their mean", fontsize=8, loc="left", pad=3
    )
    axes.figure.colorbar(image, ax=panels, pad=0.01, fraction=0.02, aspect=15 * len(panels))


def _spectrogram(axes: Any, inspection: Inspection) -> None:
    power = 10 / np.log(10) * inspection.log_mel.T  # dB
    end = inspection.start + inspection.step * len(inspection.layers[0].outputs)
    extent = (inspection.start, end, -0.5, len(power) - 0.5)
    image = axes.imshow(
        power - power.max(), cmap="magma", vmin=-RANGE, vmax=0, aspect="auto", origin="lower", extent=extent
    )
    ticks = [250, 500, 1000, 2000, 4000]
    axes.set_yticks(np.interp(ticks, inspection.bands, range(len(power))), ticks, fontsize=8)
    axes.set_ylabel("log-mel\nHz", fontsize=9)
    axes.figure.colorbar(image, ax=axes, pad=0.01, fraction=0.02, label="dB")
