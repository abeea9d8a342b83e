"""Files written are read back, and comparisons are made only of what can be compared."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from asr.errors import UserError
from asr.evaluation.latency import Heard, Stream
from asr.evaluation.results import (
    Run,
    compare,
    read_hypotheses,
    results_json,
    summarise,
    write_hypotheses,
    write_text,
)
from asr.evaluation.wer import Utterance

UTTERANCES = [
    Utterance("u1", "anna", "the cat sat", "the cut sat"),
    Utterance("u2", "anna", "on the mat", "on the mat"),
    Utterance("u3", "bert", "yes", ""),
    Utterance("u4", None, "", "noise"),
]
RUN = Run("bundle", ("dev.jsonl.gz",), 120.0, 320.0, 7200.0, 36.0, (("u5", "gone.flac: no such file"),))


def test_hypotheses_survive_the_file(tmp_path: Path) -> None:
    write_hypotheses(tmp_path / "hypotheses.tsv", UTTERANCES)
    assert read_hypotheses(tmp_path) == UTTERANCES
    assert read_hypotheses(tmp_path / "hypotheses.tsv") == UTTERANCES
    assert [each.name for each in tmp_path.iterdir()] == ["hypotheses.tsv"]


def test_tabs_and_newlines_cannot_break_the_table(tmp_path: Path) -> None:
    write_hypotheses(tmp_path / "h.tsv", [Utterance("u1", "a\tb", "two\nlines", "x")])
    assert read_hypotheses(tmp_path / "h.tsv") == [Utterance("u1", "a b", "two lines", "x")]


def test_results_for_machines_say_all_that_people_are_told() -> None:
    document = json.loads(results_json(summarise(UTTERANCES, RUN)))
    assert document["wer"]["rate"] == 3 / 7
    assert (
        document["wer"]["substitutions"],
        document["wer"]["deletions"],
        document["wer"]["insertions"],
    ) == (1, 1, 1)
    assert document["wer"]["interval"][0] < 3 / 7 < document["wer"]["interval"][1]
    assert document["real_time_factor"] == 0.005
    assert document["latency_ms"] == 120
    assert document["failed"] == [{"utt_id": "u5", "reason": "gone.flac: no such file"}]
    assert document["substitutions"] == [{"reference": "cat", "hypothesis": "cut", "count": 1}]
    speakers = {row["speaker"]: row for row in document["speakers"]}
    assert speakers["anna"]["wer"]["rate"] == 1 / 6 and speakers["anna"]["utterances"] == 2
    assert speakers[None]["wer"]["rate"] is None  # an error against nothing; JSON has no infinity
    assert document["bootstrap"]["resampled"] == "speakers and utterances"


def test_a_ratio_that_is_undefined_is_null() -> None:
    nothing = Heard(Stream((), None, 0.1, 0, 0), None, 1.0, 0.5)
    document = json.loads(
        results_json(summarise([Utterance("u", None, "", "")], RUN, [nothing], {"u": ["a"]}))
    )
    assert document["latency"]["first_partial"] is None
    assert document["latency"]["revisions_per_word"] is None
    assert document["latency"]["final_latency"]["p99"] == {"value": 0.1, "interval": [0.1, 0.1]}
    assert document["listed_words"]["recall"] == {"value": None, "interval": None}
    assert document["real_time_factor_interval"] == [0.5, 0.5]
    assert "confidence" not in document  # no word was recognised


def test_a_corpus_without_words_has_results() -> None:
    document = json.loads(results_json(summarise([Utterance("u", None, "", "")])))
    assert document["wer"]["rate"] == 0 and document["wer"]["interval"] is None


def test_comparison_pairs_by_name_whatever_the_order() -> None:
    better = [replace(each, hypothesis=each.reference) for each in UTTERANCES]
    words, characters, _ = compare(UTTERANCES, better[::-1])
    assert words.difference == -3 / 7
    assert characters.rate_b == 0


def test_comparison_names_what_is_missing() -> None:
    with pytest.raises(UserError, match="B lacks u2, u3"):
        compare(UTTERANCES, [UTTERANCES[0], UTTERANCES[3]])
    with pytest.raises(UserError, match="A lacks u1;"):
        compare(UTTERANCES[1:], UTTERANCES)
    many = [Utterance(f"u{number}", None, "a", "a") for number in range(10, 20)]
    with pytest.raises(UserError, match="u10, u11, u12, u13, u14 and 5 more"):
        compare([*UTTERANCES, *many], UTTERANCES)


def test_comparison_refuses_other_references() -> None:
    changed = [replace(UTTERANCES[0], reference="other text"), *UTTERANCES[1:]]
    with pytest.raises(UserError, match="references differ between A and B: u1"):
        compare(UTTERANCES, changed)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "first line"),
        ("id\ttext\n", "first line"),
        ("utt_id\tspeaker\treference\thypothesis\nu1\tx\n", "line 2 has 2"),
        (
            "utt_id\tspeaker\treference\thypothesis\nu1\t\ta\tb\nu1\t\ta\tb\n",
            "line 3 repeats the utterance u1",
        ),
    ],
)
def test_a_broken_table_is_one_clear_line(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "hypotheses.tsv").write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        read_hypotheses(tmp_path)
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_a_missing_table_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere.*output directory"):
        read_hypotheses(tmp_path / "nowhere")


def test_a_failed_write_leaves_the_former_file(tmp_path: Path) -> None:
    path = tmp_path / "report.txt"
    write_text(path, "former")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "half \ud800")
    assert path.read_text() == "former"
    assert list(tmp_path.iterdir()) == [path]
