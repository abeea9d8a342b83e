from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from asr.decoding.beam import BeamDecoder
from asr.decoding.config import DecodingConfig
from asr.decoding.language_model import SPECIAL, LanguageModel, State
from asr.decoding.neural_model import MixedModel, NeuralModel
from asr.errors import UserError
from asr.neural_lm.network import Network
from tests.decoding.conftest import estimate_text

TEXT = ["the fox ran", "the dog ran home", "a fox saw the dog", "home ran a fox"]
WORDS = ("the", "fox", "dog", "ran")  # "home", "a" and "saw" are left to the n-grams


@pytest.fixture
def ngrams(tmp_path: Path) -> LanguageModel:
    estimate_text(TEXT, tmp_path, order=2)
    return LanguageModel.open(tmp_path / "model.arpa")


def network(seed: int = 0, output: int = 20) -> Network:
    torch.manual_seed(seed)
    made = Network(len(SPECIAL) + len(WORDS), embedding=7, hidden=24, projection=output)
    for each in (made.outputs, made.embeddings.weight, made.cell.bias_hn, made.cell.bias):
        torch.nn.init.normal_(each)
    return made


def save(tmp_path: Path, network: Network, share: float) -> Path:
    network.export(WORDS, share).save(tmp_path / "neural.safetensors")
    return tmp_path / "neural.safetensors"


def log_probs(network: Network, words: list[str]) -> list[float]:
    """Of words and the end, as torch has it; words that it does not know are <unk>."""
    ids = {word: number for number, word in enumerate((*SPECIAL, *WORDS))}
    said = torch.tensor([ids.get(word, 0) for word in ("<s>", *words, "</s>")])
    scores = network(said[None, :-1])[0] @ network.outputs.T + network.bias
    return scores.gather(1, said[1:, None]).squeeze(1).tolist()


@pytest.mark.parametrize("output", [20, 16, 3])
def test_a_word_scores_the_mixture_of_both(ngrams: LanguageModel, tmp_path: Path, output: int) -> None:
    net, words = (
        network(output=output),
        ["the", "dog", "ran", "the", "the", "fox", "ran", "dog", "dog", "fox"],
    )
    mixed = MixedModel(ngrams, save(tmp_path, net, 0.3))
    neural = [min(0.0, score) for score in log_probs(net, words)]
    both = [
        math.log(0.3 * math.exp(one) + 0.7 * math.exp(other))
        for one, other in zip(neural, ngrams.scores(" ".join(words)), strict=True)
    ]
    assert mixed.scores(" ".join(words)) == pytest.approx(both, abs=0.05)  # weights are rounded


def test_words_that_the_neural_model_lacks_share_what_it_gives_to_unknown_ones(
    ngrams: LanguageModel, tmp_path: Path
) -> None:
    net = network(1)
    with torch.no_grad():
        net.bias[0] = -3.0
    alone = MixedModel(ngrams, save(tmp_path, net, 1.0))
    unigram = {word: math.exp(ngrams.score(State(), word)[0]) for word in ("home", "a", "saw", "<unk>")}
    neural = log_probs(net, ["the", "home"])[1]
    wanted = neural + math.log(unigram["home"] / sum(unigram.values()))
    assert alone.scores("the home")[1] == pytest.approx(wanted, abs=0.05)


def test_a_state_without_words_is_asked_for_unigrams_of_the_n_grams(
    ngrams: LanguageModel, tmp_path: Path
) -> None:
    mixed = MixedModel(ngrams, save(tmp_path, network(), 0.5))
    assert mixed.score(State(), "fox")[0] == ngrams.score(State(), "fox")[0]


def test_the_beam_hears_the_words_that_the_neural_model_expects(
    ngrams: LanguageModel, tmp_path: Path
) -> None:
    """After "the", the sound of "fox" and of "dog" alike; the neural model is certain."""
    pieces = ("<blank>", "<unk>", "▁the", "▁fox", "▁dog")
    rows = np.full((6, len(pieces)), 1e-4, np.float32)
    rows[(0, 1, 2, 3, 4, 5), (0, 2, 0, 3, 0, 0)] = 1
    rows[3, 4] = 1
    frames = np.log(rows / rows.sum(1, keepdims=True))
    config = DecodingConfig(beam=8, lm_weight=1.0)
    for favoured in ("fox", "dog"):
        net = network()
        with torch.no_grad():
            net.bias.fill_(-9.0)
            net.outputs.zero_()
            net.bias[len(SPECIAL) + WORDS.index(favoured)] = -0.01
        model = MixedModel(ngrams, save(tmp_path, net, 0.9))
        decoder = BeamDecoder(pieces, config, model)
        decoder.accept(frames)
        decoder.flush()
        assert [word.text for word in decoder.take()] == ["the", favoured]


def test_what_is_kept_of_histories_does_not_change_what_they_score(
    ngrams: LanguageModel, tmp_path: Path
) -> None:
    """More histories than there is room for, twice."""
    mixed = MixedModel(ngrams, save(tmp_path, network(), 0.5))
    generator = np.random.default_rng(0)
    sentences = [" ".join(generator.choice(WORDS, 12)) for _ in range(1000)]
    first = [mixed.scores(sentence) for sentence in sentences]
    assert [mixed.scores(sentence) for sentence in reversed(sentences)] == first[::-1]


def test_files_that_are_no_models_are_named(ngrams: LanguageModel, tmp_path: Path) -> None:
    whole = save(tmp_path, network(), 0.5)
    (tmp_path / "cut.safetensors").write_bytes(whole.read_bytes()[:-100])
    (tmp_path / "text.safetensors").write_text("no tensors")
    made = network().export(WORDS, 0.5)
    NeuralModel(WORDS[:-1], 0.5, made.embeddings, made.outputs, made.bias, made.layers).save(
        tmp_path / "short.safetensors"
    )
    for name, share in (("more", 1.5), ("nan", math.nan)):
        NeuralModel(WORDS, share, made.embeddings, made.outputs, made.bias, made.layers).save(
            tmp_path / f"{name}.safetensors"
        )
    save_file({"words": np.zeros(1, np.uint8)}, tmp_path / "old.safetensors", {"format": "asr-neural-lm 1"})
    for name, reason in (
        ("old", "of this version"),
        ("more", "a share of 1.5"),
        ("nan", "a share of nan"),
        ("cut", "copy it again"),
        ("text", "copy it again"),
        ("none", "no such neural language model"),
        ("short", "has another size than the rest"),
    ):
        with pytest.raises(UserError, match=f"{name}.safetensors.*{reason}"):
            MixedModel(ngrams, tmp_path / f"{name}.safetensors")
