"""Every config that is shipped trains and streams."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from asr.bundle import load_bundle
from asr.cli import dispatch
from asr.data.manifest import load_cuts
from asr.streaming import StreamingRecognizer
from asr.text import train_tokenizer
from tests.conftest import signal
from tests.training.conftest import LEXICON, WORDS

CONFIGS = sorted(Path(__file__).parents[2].glob("configs/*.yaml"))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_config_builds_trains_a_step_and_streams_a_chunk(
    config: Path, corpus: Path, tmp_path: Path
) -> None:
    tokenizer = tmp_path / Path(yaml.safe_load(config.read_text())["model"]["tokenizer"]).name
    if tokenizer.suffix == ".txt":
        tokenizer.write_text(LEXICON)
    else:  # a token a word, so that frames of 80 ms are enough
        train_tokenizer([" ".join(WORDS)] * 20, tokenizer, 16, "bpe")
    names = [cut.id for cut in load_cuts([corpus / "train.jsonl.gz", corpus / "dev.jsonl.gz"])]
    (tmp_path / "phones.ctm").write_text("".join(f"{name} 1 0 0.5 AH\n" for name in names))
    overrides = {
        "model.tokenizer": tokenizer,
        "model.init_from": "null",
        "data.train": f"[{corpus}/train.jsonl.gz]",
        "data.dev": f"[{corpus}/dev.jsonl.gz]",
        "data.phones": f"[{tmp_path}/phones.ctm]",
        "data.augmentation.noise_share": 0,
        "data.augmentation.room_share": 0,
        "data.max_duration": 4,
        "data.workers": 0,
        "trainer.default_root_dir": tmp_path,
        "trainer.accelerator": "cpu",
        "trainer.max_steps": 1,
        "trainer.limit_train_batches": 1,
        "trainer.limit_val_batches": 1,
        "trainer.check_val_every_n_epoch": 1,
        "trainer.val_check_interval": 1.0,
        "trainer.enable_progress_bar": False,
    }
    assert (
        dispatch(
            ["train", "--config", str(config), *(f"--{key}={value}" for key, value in overrides.items())]
        )
        == 0
    )
    bundle = load_bundle(tmp_path / "bundle")
    assert bundle.model.latency_ms <= 320  # the promise of every shipped config
    recognizer = StreamingRecognizer(bundle)
    recognizer.accept(signal(0.4, 1))
    assert recognizer.finish().tentative == ""


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_no_config_asks_for_a_precision_that_the_machine_may_lack(config: Path) -> None:
    assert "precision" not in yaml.safe_load(config.read_text())["trainer"]


def test_the_configs_asked_for_are_there() -> None:
    asked = {"demo", "digits", "en-small", "train-clean-5", "train-clean-100", "librispeech-960", "your-data"}
    assert asked <= {path.stem for path in CONFIGS}
