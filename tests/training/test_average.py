"""The mean of models: what is in it, and what has none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from asr.bundle import Bundle, load_bundle, save_bundle
from asr.cli import dispatch
from asr.errors import UserError
from asr.text import Tokenizer
from asr.training.average import main
from asr.training.identity import identity
from tests.conftest import ENCODERS, tiny_model


def other(directory: Path, tokenizer: Tokenizer, encoder: str = "4x, lookahead") -> dict[str, Tensor]:
    model = tiny_model(ENCODERS[encoder], tokenizer.vocabulary)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    save_bundle(directory, Bundle(model, tokenizer))
    return model.state_dict()


def checkpoint(path: Path, tokenizer: Tokenizer) -> dict[str, Tensor]:
    weights = other(path.with_suffix(".bundle"), tokenizer)
    model = load_bundle(path.with_suffix(".bundle")).model
    named = {f"model.{name}": 2 * value for name, value in weights.items()}
    torch.save({"state_dict": named, "identity": identity(model, tokenizer)}, path)
    return {name: 2 * value for name, value in weights.items()}


def test_the_mean_is_of_bundles_and_checkpoints_by_their_shares(
    bundle: Path, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    first = load_bundle(bundle).model.state_dict()
    second, third = other(tmp_path / "b", tokenizer), checkpoint(tmp_path / "c.ckpt", tokenizer)
    models, output = [str(bundle), str(tmp_path / "b"), str(tmp_path / "c.ckpt")], tmp_path / "mean"
    assert dispatch(["average", *models, "--shares", "2", "1", "1", "--output", str(output)]) == 0
    found = load_bundle(output)
    assert found.tokenizer.model == tokenizer.model
    for name, value in found.model.state_dict().items():
        torch.testing.assert_close(value, 0.5 * first[name] + 0.25 * second[name] + 0.25 * third[name])


def test_without_shares_all_have_the_same(bundle: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    second = other(tmp_path / "b", tokenizer)
    assert main([str(bundle), str(tmp_path / "b"), "--output", str(tmp_path / "mean")]) == 0
    first, found = (load_bundle(path).model.state_dict() for path in (bundle, tmp_path / "mean"))
    for name, value in found.items():
        torch.testing.assert_close(value, (first[name] + second[name]) / 2)


@pytest.mark.parametrize("shares", [["1"], ["1", "0"], ["1", "-1"], ["1", "inf"], ["1", "1", "1"]])
def test_shares_that_make_no_mean_are_refused(
    shares: list[str], bundle: Path, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    other(tmp_path / "b", tokenizer)
    with pytest.raises(UserError, match="--shares: give 2 numbers above 0"):
        main([str(bundle), str(tmp_path / "b"), "--shares", *shares, "--output", str(tmp_path / "mean")])


def test_models_of_other_sizes_and_no_models_are_named(
    bundle: Path, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    other(tmp_path / "b", tokenizer, "no lookahead, no reset gate, ReLU")
    (tmp_path / "c.ckpt").write_bytes(b"none")
    output = ["--output", str(tmp_path / "mean")]
    with pytest.raises(
        UserError, match=r"b: its model\.encoder\.\w+ is .*a mean is of models of the same sizes"
    ):
        main([str(bundle), str(tmp_path / "b"), *output])
    with pytest.raises(UserError, match=r"c\.ckpt: no checkpoint, or a damaged one; give a checkpoint that"):
        main([str(bundle), str(tmp_path / "c.ckpt"), *output])
    with pytest.raises(UserError, match="is MODEL itself"):
        main([str(bundle), str(tmp_path / "b"), "--output", str(bundle)])
