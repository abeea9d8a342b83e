"""The cell study: fair sizes, streams that go on, results that are those of the bundle."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from asr.bundle import load_bundle
from asr.decoding.config import OF_PHONES
from asr.evaluation.bootstrap import groups
from asr.lexicon import Lexicon, PhoneTokenizer
from asr.phones import INDEX, PHONES, SILENCE, UNKNOWN
from asr.training.schedule import Optimiser
from recipes.cell_study.contenders import (
    LOOKAHEAD,
    NAMES,
    OUTPUTS,
    REFERENCE,
    SUBSAMPLING,
    encoder,
    parameters,
)
from recipes.cell_study.corpus import FRONTEND, STEP, Corpus, Speech, load, save, streams
from recipes.cell_study.study import RATES, best_rate
from recipes.cell_study.table import figure, level, steps_to
from recipes.cell_study.train import CURVE, PRIOR, RESULT, Hearing, Task, examples, judge, run, shares

MELS = FRONTEND.mels


def speech(count: int, seed: int) -> Speech:
    """Utterances of 30 steps, "la" in each; feature 0 says the phone, feature 1 the step."""
    random = np.random.default_rng(seed)
    labels = np.full((count, 30, OUTPUTS), SILENCE, np.int8)
    labels[:, 5:10], labels[:, 10:18] = INDEX["L"], INDEX["AA"]
    labels[-1] = UNKNOWN if count > 1 and seed == 2 else labels[-1]
    features = 0.1 * random.standard_normal((count * 30, SUBSAMPLING, MELS))
    features[..., 0] += labels.reshape(-1, OUTPUTS)[:, :1]
    features[..., 1] = np.arange(count * 30)[:, None]
    starts = np.arange(0, count * 30 + 1, 30)
    names = np.array([f"u{number}" for number in range(count)])
    return Speech(
        features.astype(np.float16),
        labels.reshape(-1, OUTPUTS),
        starts,
        names,
        np.array(["la"] * count),
        names,
    )


@pytest.fixture
def task() -> Task:
    corpus = Corpus(speech(60, 1), speech(5, 2), np.zeros(MELS, np.float32), np.ones(MELS, np.float32))
    tokenizer = PhoneTokenizer(Lexicon({"la": ["la"], "so": ["so"]}))
    return Task(corpus, tokenizer, None, Optimiser(rate=1e-3, warmup=2), 24, OF_PHONES)


@pytest.mark.parametrize("name", NAMES)
def test_contenders_have_as_many_parameters_as_the_first(name: str) -> None:
    assert parameters(encoder(name)) == pytest.approx(parameters(REFERENCE), rel=0.02)


def test_a_corpus_comes_back_from_its_file(task: Task, tmp_path: Path) -> None:
    save(task.corpus, tmp_path / "corpus.npz")
    back, given = load(tmp_path / "corpus.npz"), task.corpus
    arrays = [[*each.train, *each.dev, each.mean, each.std] for each in (back, given)]
    for got, expected in zip(*arrays, strict=True):
        assert np.array_equal(got, expected) and got.dtype == expected.dtype


def test_a_row_of_a_stream_goes_on_where_it_ended() -> None:
    batches = streams(speech(12, 1), 3, 10, np.random.default_rng(0))
    features, labels = zip(*(next(batches) for _ in range(12)), strict=True)
    steps = (
        torch.cat(features, 1)[:, ::SUBSAMPLING, 1].view(3, 120).round().long()
    )  # its number, of each step
    assert steps.flatten().sort().values.tolist() == list(range(360))  # an epoch has all
    assert ((steps.diff() == 1) | (steps[:, 1:] % 30 == 0)).all()
    assert (torch.cat(labels, 1)[:, :, 0] == torch.from_numpy(speech(12, 1).labels[:, 0])[steps]).all()


def test_a_run_leaves_a_bundle_that_hears_what_was_judged(task: Task, tmp_path: Path) -> None:
    run("gru", 1, task, tmp_path)
    result = json.loads((tmp_path / RESULT).read_text())
    assert len(result["errors"]) == 5 and len(result["curve"]) == CURVE
    assert result["known"] == [52, 52, 52, 52, 0]
    assert result["parameters"] == sum(each.numel() for each in Hearing(encoder("gru")).parameters())

    model = load_bundle(tmp_path).model
    hearing = Hearing(encoder("gru")).eval()
    hearing.encoder.load_state_dict(model.encoder.state_dict())
    phones = model.head.weight.unflatten(0, (OUTPUTS, -1))[:, [0, *range(2, 41)]]  # each phone's first token
    bias = model.head.bias.unflatten(0, (OUTPUTS, -1))[:, [0, *range(2, 41)]]
    bias = bias + PRIOR * shares(task.corpus.train).log()
    hearing.phones.load_state_dict({"weight": phones.flatten(0, 1), "bias": bias.flatten()})
    found = judge(hearing, task.corpus.dev)
    assert (found.wrong, found.known) == (result["wrong"], result["known"])
    features = torch.from_numpy(task.corpus.dev.features[:30]).float().flatten(0, 1)[None]
    with torch.inference_mode():
        encoded, _ = model.encoder(features, model.encoder.initial_state(1))
        expected = model.drop_lookahead(model.logits(encoded).log_softmax(-1))[0]
    (first, *_) = examples(found, task)
    said = np.delete(np.stack([first.log_probs, expected.numpy()]), 1, -1)  # <unk> aside, which is never said
    np.testing.assert_allclose(*said, atol=1e-4)
    assert first.seconds == pytest.approx((30 - LOOKAHEAD) * STEP / FRONTEND.rate)

    written = (tmp_path / RESULT).stat().st_mtime_ns
    run("gru", 1, task, tmp_path)
    assert (tmp_path / RESULT).stat().st_mtime_ns == written


class Parrot(nn.Module):
    """Says what the features hold, `lookahead` steps later."""

    def __init__(self, lookahead: int) -> None:
        super().__init__()
        self.lookahead = lookahead

    @property
    def encoder(self) -> Parrot:
        return self

    def initial_state(self, batch: int) -> None:
        return None

    def forward(self, features: Tensor, state: None) -> tuple[Tensor, None]:
        labels = features[:, ::SUBSAMPLING, :OUTPUTS].long().clamp(min=0)
        late = nn.functional.pad(labels, (0, 0, self.lookahead, 0))[:, : labels.size(1)]
        return nn.functional.one_hot(late, len(PHONES)).float(), None


@pytest.mark.parametrize("lookahead", [0, LOOKAHEAD, 2 * LOOKAHEAD])
def test_frames_are_judged_by_what_comes_the_lookahead_later(lookahead: int, task: Task) -> None:
    dev = task.corpus.dev
    features = np.zeros_like(dev.features)
    features[:, 0, :OUTPUTS] = dev.labels
    found = judge(Parrot(lookahead), dev._replace(features=features))  # type: ignore[arg-type]
    assert sum(found.known) > 0 == sum(found.wrong)


def test_the_rate_is_the_best_of_all_contenders_together(tmp_path: Path) -> None:
    (tmp_path / "rates").mkdir()
    for name, errors in (("gru", (50.0, 52.0, 48.0)), ("lstm", (53.0, 50.0, 60.0))):
        tried = {str(rate): error for rate, error in zip(RATES, errors, strict=True)}
        (tmp_path / "rates" / f"{name}.json").write_text(json.dumps(tried))
    assert best_rate(tmp_path) == RATES[1]


def test_an_interval_is_as_wide_as_seeds_and_speakers_differ() -> None:
    over = groups(["a", "a", "b", "b"])

    def result(seed: int, *errors: int) -> dict:
        return {"seed": seed, "errors": errors, "words": [10, 10, 10, 10]}

    first = [result(1, 2, 2, 4, 4), result(2, 2, 2, 4, 4)]  # 20 % of one speaker's words, 40 % of the other's
    same = figure(first, first, "errors", "words", over)
    assert same.rate == pytest.approx(0.3)
    assert (same.interval.low, same.interval.high) == pytest.approx((0.2, 0.4))
    assert (same.more, same.more_interval.low, same.more_interval.high) == pytest.approx((0, 0, 0))

    worse = [result(1, 3, 3, 5, 5), result(3, 5, 5, 7, 7)]  # 10 and 30 points more, whoever speaks
    found = figure(worse, first, "errors", "words", over)
    assert found.more == pytest.approx(0.2)
    assert (found.more_interval.low, found.more_interval.high) == pytest.approx((0.1, 0.3))


def test_steps_to_an_error_are_read_off_the_mean_of_the_seeds() -> None:
    slow = [{"curve": [[100, 60.0], [200, 40.0]]}, {"curve": [[100, 60.0], [200, 44.0]]}]  # ends at 42
    fast = [{"curve": [[100, 50.0], [200, 30.5]]}]
    assert level({"slow": slow, "fast": fast}) == 42
    assert steps_to(51, slow) == pytest.approx(150)
    assert steps_to(51, fast) == 100
