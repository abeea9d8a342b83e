"""`asr calibrate` finds the offsets that an alignment was made with, and writes them into the bundle."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from lhotse import CutSet
from rich.console import Console

from asr import audio
from asr.align.ctm import write_ctm
from asr.bundle import load_bundle
from asr.calibrate.command import Fit, judge, judgements, main
from asr.calibrate.development import decode, example
from asr.calibrate.fit import logistic
from asr.data.manifest import load_cuts, write_cuts
from asr.decoding.config import DecodingConfig
from asr.errors import UserError
from asr.lm import main as estimate
from data_prep.common import utterance
from tests.conftest import SENTENCES, signal

START, END = -0.06, 0.03  # how much earlier and later words are than their emissions


@pytest.fixture
def own(bundle: Path, tmp_path: Path) -> Path:
    """A bundle that may be written to."""
    return Path(shutil.copytree(bundle, tmp_path / "bundle"))


@pytest.fixture
def manifest(own: Path, tmp_path: Path) -> Path:
    """Recordings of which the model, greedily, has every second text right, and a CTM with shifted times."""
    loaded = load_bundle(own)
    greedy = replace(loaded.decoding, beam=1)
    cuts, ctm = [], ""
    for number in range(8):
        path = tmp_path / f"u{number}.wav"
        audio.write(path, signal(2.0, seed=number))
        cut = utterance(f"u{number}", path, "to be replaced", speaker=f"s{number % 4}")
        (words,) = decode([example(cut, loaded)], loaded, greedy).words
        text = [word.text if number % 2 else "dog" for word in words]
        cut.supervisions[0].text = " ".join(text)
        cuts.append(cut)
        timed = [
            replace(word, text=said, start=max(0, word.start + START), end=word.end + END)
            for word, said in zip(words, text, strict=True)
        ]
        ctm += write_ctm(f"u{number}", timed)
    (tmp_path / "dev.ctm").write_text(ctm)
    write_cuts(CutSet.from_cuts(cuts), tmp_path / "dev.jsonl.gz")
    return tmp_path / "dev.jsonl.gz"


def calibrate(own: Path, manifest: Path, *more: str | Path) -> int:
    return main(["--model", str(own), "--cuts", str(manifest), *map(str, more)])


def test_known_offsets_are_found_and_written(
    own: Path, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert calibrate(own, manifest, "--beam", "1", "--alignments", tmp_path / "dev.ctm") == 0
    decoding = load_bundle(own).decoding
    assert decoding.beam == 1
    assert (decoding.start_offset, decoding.end_offset) == pytest.approx((START, END), abs=0.002)
    printed = capsys.readouterr().out
    for text in (
        "start of words, mean absolute error",
        "held out",
        "8 utterances of 4 speakers",
        "times are those of --alignments (8 of 8",
    ):
        assert text in printed, text


def test_without_alignments_the_reference_is_forced_alignment_and_this_is_said(
    own: Path, manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert calibrate(own, manifest, "--beam", "1") == 0
    assert "forced alignment with the same model" in capsys.readouterr().out
    assert abs(load_bundle(own).decoding.start_offset) < 0.05


def test_a_reliability_diagram_is_drawn(own: Path, manifest: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert calibrate(own, manifest, "--beam", "1", "--plot", tmp_path / "dev.png") == 0
    assert (tmp_path / "dev.png").read_bytes().startswith(b"\x89PNG")


def test_confidences_of_half_right_words_become_modest(own: Path, manifest: Path) -> None:
    """The tiny model is all but certain of everything, and half of it is wrong."""
    calibrate(own, manifest, "--beam", "1")
    loaded = load_bundle(own)
    assert 0.2 < loaded.decoding.calibrated(0.99) < 0.8


def test_a_beam_and_its_language_model_are_fitted_and_the_bundle_gets_both(
    own: Path, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.txt").write_text("\n".join(SENTENCES))
    estimate([str(tmp_path / "text.txt"), "--order", "2", "--output", str(tmp_path / "lm.bin")])
    model = ("--lm", str(tmp_path / "lm.bin"), "--install-lm")
    assert calibrate(own, manifest, "--beam", "4", "--limit", "4", *model) == 0
    printed = capsys.readouterr().out
    assert "WER" in printed and "unknown_penalty" in printed and "4 utterances" in printed
    loaded = load_bundle(own)
    assert loaded.decoding.beam == 4 and loaded.language_model is not None


def test_the_temperature_of_a_logistic_map_is_not_the_one_that_is_best_alone(
    own: Path, manifest: Path
) -> None:
    bundle = load_bundle(own)
    bundle = replace(bundle, decoding=replace(bundle.decoding, beam=4))
    examples = [example(cut, bundle) for cut in load_cuts([manifest])]
    fit = Fit(bundle, examples, Console(quiet=True))
    alone, mapped = fit._likeliest(examples)
    assert (alone.confidence_scale, alone.confidence_bias) == (1, 0)
    assert alone.temperature != mapped.temperature

    def cost(decoding: DecodingConfig) -> float:
        return judge(*judgements(decode(examples, bundle, decoding))).likelihood

    scale, bias = logistic(*judgements(decode(examples, bundle, alone)))
    later = replace(alone, confidence_scale=scale, confidence_bias=bias)  # what comes of one after the other
    assert cost(mapped) < cost(later) - 0.001 and cost(later) < cost(alone)


def test_what_is_not_to_be_fitted_stays(own: Path, manifest: Path, tmp_path: Path) -> None:
    before = load_bundle(own).decoding
    assert calibrate(own, manifest, "--beam", "4", "--fit", "confidences") == 0
    after = load_bundle(own).decoding
    fitted = ("temperature", "confidence_scale", "confidence_bias")
    assert after != before
    assert after == replace(before, beam=4, **{name: getattr(after, name) for name in fitted})


def test_where_nothing_can_be_fitted_it_is_said_and_no_empty_table_drawn(
    own: Path, manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert calibrate(own, manifest, "--beam", "1", "--fit", "weights") == 0
    printed = capsys.readouterr().out
    assert "no weights to fit without a beam" in printed and "before" not in printed


def test_words_without_times_are_one_clear_line(own: Path, manifest: Path, tmp_path: Path) -> None:
    (tmp_path / "other.ctm").write_text("another 1 0.5 0.1 word\n")
    with pytest.raises(UserError, match="do the alignments belong to these manifests"):
        calibrate(own, manifest, "--beam", "1", "--alignments", tmp_path / "other.ctm")


def test_a_file_that_has_gone_is_named_and_the_rest_is_used(
    own: Path, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "u1.wav").unlink()
    assert calibrate(own, manifest, "--beam", "1") == 1
    printed = capsys.readouterr()
    assert "u1.wav: no such file" in printed.err and "7 utterances" in printed.out


def test_a_plot_that_cannot_be_written_is_told_before_the_work(own: Path, manifest: Path) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(UserError, match="its folder does not exist"):
        calibrate(own, manifest, "--plot", "nowhere/dev.png")


def test_a_language_model_needs_a_beam(own: Path, manifest: Path) -> None:
    with pytest.raises(UserError, match="--beam 8"):
        calibrate(own, manifest, "--beam", "1", "--lm", "lm.bin")


def test_the_bundle_is_as_it_was_where_there_is_nothing_to_fit_on(
    own: Path, manifest: Path, tmp_path: Path
) -> None:
    before = (own / "decoding.yaml").read_bytes()
    for path in tmp_path.glob("*.wav"):
        path.unlink()
    with pytest.raises(UserError, match="no words to calibrate on"):
        calibrate(own, manifest)
    assert (own / "decoding.yaml").read_bytes() == before
