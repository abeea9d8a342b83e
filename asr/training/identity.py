"""What checkpoints and bundles must share with what goes on from them."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from typing import Any

from asr.errors import UserError
from asr.lexicon import PhoneTokenizer
from asr.model import CtcModel
from asr.text import Tokenizer

OF_THE_HEAD = ("vocabulary", "tokenizer", "model.outputs")  # keys of an identity


def identity(model: CtcModel, tokenizer: Tokenizer | PhoneTokenizer) -> dict[str, Any]:
    """Sizes by their names in a config, and the tokens."""
    config = asdict(model.config)
    parts = ("encoder", "frontend")
    sizes = {f"model.{part}.{key}": value for part in parts for key, value in config[part].items()}
    sizes.pop("model.encoder.dropout")
    return {
        "vocabulary": tokenizer.vocabulary,
        "tokenizer": hashlib.sha256(tokenizer.model).hexdigest(),
        "model.outputs": config["outputs"],
        **{key: list(value) if isinstance(value, tuple) else value for key, value in sizes.items()},
    }


def difference(theirs: dict[str, Any], ours: dict[str, Any]) -> str | None:
    """The first key of an identity whose value is not the same."""
    return next((key for key, value in ours.items() if theirs.get(key) != value), None)


def check_same(source: str, theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    """UserError where `source` is not what the config says."""
    key = difference(theirs, ours)
    if key in ("vocabulary", "tokenizer"):
        detail = f"{theirs.get('vocabulary')} tokens there, {ours['vocabulary']} here"
        raise UserError(
            f"model.tokenizer: {source} was trained with another vocabulary ({detail});"
            " give the tokenizer that it was trained with, or train from the start"
        )
    if key:
        raise UserError(f"{key}: {source} has {theirs.get(key)}, the config {ours[key]}; make them the same")
