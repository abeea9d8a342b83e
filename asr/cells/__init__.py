"""Recurrent layers to compare the MGU with, for studies (recipes/cell_study): `encoder.cell` names one.

All have the MGU's interface. `initial_state(batch_size)` is a tensor or a NamedTuple of tensors, each of
them (B, ...); `forward(inputs, state)` takes inputs (B, T, D), T at least 1, and gives outputs (B, T, H) and
the state after them. One chunk or several give the same. The layers begin as the MGU does: Lecun-normal input
weights, orthogonal recurrent weights, a bias of one for the gate that keeps the old state.

Legend, in all of `asr.cells`: `B` batch, `T` time, `D` input features, `H` hidden units.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from asr.cells.conv_gru import ConvGRU
from asr.cells.gru import GRU
from asr.cells.li_gru import LiGRU
from asr.cells.lstm import LSTM, CoupledLSTM
from asr.cells.min_gru import MinGRU
from asr.cells.squashed_gru import SquashedGRU
from asr.cells.variational import Variational
from asr.cells.zoneout import Zoneout
from asr.errors import UserError
from asr.mgu import MGU

CELLS: dict[str, Callable[[int, int], nn.Module]] = {
    "gru": GRU,
    "lstm": LSTM,
    "li_gru": LiGRU,
    "min_gru": MinGRU,
    "squashed_gru": SquashedGRU,
    "coupled_lstm": CoupledLSTM,
    "conv_gru": ConvGRU,
    "zoneout_gru": lambda inputs, hidden: Zoneout(GRU(inputs, hidden)),
    "zoneout_mgu": lambda inputs, hidden: Zoneout(MGU(inputs, hidden)),
    "variational_gru": lambda inputs, hidden: Variational(GRU(inputs, hidden)),
    "variational_mgu": lambda inputs, hidden: Variational(MGU(inputs, hidden)),
}


def make(cell: str, inputs: int, hidden: int) -> nn.Module:
    """Raises UserError for a cell that there is not, and for sizes that it cannot have."""
    if cell not in CELLS:
        raise UserError(f"encoder.cell: {cell!r} is none; there are mgu, {', '.join(CELLS)}")
    return CELLS[cell](inputs, hidden)
