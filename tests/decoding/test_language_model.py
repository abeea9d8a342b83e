from __future__ import annotations

import gzip
import lzma
import math
import random
import struct
import sys
from pathlib import Path

import pytest

from asr.decoding.language_model import KENLM, LanguageModel, read_arpa
from asr.errors import UserError
from tests.decoding.conftest import ARPA, TEXT, estimate_text

LN10 = math.log(10)
GOLDEN = Path(__file__).parents[1] / "golden"


def scores(model: LanguageModel, text: str) -> list[float]:
    """In log10, as ARPA files have them."""
    return [score / LN10 for score in model.scores(text)]


def test_scores_back_off_as_computed_by_hand(arpa: Path) -> None:
    model = LanguageModel.open(arpa)
    assert model.order == 3 and model.counts == (5, 4, 2)
    assert scores(model, "a b") == pytest.approx([-0.2, -0.15, -0.1])
    expected = [
        -0.5 - 0.7,  # <s> b: back-off of <s>
        -0.3,  # b a
        -0.3 - 1.0,  # x is <unk>: b a begins nothing, back-off of a
        -0.6,  # <unk> begins nothing
        -0.4,  # a b
        -0.25 - 0.2 - 0.7,  # a b b: back-offs of a b and of b
        -0.35,  # b </s>
    ]
    assert scores(model, "b a x a b b") == pytest.approx(expected)


def test_perplexity_counts_ends_of_sentences_and_tells_unknown_words_apart(arpa: Path) -> None:
    found = LanguageModel.open(arpa).perplexity(["a b", "", "b x"])
    assert (found.sentences, found.words, found.unknown) == (2, 4, 1)
    known = -0.2 - 0.15 - 0.1 - 0.5 - 0.7 - 0.8  # a b </s>, b, and </s> after <unk>
    unknown = -0.2 - 1.0
    assert found.without_unknown == pytest.approx(10 ** (-known / 5), rel=1e-5)
    assert found.with_unknown == pytest.approx(10 ** (-(known + unknown) / 6), rel=1e-5)


@pytest.mark.parametrize("bits", [4, 8, 16, 32])
def test_a_binary_scores_as_its_arpa_within_its_quantisation(bits: int, tmp_path: Path) -> None:
    estimate_text(TEXT, tmp_path, order=4)
    exact = LanguageModel.open(tmp_path / "model.arpa")
    binary = read_arpa(tmp_path / "model.arpa", tmp_path / "binary", bits)
    again = LanguageModel.open(tmp_path / "binary")
    error = {4: 0.6, 8: 0.05, 16: 1e-5, 32: 0}[bits]
    for sentence in [*TEXT, "the cat saw a unicorn", "mat mat mat"]:
        assert again.scores(sentence) == binary.scores(sentence)
        assert again.scores(sentence) == pytest.approx(exact.scores(sentence), abs=error)


@pytest.mark.parametrize(
    "change", ["tabs", "CRLF", "spaces", "gz", "xz", "no newline at the end", "a heading"]
)
def test_arpa_files_as_others_write_them_are_the_same(change: str, tmp_path: Path) -> None:
    text = {
        "tabs": ARPA.replace(" ", "\t").replace("ngram\t", "ngram "),
        "CRLF": ARPA.replace("\n", "\r\n"),
        "spaces": ARPA.replace("\t", "  "),
        "no newline at the end": ARPA.rstrip(),
        "a heading": "made by a program\n\n" + ARPA,
    }.get(change, ARPA)
    packed = {"gz": gzip.compress, "xz": lzma.compress}.get(change, bytes)(text.encode())
    (tmp_path / "changed").write_bytes(packed)
    (tmp_path / "plain").write_text(ARPA)
    changed, plain = LanguageModel.open(tmp_path / "changed"), LanguageModel.open(tmp_path / "plain")
    assert changed.scores("b a x a b b") == plain.scores("b a x a b b")


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("-0.7\tb", "nan\tb", r"line 11: 'nan' is no log-probability"),
        ("-0.7\tb", "inf\tb", r"line 11: 'inf' is no log-probability"),
        ("-0.7\tb", "0.7\tb", r"line 11: '0.7' is above 0"),
        ("-0.3\n-0.7", "x\n-0.7", r"line 10: 'x' is no back-off"),
        ("-0.3\tb a", "-0.3\tb c", r"line 16: 'c' is not among the 1-grams"),
        ("-0.3\tb a", "-0.3\ta b", r"line 16: this n-gram is there twice, also in line 15"),
        ("-0.7\tb", "-0.7\ta", r"line 11: 'a' is there twice in \\1-grams:"),
        ("-0.3\tb a", "-0.3\tb", r"line 16: expected a probability, 2 words and perhaps a back-off"),
        ("-0.1\ta b </s>", "-0.1\ta b </s>\t0", r"line 21: expected a probability, 3 words, found"),
        ("-0.1\ta b </s>", "-0.1\tb b </s>", r"line 21: 'b b </s>' is there, and 'b b', .* is not"),
        ("ngram 2=4", "ngram 2=5", r"line 19: \\2-grams: has 4 n-grams, and the header tells 5"),
        ("ngram 2=4", "ngram 2=3", r"line 17: more than the 3 n-grams that the header tells"),
        ("ngram 2=4", "ngram 4=4", r"line 3: expected the count of order 2"),
        ("ngram 2=4", "ngrams", r"line 3: expected 'ngram ORDER=COUNT', found 'ngrams'"),
        ("-0.8\t</s>", "-0.8\tc", r"line 13: no </s> among the 1-grams"),
        ("-99\t<s>", "-99\tc", r"line 13: no <s> among the 1-grams"),
        ("\\3-grams:", "\\4-grams:", r"line 19: expected \\3-grams:, found '\\4-grams:'"),
        ("\\end\\\n", "", r"line 22: it ends before \\end\\: is it truncated\?"),
        ("\\3-grams:\n-0.15\t<s> a b\n-0.1\ta b </s>\n\n\\end\\\n", "", r"line 18: it ends before \\end\\"),
        (ARPA, "", r"line 0: no \\data\\ in it: is this an ARPA file\?"),
        (ARPA, "no\n" * 2000, r"line 1001: no \\data\\ so far"),
    ],
)
def test_a_bad_arpa_file_is_one_line_with_its_place(old: str, new: str, line: str, tmp_path: Path) -> None:
    assert ARPA.count(old) == 1
    (tmp_path / "bad.arpa").write_text(ARPA.replace(old, new))
    with pytest.raises(UserError, match=rf"bad\.arpa, {line}") as error:
        LanguageModel.open(tmp_path / "bad.arpa")
    assert "\n" not in str(error.value)


def test_any_cut_of_an_arpa_file_is_named(tmp_path: Path) -> None:
    bad = tmp_path / "bad.arpa"
    for size in range(0, len(ARPA) - len("\\end\\\n"), 7):
        bad.write_text(ARPA[:size])
        with pytest.raises(UserError, match=r"bad\.arpa, line \d+: "):
            LanguageModel.open(bad)


def test_an_arpa_word_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.arpa").write_bytes(ARPA.replace("b", "\u00e9").encode("latin-1"))
    with pytest.raises(UserError, match=r"bad\.arpa: the word b'\\xe9' among its 1-grams is not UTF-8"):
        LanguageModel.open(tmp_path / "bad.arpa")


def test_a_truncated_gz_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.arpa.gz").write_bytes(gzip.compress(ARPA.encode())[:-20])
    with pytest.raises(UserError, match=r"bad\.arpa\.gz: cannot be unpacked .*truncated"):
        LanguageModel.open(tmp_path / "bad.arpa.gz")


def test_an_upper_case_vocabulary_is_read_in_lower_case_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    upper = ARPA.replace("\ta", "\tA").replace("\tb", "\tÉTÉ").replace(" b", " ÉTÉ").replace(" a", " A")
    (tmp_path / "upper.arpa").write_text(upper.replace("<unk>", "<UNK>"))
    (tmp_path / "lower.arpa").write_text(ARPA.replace("b", "été"))
    found = LanguageModel.open(tmp_path / "upper.arpa")
    assert "upper.arpa: its words are upper case, and are read in lower case" in capsys.readouterr().err
    assert found.scores("a été x") == LanguageModel.open(tmp_path / "lower.arpa").scores("a été x")
    assert not capsys.readouterr().err


def test_a_model_without_unknown_words_still_scores_them(tmp_path: Path) -> None:
    text = ARPA.replace("-1.0\t<unk>\n", "").replace("ngram 1=5", "ngram 1=4")
    (tmp_path / "closed.arpa").write_text(text)
    assert scores(LanguageModel.open(tmp_path / "closed.arpa"), "x")[0] == pytest.approx(-100.5)


def test_suffixes_that_a_model_leaves_out_are_backed_off(tmp_path: Path) -> None:
    text = ARPA.replace("-0.35\tb </s>\n", "").replace("ngram 2=4", "ngram 2=3")
    (tmp_path / "pruned.arpa").write_text(text)
    for bits in (8, 32):
        model = read_arpa(tmp_path / "pruned.arpa", tmp_path / "pruned.bin", bits)
        assert scores(model, "a b")[-1] == pytest.approx(-0.1)  # a b </s> is there, b </s> is not
        assert scores(model, "b")[-1] == pytest.approx(-0.2 - 0.8)


@pytest.mark.parametrize("size", [10, 100, 500, -1])
def test_a_truncated_binary_is_named(size: int, arpa: Path, tmp_path: Path) -> None:
    read_arpa(arpa, tmp_path / "model.bin", 8)
    whole = (tmp_path / "model.bin").read_bytes()
    (tmp_path / "bad.bin").write_bytes(whole[:size])
    with pytest.raises(UserError, match=r"bad\.bin: .*is it truncated\?"):
        LanguageModel.open(tmp_path / "bad.bin")


def test_a_binary_of_another_version_or_with_a_damaged_header_is_named(arpa: Path, tmp_path: Path) -> None:
    read_arpa(arpa, tmp_path / "model.bin", 8)
    whole = (tmp_path / "model.bin").read_bytes()
    (tmp_path / "new.bin").write_bytes(whole[:8] + struct.pack("<I", 99) + whole[12:])
    with pytest.raises(UserError, match=r"new\.bin: of version 99, .* asr lm"):
        LanguageModel.open(tmp_path / "new.bin")
    (tmp_path / "bad.bin").write_bytes(whole[:24] + b"\xff" + whole[25:])
    with pytest.raises(UserError, match=r"bad\.bin: its header is damaged"):
        LanguageModel.open(tmp_path / "bad.bin")


def test_a_binary_damaged_behind_its_header_never_crashes(arpa: Path, tmp_path: Path) -> None:
    estimate_text(TEXT, tmp_path, order=4)
    whole = (tmp_path / "model.bin").read_bytes()
    generator = random.Random(0)
    for _ in range(200):
        damaged = bytearray(whole)
        for _ in range(8):
            damaged[generator.randrange(400, len(whole))] = generator.randrange(256)
        (tmp_path / "bad.bin").write_bytes(damaged)
        model = LanguageModel.open(tmp_path / "bad.bin")
        for sentence in TEXT:
            model.scores(sentence)


def test_what_is_no_language_model_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.bin: no such language model; asr lm makes one"):
        LanguageModel.open(tmp_path / "none.bin")
    with pytest.raises(UserError, match="cannot be read"):
        LanguageModel.open(tmp_path)
    (tmp_path / "noise.bin").write_bytes(bytes(range(256)) * 100)
    with pytest.raises(UserError, match=r"noise\.bin, line \d+: "):
        LanguageModel.open(tmp_path / "noise.bin")


def test_a_tokenizer_of_another_alphabet_is_one_line(arpa: Path, tmp_path: Path) -> None:
    model = LanguageModel.open(arpa)
    model.check_alphabet(["<blank>", "<unk>", "▁a", "b"])
    model.check_alphabet(["<blank>", "<unk>", "▁", "ab"])
    with pytest.raises(
        UserError, match=r"small\.arpa: the tokenizer can spell 0% of its words \(no token has ab\)"
    ):
        model.check_alphabet(["▁т", "и"])
    (tmp_path / "cyrillic.arpa").write_text(
        ARPA.replace("a", "тот").replace("b", "и").replace("дата", "data")
    )


def test_a_few_foreign_words_are_no_other_alphabet(tmp_path: Path) -> None:
    estimate_text(["a b", "b a", "été a b b"] * 3, tmp_path, order=2)
    LanguageModel.open(tmp_path / "model.bin").check_alphabet(["▁a", "b"])


def test_kenlm_scores_our_arpa_files_as_we_do(tmp_path: Path) -> None:
    kenlm = pytest.importorskip("kenlm", reason="pip install '.[kenlm]' (minutes) to compare with it")
    for choices in ({}, {"prune": (0, 0, 1)}, {"prune_entropy": 0.01}):
        estimate_text(TEXT, tmp_path, order=4, **choices)
        ours = LanguageModel.open(tmp_path / "model.arpa")
        theirs = kenlm.Model(str(tmp_path / "model.arpa"))
        for sentence in [*TEXT, "the cat saw a unicorn", "mat mat mat"]:
            expected = [score * LN10 for score, _, _ in theirs.full_scores(sentence)]
            assert ours.scores(sentence) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("kind", ["probing", "trie"])
def test_a_kenlm_binary_scores_as_its_arpa(kind: str, arpa: Path) -> None:
    """tests/golden/kenlm_*.bin were written by KenLM 0.3.0 from ARPA of conftest.py."""
    pytest.importorskip("kenlm", reason="pip install '.[kenlm]' (minutes) to read its binaries")
    ours, theirs = LanguageModel.open(arpa), LanguageModel.open(GOLDEN / f"kenlm_{kind}.bin")
    assert (theirs.order, theirs.vocabulary) == (3, 5)
    for sentence in ["a b", "b a x a b b", "x", "a a a a"]:
        assert theirs.scores(sentence) == pytest.approx(ours.scores(sentence), abs=1e-5)
    theirs.check_alphabet(["▁a", "b"])
    with pytest.raises(UserError, match="no token has ab"):
        theirs.check_alphabet(["▁т", "и"])


def test_a_kenlm_binary_without_kenlm_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "kenlm", None)
    (tmp_path / "their.bin").write_bytes(KENLM + bytes(200))
    with pytest.raises(UserError, match=r"their\.bin is of KenLM.*pip install 'asr\[kenlm\]'"):
        LanguageModel.open(tmp_path / "their.bin")


@pytest.mark.parametrize("size", [64, 200, 380])
def test_a_truncated_kenlm_binary_is_named(size: int, tmp_path: Path) -> None:
    pytest.importorskip("kenlm", reason="pip install '.[kenlm]' (minutes) to read its binaries")
    (tmp_path / "bad.bin").write_bytes((GOLDEN / "kenlm_probing.bin").read_bytes()[:size])
    with pytest.raises(UserError, match=r"bad\.bin: .*") as error:
        LanguageModel.open(tmp_path / "bad.bin")
    assert "\n" not in str(error.value)
