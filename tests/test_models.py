"""Models that come with the package, found by name; and packing one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from soundfile import read

import asr.models
from asr.bundle import Bundle, load_bundle
from asr.cli import dispatch
from asr.errors import UserError
from asr.models import READING, find_model
from asr.streaming import StreamingRecognizer
from data_prep.reference_alignment import Aligner


@pytest.fixture
def shipped(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with one model, "small"; the working directory is elsewhere and empty."""
    package, here = tmp_path / "package", tmp_path / "here"
    package.mkdir()
    here.mkdir()
    (package / "small").symlink_to(bundle)
    monkeypatch.setattr(asr.models, "SHIPPED", package)
    monkeypatch.chdir(here)
    return package


def test_a_name_is_a_model_of_the_package(shipped: Path) -> None:
    assert find_model("small") == shipped / "small"
    assert asr.models.shipped() == ["small"]
    assert isinstance(load_bundle("small"), Bundle)


def test_a_directory_of_that_name_comes_first(shipped: Path) -> None:
    Path("small").mkdir()
    assert find_model("small") == Path("small")
    assert find_model("./small") == Path("./small")


@pytest.mark.parametrize("model", ["smal", "exp/small", "../small", ""])
def test_what_is_neither_is_told_what_there_is(shipped: Path, model: str) -> None:
    with pytest.raises(UserError, match="of the package: small"):
        load_bundle(model)


def test_a_packed_bundle_hears_the_same_in_much_less_space(
    bundle: Path, tmp_path: Path, audio: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    packed = tmp_path / "packed"
    assert dispatch(["pack", "--model", str(bundle), "--output", str(packed)]) == 0
    assert f"{packed}: " in capsys.readouterr().out
    sizes = [(path / "model.safetensors").stat().st_size for path in (bundle, packed)]
    assert sizes[1] < 0.4 * sizes[0]
    samples = torch.from_numpy(audio)[None]
    before, after = (
        load_bundle(path).model.offline(samples, torch.tensor([len(audio)]))[0].exp()
        for path in (bundle, packed)
    )
    assert 0 < (before - after).abs().max() < 0.02
    assert load_bundle(packed).decoding == load_bundle(bundle).decoding


def test_a_bundle_is_not_packed_over_itself(bundle: Path) -> None:
    with pytest.raises(UserError, match="is the model itself"):
        dispatch(["pack", "--model", str(bundle), "--output", str(bundle)])


def test_the_shipped_model_can_write_words_that_its_text_lacks() -> None:
    """Books of the 19th century are no reason that nobody can dictate a letter about their laptop."""
    shipped = load_bundle("en-small")
    for word in ("email", "laptop", "online", "facebook", "fillmore"):
        assert shipped.tokenizer.lexicon is not None and word in shipped.tokenizer.lexicon
        assert shipped.language_model is not None and shipped.language_model.knows(word)


def test_the_shipped_models_fit_their_place() -> None:
    sizes = [path.stat().st_size for path in find_model("en-small").iterdir()]
    assert sum(sizes) <= 40e6  # the wheel's


def test_words_of_the_shipped_model_are_where_another_aligner_finds_them() -> None:
    """Its offsets are of its weights: those of an earlier model put starts 87 ms off."""
    pytest.importorskip("pocketsphinx")
    samples, _ = read(READING, dtype="float32")
    recognizer = StreamingRecognizer(load_bundle("en-small"), vad=None)
    recognizer.accept(samples)
    found = recognizer.finish().words
    wanted = Aligner()(samples, [word.text for word in found])
    assert wanted is not None
    errors = [
        (one.start - other.start, one.end - other.end) for one, other in zip(found, wanted, strict=True)
    ]
    assert np.abs(np.median(errors, axis=0)).max() < 0.03  # seconds
