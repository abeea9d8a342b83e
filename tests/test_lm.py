from __future__ import annotations

import gzip
import io
import lzma
import math
import random
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.cli import dispatch
from asr.decoding.language_model import LanguageModel
from asr.errors import UserError
from asr.lm import _sentence, main
from asr.text import normalise
from tests.decoding.conftest import ARPA, TEXT, estimate_text
from tests.decoding.kneser_ney import KneserNey


def words_of(path: Path) -> list[str]:
    """The vocabulary of an ARPA file."""
    section = path.read_text().split("\\1-grams:\n")[1].split("\n\n")[0]
    return [line.split("\t")[1] for line in section.splitlines()]


def random_text(seed: int, sentences: int = 400, words: int = 30) -> list[str]:
    """Zipfian words that depend on the word before."""
    generator = random.Random(seed)
    vocabulary = [f"w{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(words)]
    weights = [1 / (i + 1) for i in range(words)]

    def sentence() -> str:
        places = [generator.choices(range(words), weights)[0]]
        while len(places) < generator.randint(1, 16):
            skip = generator.choice((0, 0, 7 * places[-1] + 3))
            places.append((generator.choices(range(words), weights)[0] + skip) % words)
        return " ".join(vocabulary[place] for place in places)

    return [sentence() for _ in range(sentences)]


def test_kneser_ney_as_computed_by_hand(tmp_path: Path) -> None:
    # Two sentences, "a b" and "a c"; too small for discounts: 0.5, 1, 1.5.
    # Bigrams: <s> a 2 (a count, it begins with <s>), a b 1, a c 1, b </s> 1, c </s> 1.
    # Unigrams, by different words before them: a 1, b 1, c 1, </s> 2; sum 5.
    # Weight of unigrams: (3 * 0.5 + 1) / 5 = 0.5, shared by a, b, c, </s>, <unk>: 0.1 each.
    estimate_text(["a b", "a c"], tmp_path, order=2)
    a, end = 0.5 / 5 + 0.1, 1 / 5 + 0.1
    expected = [
        (2 - 1) / 2 + 1 / 2 * a,  # c(<s> a) is 2: its discount is 1
        (1 - 0.5) / 2 + (0.5 + 0.5) / 2 * a,
        (1 - 0.5) / 1 + 0.5 / 1 * end,
    ]
    model = LanguageModel.open(tmp_path / "model.arpa")
    assert model.scores("a b") == pytest.approx([math.log(value) for value in expected], abs=1e-6)
    assert model.scores("x")[0] == pytest.approx(math.log(1 / 2 * 0.1), abs=1e-6)  # back-off of <s>, <unk>


@pytest.mark.parametrize("order", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("prune", [(), (0, 0, 1), (1, 0), (2, 1), (0, 1, 1, 2)])
def test_any_order_and_pruning_is_kneser_ney_by_its_equations(
    order: int, prune: tuple[int, ...], tmp_path: Path
) -> None:
    prune = prune[:order]
    for text in (TEXT, random_text(order)):
        estimate_text(text, tmp_path, order, prune=prune)
        oracle = KneserNey([line.split() for line in text], order, prune)
        models = [LanguageModel.open(tmp_path / name) for name in ("model.arpa", "model.bin")]
        for sentence in [*text[:20], "the cat never sat", "waa wab unseen wac waa wbd wbd"]:
            expected = oracle.scores(sentence.split())
            for model in models:
                assert model.scores(sentence) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"prune": (0, 0, 1, 1)},
        {"prune": (2, 0, 1)},
        {"prune_entropy": 1e-4},
        {"prune_entropy": 1e-3, "prune": (1, 0, 1)},
        {"vocabulary": 10},
        {"words": ("waa", "wab", "neverseen")},
    ],
)
def test_probabilities_sum_to_one_after_any_history(choices: dict[str, object], tmp_path: Path) -> None:
    text = random_text(7)
    estimate_text(text, tmp_path, 4, **choices)
    model = LanguageModel.open(tmp_path / "model.bin")
    words = [word for word in words_of(tmp_path / "model.arpa") if word not in ("<s>", "</s>", "<unk>")]
    generator = random.Random(1)
    for _ in range(40):
        history = " ".join(generator.choices([*words, "unseen"], k=generator.randint(0, 5)))
        every = [model.scores(f"{history} {word}".strip())[-2] for word in [*words, "unseen"]]
        total = sum(map(math.exp, [*every, model.scores(history)[-1]]))
        assert total == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("choices", [{}, {"prune": (0, 0, 1)}, {"prune_entropy": 1e-4}])
def test_a_tiny_memory_gives_the_same_model(
    choices: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = random_text(3, sentences=3000, words=300)
    folders = [tmp_path / "spilled", tmp_path / "whole"]
    for folder, memory in zip(folders, (1, 2**30), strict=True):
        folder.mkdir()
        estimate_text(text, folder, 4, memory=memory, **choices)
    for name in ("model.arpa", "model.bin"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()


def test_pruning_by_entropy_costs_less_than_pruning_by_count_at_the_same_size(tmp_path: Path) -> None:
    text = random_text(5, sentences=2000, words=200)
    found = []
    for choices in ({"prune": (0, 2)}, {"prune_entropy": 1e-4}):
        estimate_text(text, tmp_path, 3, **choices)
        model = LanguageModel.open(tmp_path / "model.bin")
        found.append((sum(model.counts), model.perplexity(text).with_unknown))
    assert found[1][0] < found[0][0] and found[1][1] < 0.97 * found[0][1]


def test_every_history_of_a_pruned_model_is_in_it(tmp_path: Path) -> None:
    estimate_text(random_text(8), tmp_path, 4, prune_entropy=1e-5)
    sections = (tmp_path / "model.arpa").read_text().split("-grams:\n")[1:]
    ngrams = [{line.split("\t")[1] for line in s.split("\n\n")[0].splitlines() if line} for s in sections]
    assert ngrams[3]
    for longer, shorter in zip(ngrams[1:], ngrams, strict=False):
        assert {ngram.rsplit(" ", 1)[0] for ngram in longer} <= shorter


def test_words_outside_the_vocabulary_are_counted_as_unknown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    estimate_text(TEXT, tmp_path, 2, vocabulary=3)
    assert "31 words, 54.84% of them <unk>" in capsys.readouterr().out
    assert words_of(tmp_path / "model.arpa") == ["<unk>", "<s>", "</s>", "a", "cat", "the"]
    scores = LanguageModel.open(tmp_path / "model.bin").scores("the unseen")
    assert scores == LanguageModel.open(tmp_path / "model.bin").scores("the mat")


def test_a_vocabulary_of_a_file_has_also_words_that_the_text_has_not(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("\n".join(TEXT))
    (tmp_path / "words.txt").write_text("THE cat\nhorse the\n")
    arguments = ["--vocabulary", str(tmp_path / "words.txt"), "--arpa", str(tmp_path / "model.arpa")]
    assert dispatch(["lm", str(tmp_path / "text.txt"), *arguments]) == 0
    assert words_of(tmp_path / "model.arpa") == ["<unk>", "<s>", "</s>", "cat", "horse", "the"]


def test_words_are_likely_by_themselves_as_they_are_elsewhere_for_a_share(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("\n".join(TEXT))
    (tmp_path / "words.txt").write_text("the cat horse zebra video\n")
    (tmp_path / "elsewhere.txt").write_text("Horse 30\nvideo 10\ntelephone 1000\n")
    given = ["lm", str(tmp_path / "text.txt"), "--vocabulary", str(tmp_path / "words.txt"), "--order", "1"]
    even, uneven = tmp_path / "even.bin", tmp_path / "uneven.bin"
    assert dispatch([*given, "--bits", "32", "--output", str(even)]) == 0
    listed = ["--frequencies", str(tmp_path / "elsewhere.txt")]
    assert dispatch([*given, "--bits", "32", *listed, "--output", str(uneven)]) == 0

    def unseen(path: Path) -> tuple[float, ...]:
        model = LanguageModel.open(path)
        return tuple(math.exp(model.scores(word)[0]) for word in ("horse", "video", "zebra"))

    (before, *_), after = unseen(even), unseen(uneven)
    assert after == pytest.approx([0.85 * before + 0.15 * share for share in (0.75, 0.25, 0)], rel=1e-5)


def test_frequencies_of_other_words_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("\n".join(TEXT))
    (tmp_path / "elsewhere.txt").write_text("maus 30\n")
    listed = ["--frequencies", str(tmp_path / "elsewhere.txt")]
    with pytest.raises(UserError, match="none of the words whose frequencies are given is in the vocabulary"):
        main([str(tmp_path / "text.txt"), *listed, "--output", str(tmp_path / "model.bin")])


@pytest.mark.parametrize("line", ["video", "video many", "video -1", " 5", "video nan"])
def test_frequencies_that_are_none_are_named(line: str, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("\n".join(TEXT))
    (tmp_path / "elsewhere.txt").write_text(f"horse 30\n{line}\n")
    listed = ["--frequencies", str(tmp_path / "elsewhere.txt")]
    with pytest.raises(UserError, match="line 2: a line is a word and how often it is there"):
        main([str(tmp_path / "text.txt"), *listed, "--output", str(tmp_path / "model.bin")])


@pytest.mark.parametrize("text", ["a", "a\n", "a a a a", "\n\na\n\n", "b " * 500])
def test_a_text_of_one_sentence_makes_a_model(text: str, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(text)
    output = tmp_path / "model.bin"
    assert dispatch(["lm", str(tmp_path / "text.txt"), "--output", str(output)]) == 0
    assert all(math.isfinite(score) and score < 0 for score in LanguageModel.open(output).scores(text + " c"))


def test_a_model_may_be_left_with_unknown_words_alone(tmp_path: Path) -> None:
    estimate_text(["a b c", "c b"], tmp_path, 3, prune=(10,))
    model = LanguageModel.open(tmp_path / "model.bin")
    word, end = model.scores("a")
    assert model.vocabulary == 3 and math.isfinite(word) and math.isfinite(end)
    model.check_alphabet(["▁a"])


@pytest.mark.parametrize("text", [b"", b"\n\n", b"... --\n"])
def test_a_text_without_a_word_is_one_line(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_bytes(text)
    with pytest.raises(UserError, match=r"text\.txt: no word in it"):
        dispatch(["lm", str(tmp_path / "text.txt"), "--output", str(tmp_path / "model.bin")])
    assert not (tmp_path / "model.bin").exists()


def test_a_text_that_is_not_utf8_names_its_line(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_bytes(b"good\nna\xefve\n")
    with pytest.raises(UserError, match=r"text\.txt, line 2: not UTF-8"):
        dispatch(["lm", str(tmp_path / "text.txt"), "--output", str(tmp_path / "model.bin")])


def test_text_is_normalised_unless_verbatim(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("The DOGS' naïve-ish \u2018don\u2019t\u2019.\n")
    arguments = ["lm", str(tmp_path / "text.txt"), "--arpa", str(tmp_path / "model.arpa")]
    dispatch(arguments)
    assert words_of(tmp_path / "model.arpa")[3:] == ["dogs", "don't", "ish", "naïve", "the"]
    dispatch([*arguments, "--verbatim"])
    assert words_of(tmp_path / "model.arpa")[3:] == ["DOGS'", "The", "naïve-ish", "‘don’t’."]


def test_packed_text_standard_input_and_several_files_are_one_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = ("\n".join(TEXT[i : i + 2]).encode() for i in (0, 2, 4))
    (tmp_path / "first.gz").write_bytes(gzip.compress(first))
    (tmp_path / "second").write_bytes(lzma.compress(second))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(third)))
    texts = [str(tmp_path / "first.gz"), str(tmp_path / "second"), "-"]
    assert dispatch(["lm", *texts, "--arpa", str(tmp_path / "model.arpa.gz"), "--order", "3"]) == 0
    estimate_text(TEXT, tmp_path, 3)
    packed = (tmp_path / "model.arpa.gz").read_bytes()
    assert gzip.decompress(packed) == (tmp_path / "model.arpa").read_bytes()


def test_an_arpa_file_is_converted_and_a_perplexity_is_told_with_and_without_unknown_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "small.arpa").write_text(ARPA)
    (tmp_path / "text.txt").write_text("A b!\nb x\n")
    arguments = ["--output", str(tmp_path / "small.bin"), "--perplexity", str(tmp_path / "text.txt")]
    assert dispatch(["lm", "--model", str(tmp_path / "small.arpa"), *arguments]) == 0
    printed = capsys.readouterr().out
    assert (
        "2 sentences, 4 words, 1 of them unknown (25.00%); perplexity 3.09 without the unknown words"
        in printed
    )
    assert f"{10 ** (3.65 / 6):.2f} with them as <unk>" in printed
    assert LanguageModel.open(tmp_path / "small.bin").counts == (5, 4, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["TEXT"], "give --output or --arpa"),
        ([], "give either TEXT .* or --model"),
        (["TEXT", "--model", "x"], "give either TEXT .* or --model"),
        (["--model", "x"], "--model: give --output .* or --perplexity"),
        (["TEXT", "--output", "x", "--prune", "0", "2", "1"], "--prune 0 2 1: .* rising"),
        (["TEXT", "--output", "x", "--order", "2", "--prune", "0", "0", "1"], "--prune 0 0 1: give 2 counts"),
        (["missing.txt", "--output", "x"], "missing.txt: no such file"),
    ],
)
def test_arguments_that_make_no_sense_are_one_line(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("TEXT").write_text("a b\n")
    with pytest.raises(UserError, match=message):
        dispatch(["lm", *arguments])


@pytest.mark.parametrize(
    "arguments", [["--memory", "1K"], ["--memory", "x"], ["--bits", "1"], ["--prune", "-1"]]
)
def test_options_out_of_range_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        dispatch(["lm", "text", "--output", "x", *arguments])
    assert arguments[0] in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--output", "--arpa"])
def test_a_place_that_cannot_be_written_is_one_line(option: str, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("a b\n")
    with pytest.raises(UserError, match=r"model: cannot be written"):
        dispatch(["lm", str(tmp_path / "text.txt"), option, str(tmp_path / "text.txt" / "model")])


@given(st.text(st.sampled_from("abZ ''\u2019é-5_\t\r")))
def test_sentences_are_normalised_text(text: str) -> None:
    assert b" ".join(_sentence(text.encode(), False, Path("text"), 1).split()).decode() == normalise(text)


def test_sentence_marks_in_a_verbatim_text_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("<s> a b </s>\n")
    with pytest.raises(UserError, match="the text has the word <s>, which stands for the ends of sentences"):
        dispatch(["lm", str(tmp_path / "text.txt"), "--verbatim", "--output", str(tmp_path / "model.bin")])
