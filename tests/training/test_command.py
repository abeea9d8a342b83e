"""What `asr train` says to a user: every mistake in one line that names it, and the exit status."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from asr.bundle import load_bundle, save_bundle
from asr.errors import UserError
from asr.text import train_tokenizer
from asr.training import checkpoint as checkpoint_module
from asr.training.callbacks import LAST
from asr.training.command import main
from tests.training.conftest import WORDS, write_corpus

ConfigWriter = Callable[..., Path]


def error_of(*arguments: str) -> str:
    with pytest.raises(UserError) as error:
        main(list(arguments))
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.fixture(scope="module")
def trained(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root directory of a finished training of two epochs."""
    directory = tmp_path_factory.mktemp("trained")
    options = {
        "model.tokenizer": corpus / "tokenizer.model",
        "model.encoder": '{"channels": [16, 16], "width": 24, "hidden": 24, "lookahead": [0, 1]}',
        "model.optimiser": '{"rate": 0.01, "warmup": 5}',
        "data.train": f"[{corpus}/train.jsonl.gz]",
        "data.dev": f"[{corpus}/dev.jsonl.gz]",
        "data.max_duration": 6,
        "data.workers": 0,
        "trainer.max_epochs": 2,
        "trainer.accelerator": "cpu",
        "trainer.default_root_dir": directory,
    }
    assert main([f"--{key}={value}" for key, value in options.items()]) == 0
    return directory


def test_training_writes_a_bundle_a_curve_and_the_best_checkpoints(trained: Path) -> None:
    bundle = load_bundle(trained / "bundle")
    assert bundle.model.frontend.has_statistics
    assert bundle.tokenizer.vocabulary == bundle.model.config.vocabulary
    lines = [json.loads(line) for line in (trained / "curve.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1]
    assert lines[1]["dev_loss"] < lines[0]["dev_loss"]
    names = {path.name for path in (trained / "checkpoints").iterdir()}
    assert LAST in names
    assert len(names) == 3
    assert list(trained.glob("events.out.tfevents*"))


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("model__encoder__widht", "model.encoder.width"),
        ("model__toknizer", "model.tokenizer"),
        ("data__augmentation__spedes", "data.augmentation.speeds"),
        ("trainer__max_epocs", "trainer.max_epochs"),
        ("checkpoint__evry", "checkpoint.every"),
    ],
)
def test_a_misspelt_key_is_named_with_the_one_meant(config: ConfigWriter, key: str, meant: str) -> None:
    message = error_of("--config", str(config(**{key: 1})))
    assert key.replace("__", ".") in message
    assert meant in message


def test_a_misspelt_flag_is_named(config: ConfigWriter) -> None:
    assert "trainer.max_epocs" in error_of("--config", str(config()), "--trainer.max_epocs", "3")


def test_a_value_of_the_wrong_type_names_its_key(config: ConfigWriter) -> None:
    assert "model.encoder.width" in error_of("--config", str(config(model__encoder__width="wide")))


def test_a_mistake_in_the_config_is_one_line_and_exit_status_2(config: ConfigWriter) -> None:
    run = "import sys; from asr.cli import main; main()"
    arguments = ["train", "--config", str(config(model__encoder__widht=3))]
    result = subprocess.run([sys.executable, "-c", run, *arguments], capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.startswith("asr: error: model.encoder.widht")
    assert result.stderr.count("\n") == 1


def test_a_missing_config_file_is_named(tmp_path: Path) -> None:
    assert "none.yaml" in error_of("--config", str(tmp_path / "none.yaml"))


def test_audio_that_has_gone_stops_training_before_it_starts(config: ConfigWriter, tmp_path: Path) -> None:
    manifest = write_corpus(tmp_path, "gone", 4, seed=0)
    (tmp_path / "wav" / "gone-001.wav").unlink()
    message = error_of("--config", str(config(data__train=[str(manifest)])))
    assert "gone-001.wav" in message
    assert "gone.jsonl.gz" in message


@pytest.fixture
def other_tokenizer(tmp_path: Path) -> Path:
    train_tokenizer([" ".join(WORDS)] * 20, tmp_path / "other.model", 16, "bpe")
    return tmp_path / "other.model"


def test_a_checkpoint_of_another_vocabulary_is_refused(
    trained: Path, config: ConfigWriter, other_tokenizer: Path
) -> None:
    path = config(model__tokenizer=str(other_tokenizer))
    message = error_of("--config", str(path), "--ckpt_path", str(trained / "checkpoints" / LAST))
    assert "model.tokenizer" in message
    assert "vocabulary" in message


def test_a_bundle_of_another_vocabulary_is_refused(
    trained: Path, config: ConfigWriter, other_tokenizer: Path
) -> None:
    path = config(model__tokenizer=str(other_tokenizer), model__init_from=str(trained / "bundle"))
    assert str(trained / "bundle") in error_of("--config", str(path))


def test_a_checkpoint_of_other_sizes_names_the_key(trained: Path, config: ConfigWriter) -> None:
    path = config(model__encoder__width=32)
    message = error_of("--config", str(path), "--ckpt_path", str(trained / "checkpoints" / LAST))
    assert message.startswith("model.encoder.width")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None], ids=["empty", "text", "missing"])
def test_a_damaged_checkpoint_is_named(config: ConfigWriter, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "bad.ckpt"
    if content is not None:
        path.write_bytes(content)
    assert "bad.ckpt" in error_of("--config", str(config()), "--ckpt_path", str(path))


def test_last_without_a_checkpoint_trains_from_the_start(
    config: ConfigWriter, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--config", str(config(trainer__max_epochs=1)), "--ckpt_path", "last"]) == 0
    assert "from the start" in capsys.readouterr().out
    assert (tmp_path / "run" / "bundle" / "config.yaml").exists()


def test_training_starts_from_a_bundle_with_its_statistics(
    trained: Path, config: ConfigWriter, tmp_path: Path
) -> None:
    bundle = load_bundle(trained / "bundle")
    bundle.model.frontend.set_statistics(torch.full((80,), -5.0), torch.full((80,), 2.0))
    save_bundle(tmp_path / "start", bundle)
    path = config(model__init_from=str(tmp_path / "start"), trainer__max_steps=1, model__optimiser__rate=1e-9)
    assert main(["--config", str(path)]) == 0
    tuned = load_bundle(tmp_path / "run" / "bundle").model
    for name, tensor in bundle.model.state_dict().items():
        torch.testing.assert_close(tuned.state_dict()[name], tensor, atol=1e-6, rtol=0)


def test_an_encoder_goes_on_with_other_tokens(
    trained: Path, config: ConfigWriter, tmp_path: Path, other_tokenizer: Path
) -> None:
    asked = {"model__tokenizer": str(other_tokenizer), "model__encoder_from": str(trained / "bundle")}
    assert main(["--config", str(config(**asked, trainer__max_steps=1, model__optimiser__rate=1e-9))]) == 0
    made, start = load_bundle(tmp_path / "run" / "bundle"), load_bundle(trained / "bundle").model.state_dict()
    assert made.tokenizer.vocabulary != load_bundle(trained / "bundle").tokenizer.vocabulary
    for name, tensor in made.model.state_dict().items():
        if not name.startswith("head."):
            torch.testing.assert_close(tensor, start[name], atol=1e-6, rtol=0)
    assert error_of("--config", str(config(**asked, model__encoder__width=32))).startswith(
        "model.encoder.width"
    )
    both = config(**asked, model__init_from=str(trained / "bundle"))
    assert "give one of them" in error_of("--config", str(both))


def test_a_teacher_is_named_by_its_bundle_and_share(
    trained: Path, config: ConfigWriter, tmp_path: Path
) -> None:
    options = [f"--model.teachers={{{trained / 'bundle'}: 1}}", "--model.objective.teachers", "2"]
    assert main(["--config", str(config(trainer__max_steps=1)), *options]) == 0
    assert load_bundle(tmp_path / "run" / "bundle")
    message = error_of(
        "--config", str(config()), f"--model.teachers={{{tmp_path / 'none'}: 1}}", *options[1:]
    )
    assert "none: not a model bundle" in message


def test_a_full_disk_leaves_the_last_checkpoint_and_says_so(
    config: ConfigWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, saves = checkpoint_module._write, 0

    def full_after_one(path: Path, buffer: object) -> None:
        nonlocal saves
        saves += 1
        if saves > 1:
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        real(path, buffer)  # type: ignore[arg-type]

    monkeypatch.setattr(checkpoint_module, "_write", full_after_one)
    message = error_of("--config", str(config(checkpoint__every=3)))
    assert "no space left" in message
    assert LAST in message
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == [LAST]
    assert torch.load(tmp_path / "run" / "checkpoints" / LAST, weights_only=True)["global_step"] == 3


def test_a_cosine_without_an_end_names_the_key(config: ConfigWriter) -> None:
    path = config(trainer__max_epochs=-1, trainer__max_time="00:00:01:00")
    assert error_of("--config", str(path)).startswith("model.optimiser.steps")


def test_training_learns_words_of_one_tone_each(config: ConfigWriter, tmp_path: Path) -> None:
    path = config(trainer__max_epochs=25, trainer__check_val_every_n_epoch=5, ema=0.9)
    assert main(["--config", str(path)]) == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "curve.jsonl").read_text().splitlines()]
    assert min(line["dev_wer"] for line in lines) < 20


def test_a_finished_training_that_was_moved_writes_its_bundle_again(
    trained: Path, config: ConfigWriter, tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(trained, moved)
    shutil.rmtree(moved / "bundle")
    assert main(["--config", str(config(moved)), "--ckpt_path", "last"]) == 0
    assert load_bundle(moved / "bundle")
