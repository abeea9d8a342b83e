"""Who competes: encoders that differ in one thing, and have as many parameters as the first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import torch

from asr.cells.conv_gru import BANDS
from asr.encoder import Encoder, EncoderConfig
from asr.frontend import FrontEndConfig

OUTPUTS = 2  # frames of 20 ms a step of 40
REFERENCE = EncoderConfig(
    channels=(64, 128), width=128, hidden=176, lookahead=(1, 1, 2), dropout=0.0, reset_gate=True
)
SUBSAMPLING, LOOKAHEAD = 2 ** len(REFERENCE.channels), sum(REFERENCE.lookahead)

CELLS = [
    "mgu",
    "mgu_no_reset",
    "gru",
    "lstm",
    "li_gru",
    "min_gru",
    "squashed_gru",
    "coupled_lstm",
    "conv_gru",
    "zoneout_gru",
    "zoneout_mgu",
    "variational_gru",
    "variational_mgu",
]
GATES = ["gtu", "relu", "tanh"]  # of the convolutions, before the MGU; the first of CELLS has glu
NAMES = {
    "mgu": "MGU",
    "mgu_no_reset": "MGU without reset gate",
    "gru": "GRU",
    "lstm": "LSTM",
    "li_gru": "Li-GRU",
    "min_gru": "minGRU",
    "squashed_gru": "squashed GRU",
    "coupled_lstm": "coupled LSTM",
    "conv_gru": "ConvGRU",
    "zoneout_gru": "GRU, zoneout",
    "zoneout_mgu": "MGU, zoneout",
    "variational_gru": "GRU, variational",
    "variational_mgu": "MGU, variational",
    "gtu": "GTU",
    "relu": "ReLU",
    "tanh": "tanh",
}


@cache
def encoder(name: str) -> EncoderConfig:
    """The contender's, as near to the reference in parameters as its sizes allow."""
    if name == "mgu":
        return REFERENCE
    if name in GATES:
        return fit(lambda size: replace(REFERENCE, gate=name, channels=(size, 2 * size)))  # type: ignore[arg-type]
    if name == "mgu_no_reset":
        return fit(lambda size: replace(REFERENCE, reset_gate=False, hidden=size))
    if name == "conv_gru":
        return fit(lambda size: replace(REFERENCE, cell=name, hidden=BANDS * size))
    return fit(lambda size: replace(REFERENCE, cell=name, hidden=size))


def parameters(config: EncoderConfig) -> int:
    with torch.device("meta"):  # sizes without numbers
        encoder = Encoder(config, FrontEndConfig().mels)
    return sum(each.numel() for each in encoder.parameters())


def fit(sized: Callable[[int], EncoderConfig]) -> EncoderConfig:
    """The size whose parameters, which grow with it, are nearest to the reference's."""
    wanted = parameters(REFERENCE)
    low, high = 1, 2
    while parameters(sized(high)) < wanted:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if parameters(sized(middle)) < wanted else (low, middle)
    return min(sized(low), sized(high), key=lambda config: abs(parameters(config) - wanted))
