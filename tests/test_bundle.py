from __future__ import annotations

from pathlib import Path

import pytest
import torch

from asr.bundle import load_bundle, save_bundle
from asr.errors import UserError
from asr.model import CtcModel
from asr.text import Tokenizer, train_tokenizer
from tests.conftest import SENTENCES


def test_a_bundle_gives_the_same_model_back(model: CtcModel, tokenizer: Tokenizer, tmp_path: Path) -> None:
    save_bundle(tmp_path, model, tokenizer)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.yaml",
        "model.safetensors",
        "tokenizer.model",
    ]
    loaded, same = load_bundle(tmp_path)
    assert loaded.config == model.config and same.model == tokenizer.model
    audio, lengths = torch.randn(1, 8000), torch.tensor([8000])
    assert torch.equal(loaded.offline(audio, lengths)[0], model.offline(audio, lengths)[0])


def test_a_tokenizer_of_another_vocabulary_is_named(
    model: CtcModel, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    save_bundle(tmp_path, model, tokenizer)
    train_tokenizer(SENTENCES, tmp_path / "tokenizer.model", vocabulary=45)
    with pytest.raises(UserError, match=r"40 tokens, tokenizer\.model has 45"):
        load_bundle(tmp_path)


@pytest.mark.parametrize("name", ["config.yaml", "model.safetensors", "tokenizer.model"])
def test_a_missing_or_broken_file_is_named(
    model: CtcModel, tokenizer: Tokenizer, tmp_path: Path, name: str
) -> None:
    save_bundle(tmp_path, model, tokenizer)
    (tmp_path / name).write_bytes(b"\x93 broken: [")
    with pytest.raises(UserError, match=name) as error:
        load_bundle(tmp_path)
    assert "\n" not in str(error.value)
    (tmp_path / name).unlink()
    with pytest.raises(UserError, match=f"{name} is missing"):
        load_bundle(tmp_path)


def test_a_misspelt_key_is_named(model: CtcModel, tokenizer: Tokenizer, tmp_path: Path) -> None:
    save_bundle(tmp_path, model, tokenizer)
    config = tmp_path / "config.yaml"
    config.write_text(config.read_text().replace("reset_gate", "reset_gait"))
    with pytest.raises(UserError, match="reset_gait"):
        load_bundle(tmp_path)
