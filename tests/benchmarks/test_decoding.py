"""benchmarks.decoding: what is measured is what is told."""

from pathlib import Path

import numpy as np

from asr.decoding.greedy import GreedyDecoder
from benchmarks.decoding import arpa_words, choose_hotwords, live, measure, table, whole
from benchmarks.emissions import Spoken

PIECES = ("<blank>", "<unk>", "▁a", "▁b", "c")


def spoken(reference: str, outputs: list[int], speaker: str = "s") -> Spoken:
    log_probs = np.full((len(outputs), len(PIECES)), -20, np.float32)
    log_probs[np.arange(len(outputs)), outputs] = -0.01
    return Spoken(reference, speaker, reference, 0.04 * len(outputs), log_probs)


def test_live_and_whole_say_the_same() -> None:
    utterance = spoken("a bc", [0, 2, 0, 0, 3, 3, 4, 0, 0])
    for frames in (1, 4, 100):
        assert live(GreedyDecoder(PIECES), frames)(utterance) == "a bc"
    assert whole(GreedyDecoder(PIECES))(utterance) == "a bc"


def test_an_utterance_leaves_nothing_behind_for_the_next() -> None:
    decode = live(GreedyDecoder(PIECES), 2)
    assert [decode(spoken("", [0, 2])), decode(spoken("", [2, 0])), decode(spoken("", [0]))] == ["a", "a", ""]


def test_error_rate_and_time_are_of_all_utterances() -> None:
    calls: list[str] = []

    def wrong(utterance: Spoken) -> str:
        calls.append(utterance.reference)
        return "a"

    utterances = [spoken("a", [2]), spoken("a bc", [2, 3, 4], "t")]
    results = measure({"right": whole(GreedyDecoder(PIECES)), "wrong": wrong}, utterances, rounds=3)
    assert (results["right"].wer, results["wrong"].wer) == (0, 1 / 3)
    assert len(calls) == 1 + 3 * 2  # once to warm up
    assert len(results["right"].rounds) == 3 and results["right"].milliseconds > 0
    assert "| right |" in table(results, "right") and " 1.0 |" in table(results, "right")


def test_hotwords_are_long_words_said_once() -> None:
    utterances = [spoken("the apostle of lucidity", [0]), spoken("the gospel of lucidity is apt", [0])]
    assert choose_hotwords(utterances, 100) == ("apostle", "gospel")
    assert len(choose_hotwords(utterances, 1)) == 1


def test_the_words_of_an_arpa_file_are_its_unigrams(tmp_path: Path) -> None:
    path = tmp_path / "lm.arpa"
    path.write_text(
        "\\data\\\nngram 1=4\nngram 2=1\n\n\\1-grams:\n-1\t<s>\t-0.5\n-1\t</s>\n-1\tcat\t-0.3\n-2\t<unk>\n"
        "-2\to'brien\n\n\\2-grams:\n-0.1\tcat dog\n\n\\end\\\n"
    )
    assert arpa_words(path) == ["cat", "o'brien"]
