from __future__ import annotations

import torch

from asr.encoder import BlockState, EncoderState
from asr.state import map_state, pack, rows, together, unpack


def state(batch: int) -> EncoderState:
    return EncoderState(
        (torch.randn(batch, 3, 2), torch.randn(batch, 3, 4)),
        (BlockState(torch.randn(batch, 0, 4), torch.randn(batch, 5)),),
    )


def leaves(tree: EncoderState) -> list[torch.Tensor]:
    return [*tree.convolutions, *(leaf for block in tree.blocks for leaf in block)]


def test_a_packed_state_comes_back_whole_and_its_rows_are_its_streams() -> None:
    whole = state(3)
    packed = pack(whole)
    back = unpack(packed, state(1))
    assert isinstance(back.blocks[0], BlockState)
    assert all(map(torch.equal, leaves(back), leaves(whole)))
    kept = rows(packed)
    assert torch.equal(together(kept), packed)
    assert torch.equal(together(rows(packed[:1])), packed[:1])
    packed.zero_()
    for index, row in enumerate(kept):
        alone = map_state(lambda leaf: leaf[index : index + 1], whole)  # noqa: B023
        assert all(map(torch.equal, leaves(unpack(row, state(1))), leaves(alone)))
