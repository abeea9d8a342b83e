"""A model on disk: a directory of config.yaml, model.safetensors, tokenizer.model. Nothing is unpickled."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from asr import ops
from asr.encoder import EncoderConfig
from asr.errors import UserError
from asr.frontend import FrontEndConfig
from asr.model import CtcModel, ModelConfig
from asr.text import Tokenizer

CONFIG, WEIGHTS, TOKENIZER = "config.yaml", "model.safetensors", "tokenizer.model"

Config = TypeVar("Config")


def save_bundle(directory: str | Path, model: CtcModel, tokenizer: Tokenizer) -> None:
    """Write the three files; each appears whole or not at all."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, directory / f"{WEIGHTS}.partial")
    text = yaml.safe_dump(_plain(asdict(model.config)), sort_keys=False)
    (directory / f"{CONFIG}.partial").write_text(text, encoding="utf-8")
    tokenizer.save(directory / f"{TOKENIZER}.partial")
    for name in (WEIGHTS, CONFIG, TOKENIZER):
        (directory / f"{name}.partial").replace(directory / name)


def load_bundle(directory: str | Path, backend: ops.Backend = "auto") -> tuple[CtcModel, Tokenizer]:
    """The model, in evaluation mode on the CPU, and its tokenizer; UserError names the file that is wrong."""
    directory = Path(directory)
    for name in (CONFIG, WEIGHTS, TOKENIZER):
        if not (directory / name).is_file():
            raise UserError(
                f"{directory}: not a model bundle, {name} is missing; give the directory that training wrote"
            )
    config = _load_config(directory / CONFIG)
    tokenizer = Tokenizer.load(directory / TOKENIZER)
    if tokenizer.vocabulary != config.vocabulary:
        raise UserError(
            f"{directory}: the model has {config.vocabulary} tokens, {TOKENIZER} has {tokenizer.vocabulary};"
            " put back the tokenizer that it was trained with"
        )
    model = CtcModel(config, backend)
    try:
        model.load_state_dict(load_file(directory / WEIGHTS))
    except (SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{directory / WEIGHTS}: does not hold the weights of {CONFIG} ({reason}); copy it again"
        ) from error
    return model.eval(), tokenizer


def _load_config(path: Path) -> ModelConfig:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
        frontend = _dataclass(FrontEndConfig, tree.pop("frontend"))
        encoder = _dataclass(EncoderConfig, tree.pop("encoder"))
        return _dataclass(ModelConfig, {**tree, "frontend": frontend, "encoder": encoder})
    except (yaml.YAMLError, AttributeError, KeyError, TypeError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: not a model configuration ({reason}); copy the bundle again") from error


def _dataclass(kind: type[Config], values: dict[str, Any]) -> Config:
    unknown = set(values) - {field.name for field in fields(kind)}  # type: ignore[arg-type]
    if unknown:
        raise KeyError(f"unknown key {sorted(unknown)[0]!r}")
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})


def _plain(value: object) -> object:
    """Tuples as lists, since YAML's safe loader knows no tuples."""
    if isinstance(value, dict):
        return {key: _plain(child) for key, child in value.items()}
    return list(value) if isinstance(value, tuple) else value
