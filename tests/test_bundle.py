from __future__ import annotations

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from asr.bundle import Bundle, load_bundle, open_language_model, save_bundle
from asr.decoding.config import DecodingConfig
from asr.decoding.language_model import SPECIAL, LanguageModel
from asr.decoding_options import choose_language_model
from asr.errors import UserError
from asr.model import CtcModel
from asr.neural_lm.network import Network
from asr.text import Tokenizer, train_tokenizer
from tests.conftest import SENTENCES


@pytest.fixture
def whole(model: CtcModel, tokenizer: Tokenizer, tmp_path: Path) -> Bundle:
    """A bundle that is saved in tmp_path."""
    whole = Bundle(model, tokenizer, DecodingConfig(beam=3, temperature=1.5))
    save_bundle(tmp_path, whole)
    return whole


def test_a_bundle_gives_the_same_model_back(whole: Bundle, tmp_path: Path) -> None:
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.yaml",
        "decoding.yaml",
        "model.safetensors",
        "tokenizer.model",
    ]
    loaded = load_bundle(tmp_path)
    assert loaded.model.config == whole.model.config and loaded.tokenizer.model == whole.tokenizer.model
    assert loaded.decoding == whole.decoding
    audio, lengths = torch.randn(1, 8000), torch.tensor([8000])
    assert torch.equal(loaded.model.offline(audio, lengths)[0], whole.model.offline(audio, lengths)[0])


def test_a_config_that_does_not_say_how_many_outputs_has_one(bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path, dirs_exist_ok=True)
    config = tmp_path / "config.yaml"
    assert "outputs: 1\n" in config.read_text()
    config.write_text(config.read_text().replace("outputs: 1\n", ""))
    assert load_bundle(tmp_path).model.config.outputs == 1


def test_a_compact_bundle_has_each_row_of_weights_to_half_a_step_of_254(
    whole: Bundle, tmp_path: Path
) -> None:
    dead = whole.model.encoder.blocks[0].lookahead.weight
    torch.nn.init.zeros_(dead)
    save_bundle(tmp_path, replace(whole, compact=True))
    found = load_bundle(tmp_path).model.state_dict()
    for name, tensor in whole.model.state_dict().items():
        if tensor.dim() > 1:
            rows, largest = tensor.flatten(1), tensor.flatten(1).abs().amax(1, keepdim=True)
            assert ((found[name].flatten(1) - rows).abs() <= largest / 254 * 1.1).all(), name
        else:
            torch.testing.assert_close(found[name], tensor, atol=1e-3, rtol=1e-3)


def test_a_compact_bundle_stays_as_it_is_when_something_else_is_saved(whole: Bundle, tmp_path: Path) -> None:
    save_bundle(tmp_path, replace(whole, compact=True))
    small = (tmp_path / "model.safetensors").read_bytes()
    save_bundle(tmp_path, replace(load_bundle(tmp_path), decoding=DecodingConfig(beam=2)))
    assert (tmp_path / "model.safetensors").read_bytes() == small


def test_weights_of_float16_can_be_read(whole: Bundle, tmp_path: Path) -> None:
    halves = {name: tensor.half() for name, tensor in whole.model.state_dict().items()}
    save_file(halves, tmp_path / "model.safetensors")
    loaded = load_bundle(tmp_path)
    assert all(
        torch.equal(loaded.model.state_dict()[name], tensor.float()) for name, tensor in halves.items()
    )


def test_others_may_read_all_of_it(whole: Bundle, tmp_path: Path) -> None:
    assert [path.name for path in tmp_path.iterdir() if not path.stat().st_mode & 0o044] == []


def test_a_bundle_without_decoding_settings_has_the_defaults(whole: Bundle, tmp_path: Path) -> None:
    (tmp_path / "decoding.yaml").unlink()
    loaded = load_bundle(tmp_path)
    assert (loaded.decoding, loaded.language_model) == (DecodingConfig(), None)


def test_a_setting_left_out_has_its_default(whole: Bundle, tmp_path: Path) -> None:
    (tmp_path / "decoding.yaml").write_text("beam: 5\nstart_offset: 0\n")
    assert load_bundle(tmp_path).decoding == DecodingConfig(beam=5)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("beem: 8", "unknown key 'beem'"),
        ("beam: many", "beam has to be a whole number"),
        ("beam: 2.5", "beam has to be a whole number"),
        ("lm_weight: true", "lm_weight has to be a number"),
        ("[8]", "key and value"),
        ("beam: [", "not a decoding configuration"),
        ("", "key and value"),
    ],
)
def test_a_wrong_decoding_setting_is_one_line(whole: Bundle, tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "decoding.yaml").write_text(text)
    with pytest.raises(UserError, match=reason) as error:
        load_bundle(tmp_path)
    assert str(error.value).startswith(f"{tmp_path}/decoding.yaml: ") and "\n" not in str(error.value)


def test_saving_again_replaces_the_settings(whole: Bundle, tmp_path: Path) -> None:
    save_bundle(tmp_path, replace(whole, decoding=DecodingConfig(beam=2)))
    assert load_bundle(tmp_path).decoding.beam == 2


def test_a_tokenizer_of_another_vocabulary_is_named(whole: Bundle, tmp_path: Path) -> None:
    train_tokenizer(SENTENCES, tmp_path / "tokenizer.model", vocabulary=45)
    with pytest.raises(UserError, match=r"40 tokens, tokenizer\.model has 45"):
        load_bundle(tmp_path)


@pytest.mark.parametrize("name", ["config.yaml", "model.safetensors", "tokenizer.model"])
def test_a_missing_or_broken_file_is_named(whole: Bundle, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x93 broken: [")
    with pytest.raises(UserError, match=name) as error:
        load_bundle(tmp_path)
    assert "\n" not in str(error.value)
    (tmp_path / name).unlink()
    with pytest.raises(UserError, match=f"{name} is missing"):
        load_bundle(tmp_path)


def test_a_misspelt_key_is_named(whole: Bundle, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(config.read_text().replace("reset_gate", "reset_gait"))
    with pytest.raises(UserError, match="reset_gait"):
        load_bundle(tmp_path)


ARPA = """\\data\\
ngram 1=4

\\1-grams:
-1.0\t<unk>
-99\t<s>
-0.5\t</s>
-0.6\tfox

\\end\\
"""


def test_a_language_model_is_saved_with_the_bundle_and_taken_out_again(whole: Bundle, tmp_path: Path) -> None:
    (tmp_path / "fox.arpa").write_text(ARPA)
    with_model = replace(whole, language_model=LanguageModel.open(tmp_path / "fox.arpa"))
    save_bundle(tmp_path, with_model)
    (tmp_path / "fox.arpa").unlink()
    loaded = load_bundle(tmp_path)
    assert loaded.language_model is not None
    assert loaded.language_model.perplexity(["fox"]).unknown == 0
    save_bundle(tmp_path, loaded)  # onto itself
    assert load_bundle(tmp_path).language_model is not None
    save_bundle(tmp_path, whole)
    assert load_bundle(tmp_path).language_model is None


def test_a_neural_language_model_goes_with_the_n_grams_and_without_it_they_are_alone(
    whole: Bundle, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "fox.arpa").write_text(ARPA)
    network = Network(len(SPECIAL) + 1, embedding=4, hidden=8, projection=4)
    network.export(("fox",), 0.5).save(elsewhere / "fox.safetensors")
    ngrams = open_language_model(elsewhere / "fox.arpa")
    mixed = open_language_model(elsewhere / "fox.arpa", elsewhere / "fox.safetensors")
    save_bundle(tmp_path, replace(whole, language_model=mixed))
    shutil.rmtree(elsewhere)
    loaded = load_bundle(tmp_path)
    chosen = partial(choose_language_model, loaded)

    def scores(model: LanguageModel | None) -> list[float]:
        assert model is not None
        return model.scores("fox")

    assert scores(loaded.language_model) == scores(mixed) != scores(ngrams)
    assert chosen(None, None) is loaded.language_model
    assert scores(chosen(None, "none")) == scores(ngrams)
    assert scores(chosen(str(tmp_path / "lm.bin"), None)) == scores(ngrams)
    assert scores(chosen(str(tmp_path / "lm.bin"), str(tmp_path / "neural-lm.safetensors"))) == scores(mixed)
    assert chosen("none", None) is None
    with pytest.raises(UserError, match="--lm FILE too"):
        chosen("none", str(tmp_path / "neural-lm.safetensors"))
    save_bundle(tmp_path, loaded)  # onto itself
    assert scores(load_bundle(tmp_path).language_model) == scores(mixed)
    save_bundle(tmp_path, replace(loaded, language_model=chosen(None, "none")))
    assert scores(load_bundle(tmp_path).language_model) == scores(ngrams)


def test_a_broken_language_model_is_named(whole: Bundle, tmp_path: Path) -> None:
    (tmp_path / "lm.bin").write_bytes(b"asr-lm\n\0 and no more")
    with pytest.raises(UserError, match=r"lm\.bin") as error:
        load_bundle(tmp_path)
    assert "\n" not in str(error.value)
