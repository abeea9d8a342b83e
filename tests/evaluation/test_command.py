"""`asr evaluate` from manifest to files, with a tiny model that says nothing sensible."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lhotse import CutSet

from asr import audio
from asr.align.ctm import read_ctm
from asr.data.manifest import write_cuts
from asr.errors import UserError
from asr.evaluation.command import main
from asr.evaluation.results import read_hypotheses
from data_prep.common import utterance


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    random = np.random.default_rng(1)
    cuts = []
    for number in range(4):
        path = tmp_path / f"u{number}.wav"
        audio.write(path, 0.1 * random.standard_normal(8000 + 999 * number).astype(np.float32))
        cuts.append(utterance(f"u{number}", path, "the lazy dog", speaker=f"s{number % 2}"))
    write_cuts(CutSet.from_cuts(cuts), tmp_path / "dev.jsonl.gz")
    return tmp_path / "dev.jsonl.gz"


def evaluate(bundle: Path, manifest: Path, *more: str) -> int:
    # greedy needs no compiler; noise, which the tiny model turns into words, is no speech to the VAD
    return main(["--model", str(bundle), "--cuts", str(manifest), "--beam", "1", "--vad", "off", *more])


def results_of(directory: Path) -> Any:
    return json.loads((directory / "results.json").read_text())


def test_evaluate_writes_hypotheses_results_and_report(
    bundle: Path, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(bundle, manifest, "--output-dir", str(tmp_path / "out" / "dev")) == 0
    written = tmp_path / "out" / "dev"
    assert sorted(each.name for each in written.iterdir()) == [
        "hypotheses.ctm",
        "hypotheses.tsv",
        "report.html",
        "results.json",
    ]
    assert [each.utt_id for each in read_hypotheses(written)] == ["u0", "u1", "u2", "u3"]
    results = json.loads((written / "results.json").read_text())
    assert results["utterances"] == 4 and results["failed"] == [] and results["wer"]["length"] == 12
    printed = capsys.readouterr()
    for text in (
        "WER",
        "word shown after its end",
        "revisions a word",
        "calibration error",
        "real-time factor",
        "algorithmic latency",
        "over 2 speakers",
    ):
        assert text in printed.out, text


def test_whole_files_and_chunks_give_the_same_words(bundle: Path, manifest: Path, tmp_path: Path) -> None:
    for chunk in ("0", "100"):
        evaluate(bundle, manifest, "--chunk", chunk, "--output-dir", str(tmp_path / chunk))
    assert read_hypotheses(tmp_path / "0") == read_hypotheses(tmp_path / "100")
    assert main(["--compare", str(tmp_path / "0"), str(tmp_path / "100"), "--output-dir", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "comparison.json").read_text())["wer"]["difference"] == 0


def test_a_file_that_has_gone_is_told_at_the_end_and_the_status_is_one(
    bundle: Path, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "u2.wav").unlink()
    assert evaluate(bundle, manifest, "--output-dir", str(tmp_path / "out")) == 1
    assert [each.utt_id for each in read_hypotheses(tmp_path / "out")] == ["u0", "u1", "u3"]
    last = capsys.readouterr().err.splitlines()[-2:]
    assert "u2.wav: no such file" in last[0]
    assert last[1] == "asr: 1 of 4 utterances failed and are not counted"


def test_nothing_readable_is_one_clear_line(bundle: Path, manifest: Path, tmp_path: Path) -> None:
    for path in tmp_path.glob("*.wav"):
        path.unlink()
    with pytest.raises(UserError, match=r"none of 4 utterances.*u0\.wav"):
        evaluate(bundle, manifest)


def test_results_have_latency_confidence_and_all_settings(
    bundle: Path, manifest: Path, tmp_path: Path
) -> None:
    evaluate(bundle, manifest, "--stable-frames", "3", "--output-dir", str(tmp_path / "out"))
    found = results_of(tmp_path / "out")
    final = found["latency"]["final_latency"]
    assert final["count"] == 4 and final["p50"]["value"] <= final["p90"]["value"] <= final["p99"]["value"]
    assert found["latency"]["aligned_utterances"] == 4
    assert found["latency"]["revisions_per_word"]["value"] >= found["latency"]["grown_per_word"]["value"]
    assert found["confidence"]["words"] == len(read_ctm_words(tmp_path / "out" / "hypotheses.ctm"))
    low, high = found["real_time_factor_interval"]
    assert low <= found["real_time_factor"] <= high
    assert (found["decoding"]["beam"], found["decoding"]["stable_frames"]) == (1, 3)
    assert found["decoding"]["vad"] is None and found["decoding"]["endpointing"]["silence"] > 0
    assert (found["paced"], found["alignments"]) == (False, None)


def read_ctm_words(path: Path) -> list[str]:
    return [word.text for words in read_ctm(path).values() for word in words]


def test_reference_times_can_be_those_of_another_aligner(
    bundle: Path, manifest: Path, tmp_path: Path
) -> None:
    lines = ["u0 1 0.1 0.1 The", "u0 1 0.2 0.1 lazy", "u0 1 0.3 0.1 dog", "u1 1 0.1 0.1 another"]
    (tmp_path / "dev.ctm").write_text("\n".join(lines))
    ctm = str(tmp_path / "dev.ctm")
    evaluate(bundle, manifest, "--alignments", ctm, "--output-dir", str(tmp_path / "out"))
    found = results_of(tmp_path / "out")
    assert (found["alignments"], found["latency"]["aligned_utterances"]) == (ctm, 1)
    assert found["latency"]["first_partial"]["count"] == 1


def test_alignments_of_another_corpus_are_refused(bundle: Path, manifest: Path, tmp_path: Path) -> None:
    (tmp_path / "dev.ctm").write_text("u0 1 0.1 0.1 another\n")
    with pytest.raises(UserError, match=r"dev\.ctm: has no utterance with its id and words"):
        evaluate(bundle, manifest, "--alignments", str(tmp_path / "dev.ctm"))


def test_whole_files_have_no_latency(bundle: Path, manifest: Path, tmp_path: Path) -> None:
    evaluate(bundle, manifest, "--chunk", "0", "--output-dir", str(tmp_path / "out"))
    found = results_of(tmp_path / "out")["latency"]
    assert (found["emission_delay"], found["final_latency"], found["revisions_per_word"]) == (None,) * 3


def test_listed_words_are_scored_without_telling_the_recogniser(
    bundle: Path, manifest: Path, tmp_path: Path
) -> None:
    (tmp_path / "lists.tsv").write_text("u0\tdog|zebra\nu1\tlazy dog\n")
    lists = ("--hotwords-per-utterance", str(tmp_path / "lists.tsv"))
    evaluate(bundle, manifest, *lists, "--unbiased", "--output-dir", str(tmp_path / "out"))
    found = results_of(tmp_path / "out")
    assert found["listed_words"]["b_wer"]["length"] == 3 and found["listed_words"]["u_wer"]["length"] == 9
    assert found["decoding"]["unbiased"] is True
    evaluate(bundle, manifest, "--output-dir", str(tmp_path / "plain"))
    assert results_of(tmp_path / "plain")["wer"] == found["wer"]
    assert "listed_words" not in results_of(tmp_path / "plain")


def test_a_listed_phrase_that_cannot_be_spelt_is_named(bundle: Path, manifest: Path, tmp_path: Path) -> None:
    (tmp_path / "lists.tsv").write_text("u1\troom 42\n")
    with pytest.raises(UserError, match=r"lists\.tsv: u1: .*'4'"):
        evaluate(bundle, manifest, "--hotwords-per-utterance", str(tmp_path / "lists.tsv"))


def test_limit_takes_the_first_utterances(bundle: Path, manifest: Path, tmp_path: Path) -> None:
    evaluate(bundle, manifest, "--limit", "2", "--report", "text", "--output-dir", str(tmp_path / "out"))
    assert [each.utt_id for each in read_hypotheses(tmp_path / "out")] == ["u0", "u1"]
    assert (tmp_path / "out" / "report.txt").read_text().count("REF: ") == 2


def test_an_output_directory_that_is_a_file_is_refused_before_the_work(bundle: Path, manifest: Path) -> None:
    with pytest.raises(UserError, match="--output-dir"):
        evaluate(bundle, manifest, "--output-dir", str(manifest))


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--model", "x"],
        ["--model", "x", "--cuts", "y", "--jobs", "0"],
        ["--model", "x", "--cuts", "y", "--pace", "--chunk", "0"],
    ],
)
def test_wrong_arguments_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "error" in capsys.readouterr().err
