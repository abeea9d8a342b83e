"""A text with a rule that no n-gram sees: the last word of a sentence is its first one."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.cli import dispatch
from asr.decoding.language_model import LanguageModel
from asr.decoding.neural_model import MixedModel, NeuralModel
from asr.errors import UserError
from asr.neural_lm import training
from asr.neural_lm.corpus import BEGIN, END, LONGEST, UNKNOWN, Batch, Corpus, Epoch, read
from asr.neural_lm.training import NeuralLmTraining

WORDS = ("apple", "bear", "cat", "door", "egg")


def write_text(path: Path, seed: int, sentences: int) -> Path:
    generator = random.Random(seed)
    lines = []
    for _ in range(sentences):
        first, *middle = generator.choices(WORDS, k=5)
        lines.append(" ".join([first, *middle, first]))
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("neural")
    write_text(directory / "train.txt", 1, 2000)
    write_text(directory / "dev.txt", 2, 200)
    assert dispatch(["lm", str(directory / "train.txt"), "--output", str(directory / "lm.bin")]) == 0
    return directory


def arguments(texts: Path, output: Path, *more: str) -> list[str]:
    files = [str(texts / "train.txt"), "--lm", str(texts / "lm.bin"), "--dev", str(texts / "dev.txt")]
    sizes = ["--embedding", "8", "--hidden", "32", "--projection", "16", "--batch", "64"]
    return ["neural-lm", *files, "--output", str(output), *sizes, *more]


def test_it_learns_what_n_grams_cannot_and_the_mixture_is_better_than_either(
    texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "neural.safetensors"
    assert dispatch(arguments(texts, output, "--epochs", "3", "--rate", "1e-2")) == 0
    ngrams = LanguageModel.open(texts / "lm.bin")
    mixed, lines = MixedModel(ngrams, output), (texts / "dev.txt").read_text().splitlines()
    alone, together = (model.perplexity(lines).without_unknown for model in (ngrams, mixed))
    assert together < 0.85 * alone
    said = capsys.readouterr().out
    assert f"both, with a share of {mixed.share:.2f}: perplexity {together:.1f}" in said
    assert not list(tmp_path.glob("*.checkpoints"))


def test_stopped_and_called_again_it_ends_where_it_would_have(
    texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "FREQUENT", 4)  # so that some are drawn
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    assert dispatch(arguments(texts, whole, "--epochs", "0.2")) == 0
    step = NeuralLmTraining.training_step

    def interrupted(self: NeuralLmTraining, batch: Batch, number: int) -> torch.Tensor:
        self.trainer.should_stop |= self.global_step == 11
        return step(self, batch, number)

    monkeypatch.setattr(NeuralLmTraining, "training_step", interrupted)
    assert dispatch(arguments(texts, parts, "--epochs", "0.2")) == 130
    assert not parts.exists()
    with pytest.raises(UserError, match="delete its checkpoint"):
        dispatch(arguments(texts, parts, "--epochs", "0.2", "--hidden", "16"))
    last = next(tmp_path.glob("*.checkpoints/*"))
    kept = last.read_bytes()
    last.write_bytes(kept[:-1000])
    with pytest.raises(UserError, match="damaged one; delete it to begin anew"):
        dispatch(arguments(texts, parts, "--epochs", "0.2"))
    last.write_bytes(kept)
    assert dispatch(arguments(texts, parts, "--epochs", "0.2")) == 0
    ngrams = LanguageModel.open(texts / "lm.bin")
    scores = [MixedModel(ngrams, path).scores("apple bear cat") for path in (whole, parts)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)


def test_it_goes_on_from_another_ones_numbers_words_in_another_order(texts: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    assert dispatch(arguments(texts, first, "--epochs", "0.5")) == 0
    other = tmp_path / "other.txt"
    other.write_text("egg egg egg door door cat\n")
    given = ["--lm", str(texts / "lm.bin"), "--dev", str(texts / "dev.txt"), "--output", str(second)]
    still = ["--init-from", str(first), "--rate", "0"]  # its sizes are not asked for again
    assert dispatch(["neural-lm", str(other), *given, *still]) == 0
    one, two = NeuralModel.load(first), NeuralModel.load(second)
    assert two.words == ("egg", "door", "cat")
    rows = [3 + one.words.index(word) for word in two.words]
    assert np.allclose(two.outputs[3:], one.outputs[rows], atol=1e-3)
    ngrams = LanguageModel.open(texts / "lm.bin")
    for path, model in ((first, one), (second, two)):
        replace(model, share=1.0).save(path)
    scores = [MixedModel(ngrams, path).scores("egg cat door egg") for path in (first, second)]
    assert scores[0] == pytest.approx(scores[1], abs=0.01)


def test_a_text_as_numbers(texts: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("apple bear\ncat unheard apple\n\napple\n")
    corpus = read([tmp_path / "text.txt"], 2, LanguageModel.open(texts / "lm.bin"))
    apple, bear = (3 + corpus.words.index(word) for word in ("apple", "bear"))
    assert corpus.ids.tolist() == [apple, bear, END, UNKNOWN, UNKNOWN, apple, END, apple, END]
    assert corpus.counts().tolist() == [2, 0, 3, 3, 1]


def sequences(epoch: Epoch) -> list[list[int]]:
    """What is said, of texts whose words are 3, 4, ...; checks what is given as said before."""
    found = []
    for batch in epoch:
        for before, words, real in zip(*batch, strict=True):
            said = words[real].tolist()
            assert before[real].tolist()[1:] == said[:-1]
            if said[0] != END:  # a part of a sentence follows the one before
                assert before[0] == (BEGIN if said[0] == 3 else said[0] - 1)
            found.append(said)
    return found


@given(st.lists(st.integers(1, 3 * LONGEST), min_size=1, max_size=30), st.integers(1, 500))
@settings(max_examples=30, deadline=None)
def test_an_epoch_has_every_word_once_in_batches_of_no_more_than_was_asked_for(
    lengths: list[int], size: int
) -> None:
    ids = np.concatenate([[*range(3, 3 + length), END] for length in lengths]).astype(np.int32)
    epoch = Epoch(Corpus(("",) * (3 * LONGEST), ids), size, joined=0.0, seed=1)
    assert all(batch.words.numel() <= max(size, LONGEST) for batch in epoch)
    assert sorted(word for said in sequences(epoch) for word in said) == sorted(ids.tolist())


def test_some_sentences_go_on_in_the_next_one() -> None:
    ids = np.tile(np.array([3, 4, END], np.int32), 1000)
    said = sequences(Epoch(Corpus(("a", "b"), ids), 64, joined=0.25, seed=1))
    assert 0.2 < 1 - len(said) / 1000 < 0.3
    assert {tuple(each[:-1]) for each in said} <= {(3, 4) * times for times in range(1, 20)}
    assert all(each[-1] == END for each in said)


def test_texts_without_a_word_are_refused(texts: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(UserError, match="no word in it to learn from"):
        read([tmp_path / "empty.txt"], 10, LanguageModel.open(texts / "lm.bin"))
