"""A model on disk: a directory that holds all that transcribing needs. Nothing in it is unpickled.

config.yaml, model.safetensors and tokenizer.model make the model; where its tokens are phones, lexicon.txt is
there instead of tokenizer.model. decoding.yaml holds the settings that were calibrated for it, lm.bin a
language model, neural-lm.safetensors one that is mixed with it; without these the defaults hold, and none.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from asr import ops
from asr.decoding.config import DecodingConfig
from asr.encoder import EncoderConfig
from asr.errors import UserError
from asr.frontend import FrontEndConfig
from asr.lexicon import PhoneTokenizer, load_tokenizer
from asr.model import CtcModel, ModelConfig
from asr.models import find_model, shipped
from asr.text import Tokenizer

if TYPE_CHECKING:
    from asr.decoding.language_model import LanguageModel

CONFIG, WEIGHTS = "config.yaml", "model.safetensors"
TOKENIZER, LEXICON = "tokenizer.model", "lexicon.txt"  # one of them
DECODING, LANGUAGE_MODEL, NEURAL_LM = "decoding.yaml", "lm.bin", "neural-lm.safetensors"

_SCALES = ".scales"  # behind the name of a matrix of integers

Config = TypeVar("Config")


@dataclass(frozen=True)
class Bundle:
    """A model and how to decode it.

    compact: in its file matrices are 8-bit integers with a scale a row, and all else is float16: a quarter of
    the space. They are computed with as any others.
    """

    model: CtcModel
    tokenizer: Tokenizer | PhoneTokenizer
    decoding: DecodingConfig = field(default_factory=DecodingConfig)
    language_model: LanguageModel | None = None
    compact: bool = False


def save_bundle(directory: str | Path, bundle: Bundle) -> None:
    """Write the files; each appears whole or not at all. One of another language model is removed."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    model = bundle.model
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    if bundle.compact:
        weights = _compact(weights)
    save_file(weights, directory / f"{WEIGHTS}.partial")
    (directory / f"{WEIGHTS}.partial").chmod(0o644)  # safetensors lets its owner alone read it
    for name, values in ((CONFIG, asdict(model.config)), (DECODING, asdict(bundle.decoding))):
        text = yaml.safe_dump(_plain(values), sort_keys=False)
        (directory / f"{name}.partial").write_text(text, encoding="utf-8")
    tokens, others = (TOKENIZER, LEXICON) if bundle.tokenizer.lexicon is None else (LEXICON, TOKENIZER)
    bundle.tokenizer.save(directory / f"{tokens}.partial")
    (directory / others).unlink(missing_ok=True)
    names = [WEIGHTS, CONFIG, DECODING, tokens]
    model_files = bundle.language_model and (bundle.language_model.path, bundle.language_model.neural)
    for name, path in zip((LANGUAGE_MODEL, NEURAL_LM), model_files or (None, None), strict=True):
        if path is None:
            (directory / name).unlink(missing_ok=True)
        elif path.resolve() != (directory / name).resolve():
            shutil.copyfile(path, directory / f"{name}.partial")
            names.append(name)
    for name in names:
        (directory / f"{name}.partial").replace(directory / name)


def load_bundle(directory: str | Path, backend: ops.Backend = "auto") -> Bundle:
    """The model, in evaluation mode on the CPU, and what goes with it; UserError names a wrong file."""
    directory = find_model(directory)
    tokens = LEXICON if (directory / LEXICON).is_file() else TOKENIZER
    for name in (CONFIG, WEIGHTS, tokens):
        if not (directory / name).is_file():
            raise UserError(
                f"{directory}: not a model bundle, {name} is missing; give the directory that training wrote,"
                f" or the name of a model of the package: {', '.join(shipped())}"
            )
    config = _load_config(directory / CONFIG)
    decoding = _load_decoding(directory / DECODING)
    tokenizer = load_tokenizer(directory / tokens)
    if tokenizer.vocabulary != config.vocabulary:
        raise UserError(
            f"{directory}: the model has {config.vocabulary} tokens, {tokens} has {tokenizer.vocabulary};"
            " put back the tokenizer that it was trained with"
        )
    with torch.device("meta"):  # sizes without numbers, which would be drawn to be overwritten
        model = CtcModel(config, backend)
    try:
        saved = load_file(directory / WEIGHTS)
        model.load_state_dict(_expanded(saved), assign=True)
    except (SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{directory / WEIGHTS}: does not hold the weights of {CONFIG} ({reason}); copy it again"
        ) from error
    compact = any(tensor.dtype == torch.int8 for tensor in saved.values())
    return Bundle(model.eval(), tokenizer, decoding, _load_language_model(directory), compact)


def _compact(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Scales are float16, so that what is loaded and saved again stays as it is, to the bit, and that
    `asr.packed` computes in int8 with these very integers."""
    saved = {}
    for name, tensor in weights.items():
        if tensor.dim() < 2:
            saved[name] = tensor.half()
            continue
        rows = tensor.flatten(1)
        scales = (rows.abs().amax(1) / 127).clamp(min=torch.finfo(torch.float16).tiny).half()
        saved[name] = (rows / scales.float()[:, None]).round().to(torch.int8).view_as(tensor)
        saved[name + _SCALES] = scales
    return saved


def _expanded(saved: dict[str, Tensor]) -> dict[str, Tensor]:
    """All as float32, whatever they are in the file."""
    weights = {}
    for name in saved:
        if name.endswith(_SCALES):
            continue
        weights[name] = saved[name].float().clone()  # the file may go
        if name + _SCALES in saved:
            weights[name].flatten(1).mul_(saved[name + _SCALES].float()[:, None])
    return weights


def _load_config(path: Path) -> ModelConfig:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
        frontend = _dataclass(FrontEndConfig, tree.pop("frontend"))
        encoder = _dataclass(EncoderConfig, tree.pop("encoder"))
        return _dataclass(ModelConfig, {**tree, "frontend": frontend, "encoder": encoder})
    except (yaml.YAMLError, AttributeError, KeyError, TypeError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: not a model configuration ({reason}); copy the bundle again") from error


def _load_decoding(path: Path) -> DecodingConfig:
    """The defaults for what decoding.yaml leaves away, and where it is not there."""
    if not path.exists():
        return DecodingConfig()
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise TypeError("a line is key and value, as beam: 8")
        return _dataclass(DecodingConfig, values)
    except (yaml.YAMLError, KeyError, TypeError, ValueError, UserError) as error:
        reason = str(error.args[0] if isinstance(error, KeyError) else error).splitlines()[0]
        raise UserError(f"{path}: not a decoding configuration ({reason}); correct or delete it") from error


def _load_language_model(directory: Path) -> LanguageModel | None:
    path, neural = directory / LANGUAGE_MODEL, directory / NEURAL_LM
    return open_language_model(path, neural if neural.exists() else None) if path.exists() else None


def open_language_model(path: str | Path, neural: str | Path | None = None) -> LanguageModel:
    """A model of n-grams, mixed with a neural one where that is given. Raises UserError."""
    from asr.decoding.language_model import LanguageModel  # needs the compiled library
    from asr.decoding.neural_model import MixedModel

    model = LanguageModel.open(path)
    return MixedModel(model, Path(neural)) if neural else model


def _dataclass(kind: type[Config], values: dict[str, Any]) -> Config:
    unknown = set(values) - {each.name for each in fields(kind)}  # type: ignore[arg-type]
    if unknown:
        raise KeyError(f"unknown key {sorted(unknown, key=str)[0]!r}")
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})


def _plain(value: object) -> object:
    """Tuples as lists, since YAML's safe loader knows no tuples."""
    if isinstance(value, dict):
        return {key: _plain(child) for key, child in value.items()}
    return list(value) if isinstance(value, tuple) else value
