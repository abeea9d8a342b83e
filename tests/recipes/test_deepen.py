"""recipes.en_small.deepen: more blocks, the same words."""

from pathlib import Path

import pytest
import torch

from asr.bundle import load_bundle
from asr.errors import UserError
from asr.model import CtcModel
from recipes.en_small import deepen
from tests.conftest import ENCODERS, signal, tiny_model


@pytest.mark.parametrize(
    "encoder", ["4x, lookahead", "8x, projection, GTU", "two outputs a frame, lookahead"]
)
def test_a_deeper_model_says_the_same_and_can_learn_to_say_other_things(encoder: str) -> None:
    model = tiny_model(ENCODERS[encoder], 20, 2)
    deeper = deepen.deepen(model, [1, 2])
    blocks = len(model.encoder.blocks)
    assert len(deeper.encoder.blocks) == blocks + 2
    assert deeper.latency_ms == model.latency_ms
    audio = torch.from_numpy(signal(1.0, seed=0))[None]
    before, after = (each.offline(audio, torch.tensor([audio.size(1)]))[0] for each in (model, deeper))
    torch.testing.assert_close(after, before, rtol=0, atol=1e-5)
    after.square().sum().backward()
    new = deeper.encoder.blocks[1].mgu
    assert new.weight_ih.grad is not None and new.weight_ih.grad.abs().max() > 0


@pytest.mark.parametrize("behind", [[0], [4], [1, 9], [2, 2]])
def test_blocks_that_are_not_there_are_refused(behind: list[int]) -> None:
    with pytest.raises(UserError, match="the model has no such blocks"):
        deepen.deepen(tiny_model(ENCODERS["4x, lookahead"], 20), behind)


def test_a_bundle_keeps_all_else(bundle: Path, tmp_path: Path) -> None:
    assert deepen.main([str(bundle), "--behind", "1", "--output", str(tmp_path / "deeper")]) == 0
    before, after = load_bundle(bundle), load_bundle(tmp_path / "deeper")
    assert isinstance(after.model, CtcModel)
    assert len(after.model.encoder.blocks) == len(before.model.encoder.blocks) + 1
    assert (after.tokenizer.pieces, after.decoding) == (before.tokenizer.pieces, before.decoding)
