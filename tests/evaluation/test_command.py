"""`asr evaluate` from manifest to files, with a tiny model that says nothing sensible."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from lhotse import CutSet

from asr import audio
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
    return main(["--model", str(bundle), "--cuts", str(manifest), *more])


def test_evaluate_writes_hypotheses_results_and_report(
    bundle: Path, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(bundle, manifest, "--output-dir", str(tmp_path / "out" / "dev")) == 0
    written = tmp_path / "out" / "dev"
    assert sorted(each.name for each in written.iterdir()) == [
        "hypotheses.tsv",
        "report.html",
        "results.json",
    ]
    assert [each.utt_id for each in read_hypotheses(written)] == ["u0", "u1", "u2", "u3"]
    results = json.loads((written / "results.json").read_text())
    assert results["utterances"] == 4 and results["failed"] == [] and results["wer"]["length"] == 12
    printed = capsys.readouterr()
    for text in ("WER", "real-time factor", "algorithmic latency", "over 2 speakers"):
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


def test_limit_takes_the_first_utterances(bundle: Path, manifest: Path, tmp_path: Path) -> None:
    evaluate(bundle, manifest, "--limit", "2", "--report", "text", "--output-dir", str(tmp_path / "out"))
    assert [each.utt_id for each in read_hypotheses(tmp_path / "out")] == ["u0", "u1"]
    assert (tmp_path / "out" / "report.txt").read_text().count("REF: ") == 2


def test_an_output_directory_that_is_a_file_is_refused_before_the_work(bundle: Path, manifest: Path) -> None:
    with pytest.raises(UserError, match="--output-dir"):
        evaluate(bundle, manifest, "--output-dir", str(manifest))


@pytest.mark.parametrize("arguments", [[], ["--model", "x"], ["--model", "x", "--cuts", "y", "--jobs", "0"]])
def test_wrong_arguments_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "error" in capsys.readouterr().err
