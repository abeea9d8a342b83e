from __future__ import annotations

import torch

from asr.encoder import BlockState, EncoderState
from asr.state import gather, scatter, stack


def state(batch: int) -> EncoderState:
    return EncoderState(
        (torch.randn(batch, 3, 2), torch.randn(batch, 3, 4)),
        (BlockState(torch.randn(batch, 0, 4), torch.randn(batch, 5)),),
    )


def leaves(tree: EncoderState) -> list[torch.Tensor]:
    return [*tree.convolutions, *(leaf for block in tree.blocks for leaf in block)]


def test_what_is_scattered_is_gathered_and_the_rest_stays() -> None:
    whole, part = state(5), state(2)
    changed = scatter(whole, [4, 1], part)
    for leaf, old, new in zip(leaves(changed), leaves(whole), leaves(part), strict=True):
        assert torch.equal(leaf[[4, 1]], new)
        assert torch.equal(leaf[[0, 2, 3]], old[[0, 2, 3]])
    assert all(map(torch.equal, leaves(gather(changed, [4, 1])), leaves(part)))


def test_a_stack_is_its_streams_in_order() -> None:
    streams = [state(1), state(2)]
    stacked = stack(streams)
    assert isinstance(stacked, EncoderState)
    assert isinstance(stacked.blocks[0], BlockState)
    assert all(map(torch.equal, leaves(gather(stacked, [1, 2])), leaves(streams[1])))
