"""benchmarks.emissions: what is read is what was written, and what a bundle says."""

import argparse
from pathlib import Path

import numpy as np
import pytest

from asr import audio
from asr.bundle import load_bundle
from asr.data.manifest import write_cuts
from asr.decoding.config import DecodingConfig
from asr.errors import UserError
from benchmarks.emissions import (
    Emissions,
    Spoken,
    add_settings,
    chosen_settings,
    compute,
    read_emissions,
    write_emissions,
)
from data_prep.common import utterance
from tests.conftest import signal


def emissions(count: int) -> Emissions:
    random = np.random.default_rng(0)
    utterances = tuple(
        Spoken(f"u{number}", None, f"text {number}", 0.2, random.normal(size=(number + 1, 3)).astype("f4"))
        for number in range(count)
    )
    pieces, decoding = ("<blank>", "<unk>", "▁a"), DecodingConfig(lm_weight=0.7)
    return Emissions(pieces, b"\x00model", 0.04, utterances, decoding, "somewhere")


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    written = emissions(4)
    write_emissions(tmp_path / "dev.npz", written)
    read = read_emissions(tmp_path / "dev.npz")
    assert (read.pieces, read.tokenizer, read.frame_seconds) == (written.pieces, b"\x00model", 0.04)
    assert read.decoding == written.decoding
    for a, b in zip(read.utterances, written.utterances, strict=True):
        assert (a.utt_id, a.speaker, a.reference, a.seconds) == (b.utt_id, b.speaker, b.reference, b.seconds)
        assert a.log_probs.dtype == np.float32 and np.allclose(a.log_probs, b.log_probs, rtol=1e-3)


def test_a_limit_takes_utterances_from_everywhere(tmp_path: Path) -> None:
    write_emissions(tmp_path / "dev.npz", emissions(10))
    found = read_emissions(tmp_path / "dev.npz", limit=3).utterances
    assert [each.utt_id for each in found] == ["u0", "u3", "u6"]


def test_another_file_is_refused_in_a_line(tmp_path: Path) -> None:
    np.savez(tmp_path / "dev.npz", log_probs=np.zeros(3))
    with pytest.raises(UserError, match=r"dev\.npz: not a file of log-probabilities"):
        read_emissions(tmp_path / "dev.npz")


def test_a_batch_gives_what_the_model_gives_alone(bundle: Path, tmp_path: Path) -> None:
    for number, seconds in enumerate((0.7, 0.3)):
        audio.write(tmp_path / f"{number}.flac", signal(seconds, seed=number))
    names = ("0", "1")
    from lhotse import CutSet

    cuts = CutSet.from_cuts(utterance(name, tmp_path / f"{name}.flac", "Some text") for name in names)
    write_cuts(cuts, tmp_path / "dev.jsonl.gz")
    found = compute(bundle, tmp_path / "dev.jsonl.gz")
    assert [each.utt_id for each in found.utterances] == ["0", "1"]
    assert found.pieces == tuple(load_bundle(bundle).tokenizer.pieces)
    for name, each in zip(names, found.utterances, strict=True):
        alone = CutSet.from_cuts([cut for cut in cuts if cut.id == name])
        write_cuts(alone, tmp_path / "one.jsonl.gz")
        (expected,) = compute(bundle, tmp_path / "one.jsonl.gz").utterances
        assert np.allclose(each.log_probs, expected.log_probs, atol=1e-4)
        assert len(each.log_probs) == int(np.ceil(each.seconds / found.frame_seconds))


def test_options_overrule_what_the_bundle_says() -> None:
    parser = argparse.ArgumentParser()
    add_settings(parser)
    bundle = DecodingConfig(beam=4, lm_weight=0.7, word_bonus=1.5, unknown_penalty=-9.0)
    found = chosen_settings(parser.parse_args(["--emissions", "x", "--word-bonus", "0"]), bundle)
    assert found == DecodingConfig(beam=16, lm_weight=0.7, word_bonus=0.0, unknown_penalty=-9.0)
