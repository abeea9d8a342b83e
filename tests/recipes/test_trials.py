"""The flagship's trials: losses that do what their names say, and a table that is not made twice."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from asr import audio
from asr.bundle import save_bundle
from asr.data.manifest import load_cuts
from asr.decoding.config import OF_PHONES
from asr.errors import UserError
from asr.frontend import PRIOR, LogMel
from asr.lexicon import Lexicon, PhoneTokenizer
from asr.phones import PHONES, UNKNOWN
from asr.training.schedule import Optimiser
from data_prep import tsv
from recipes.cell_study.contenders import OUTPUTS, REFERENCE, SUBSAMPLING, parameters
from recipes.cell_study.corpus import FRONTEND, Corpus, Speech, prepare, save
from recipes.cell_study.train import Hearing, Task, as_bundle, frame_loss
from recipes.en_small.trials import (
    TRIALS,
    EarlyHearing,
    ManyVoices,
    adapted,
    consistent,
    early,
    main,
    posteriors,
    scale_frequencies,
    smoothed,
    taught,
    uncertain,
    with_teacher,
)

SHAPE = (4, 6, OUTPUTS)  # B, T, O


@pytest.fixture
def said() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (B, T, O, P) and labels (B, T, O), one of which is unknown."""
    torch.manual_seed(1)
    labels = torch.randint(len(PHONES), SHAPE)
    labels[0, 0] = UNKNOWN
    return torch.randn(*SHAPE, len(PHONES)), labels


@pytest.fixture
def corpus() -> Corpus:
    random = np.random.default_rng(0)

    def speech(count: int) -> Speech:
        steps, names = 30 * count, np.array([f"u{number}" for number in range(count)])
        features = random.standard_normal((steps, SUBSAMPLING, FRONTEND.mels)).astype(np.float16)
        labels = random.integers(len(PHONES), size=(steps, OUTPUTS)).astype(np.int8)
        return Speech(features, labels, np.arange(0, steps + 1, 30), names, names, names)

    zeros = np.zeros(FRONTEND.mels, np.float32)
    return Corpus(speech(60), speech(3), zeros, zeros + 1)


@pytest.mark.parametrize("name", TRIALS)
def test_trials_have_about_as_many_parameters_as_the_training_as_it_is(name: str) -> None:
    assert parameters(TRIALS[name].make().encoder.config) == pytest.approx(parameters(REFERENCE), rel=0.06)


def test_with_no_weight_every_loss_is_that_of_the_frames(said: tuple[torch.Tensor, torch.Tensor]) -> None:
    expected = frame_loss(*said).item()
    for loss in (smoothed, uncertain, consistent):
        assert loss(0.0, *said).item() == pytest.approx(expected)


def test_certain_posteriors_are_dearer_when_they_are_to_be_uncertain(
    said: tuple[torch.Tensor, torch.Tensor],
) -> None:
    logits, labels = said
    extra = [(uncertain(1.0, by * logits, labels) - frame_loss(by * logits, labels)).item() for by in (1, 3)]
    assert extra[0] < extra[1] <= 0  # less their entropy, which certain ones have less of


def test_views_that_agree_cost_nothing_more(said: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, labels = said
    alike = logits[:2].repeat(2, 1, 1, 1)
    assert consistent(1.0, alike, labels).item() == pytest.approx(frame_loss(alike, labels).item())
    assert consistent(1.0, logits, labels).item() > frame_loss(logits, labels).item() + 0.1


def test_an_early_block_is_held_to_what_it_hears_sooner() -> None:
    """Its logits say, at each step, the label that the last block's say so many steps later."""
    sooner = sum(REFERENCE.lookahead[1:])
    labels = torch.randint(len(PHONES), (2, 20, OUTPUTS), generator=torch.Generator().manual_seed(0))
    first = torch.nn.functional.one_hot(labels.roll(-sooner, 1), len(PHONES)) * 50.0
    last = torch.nn.functional.one_hot(labels, len(PHONES)) * 50.0
    assert early(0.5, torch.cat([last, first], 2), labels).item() < 1e-3
    assert early(0.5, torch.cat([last, last], 2), labels).item() > 1


def test_an_early_block_speaks_while_training_alone() -> None:
    model = EarlyHearing(REFERENCE)
    features, state = torch.randn(1, 4 * SUBSAMPLING, FRONTEND.mels), model.encoder.initial_state(1)
    assert model.train()(features, state)[0].shape == (1, 4, 2 * OUTPUTS, len(PHONES))
    assert model.eval()(features, state)[0].shape == (1, 4, OUTPUTS, len(PHONES))


def features_of(hertz: float) -> torch.Tensor:
    """(1, 100, M) of a second of a tone."""
    frontend = LogMel(FRONTEND)
    time = torch.arange(FRONTEND.rate) / FRONTEND.rate
    return frontend(torch.sin(2 * torch.pi * hertz * time)[None], frontend.initial_state(1))[0]


@pytest.mark.parametrize("hertz", [500, 1500, 4000])
def test_scaled_frequencies_are_where_such_a_tone_would_have_been(hertz: float) -> None:
    factors = torch.tensor([0.88, 1.0, 1.12])
    scaled = scale_frequencies(features_of(hertz).expand(3, -1, -1), factors)
    for row, factor in zip(scaled, factors.tolist(), strict=True):
        expected = features_of(factor * hertz)[0, 50].argmax()
        assert abs(int(row[50].argmax() - expected)) <= 1
    torch.testing.assert_close(scaled[1:2], features_of(hertz), rtol=0, atol=1e-4)


def test_frequencies_beyond_the_last_band_sound_like_it() -> None:
    features = torch.arange(float(FRONTEND.mels)).expand(2, 2, -1)
    lower, higher = scale_frequencies(features, torch.tensor([0.9, 1.1]))
    assert (lower[0, -4:] == FRONTEND.mels - 1).all()
    assert higher[0, -1] < FRONTEND.mels - 3 and higher[0, 0] == 0


def test_each_utterance_is_less_its_own_running_mean(corpus: Corpus) -> None:
    found = adapted(400, corpus).train.features.astype(np.float32)
    second = (
        corpus.train.features[30:55].astype(np.float32).reshape(-1, FRONTEND.mels)
    )  # it stands still behind
    mean = second.cumsum(0) / (PRIOR + np.arange(1, len(second) + 1))[:, None]
    assert found.shape == corpus.train.features.shape
    assert found[30:55].reshape(-1, FRONTEND.mels) == pytest.approx(second - mean, abs=0.01)


def test_voices_are_many_while_training_alone() -> None:
    model, plain = ManyVoices(0.1, REFERENCE), Hearing(REFERENCE)
    plain.load_state_dict(model.state_dict())
    features, state = torch.randn(1, 20 * SUBSAMPLING, FRONTEND.mels), model.encoder.initial_state(1)
    assert not torch.allclose(model.train()(features, state)[0], plain(features, state)[0])
    torch.testing.assert_close(model.eval()(features, state)[0], plain.eval()(features, state)[0])


def test_a_pupil_that_says_what_its_teacher_does_has_learnt_it(corpus: Corpus) -> None:
    hard = torch.from_numpy(corpus.train.labels).long()
    soft = torch.randn(hard.numel(), len(PHONES)).log_softmax(-1)
    speech, trial = with_teacher(corpus, soft)
    rows = torch.from_numpy(speech.train.labels[:20])[None].clone()
    rows[0, 0] = UNKNOWN
    logits = soft[rows.clamp(min=0)]
    loss = partial(taught, 1.0, hard.flatten(), soft)
    assert loss(logits, rows).item() == pytest.approx(0.0, abs=1e-5)
    assert loss(logits.roll(1, 1), rows).item() > 0.1
    half = trial.loss(logits, rows).item()
    assert half == pytest.approx(0.5 * frame_loss(logits[:, 1:], hard[None, 1:20]).item(), rel=1e-4)


def test_a_trial_with_a_result_is_not_run_again(
    corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(corpus, tmp_path / "speech.npz")
    asked = ["--corpus", str(tmp_path / "speech.npz"), "--directory", str(tmp_path / "out"), "--steps", "24"]
    only = ["--only", "as it is", "intermediate loss 0.3", "two views, consistent 0.5"]
    assert main([*asked, *only]) == 0
    table = capsys.readouterr().out
    assert "| as it is | three blocks, 160 ms of lookahead | 9" in table  # nothing to learn from noise
    assert main([*asked, *only]) == 0
    assert capsys.readouterr().out == table


def test_a_teacher_is_heard_in_the_order_of_the_corpus(corpus: Corpus, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    lines = ["utt_id\tpath\ttext"]
    for name, seconds in (("a", 0.9), ("b", 1.3)):
        noise = 0.1 * random.standard_normal(int(seconds * FRONTEND.rate))
        audio.write(tmp_path / f"{name}.flac", noise.astype(np.float32))
        lines.append(f"{name}\t{name}.flac\tla")
    (tmp_path / "table.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    manifest = tmp_path / "cuts.jsonl.gz"
    assert tsv.main([str(tmp_path / "table.tsv"), "--output", str(manifest)]) == 0
    cuts = sorted(load_cuts([manifest]), key=lambda cut: cut.id)
    tokenizer = PhoneTokenizer(Lexicon({"la": ["la"]}))
    task = Task(corpus, tokenizer, None, Optimiser(rate=1e-3, warmup=2), 24, OF_PHONES)
    save_bundle(tmp_path / "bundle", as_bundle(Hearing(REFERENCE), task))

    def heard(*chosen: int) -> torch.Tensor:
        speech = prepare([cuts[row] for row in chosen], {}, LogMel(FRONTEND))
        made = posteriors(tmp_path / "bundle", manifest, corpus._replace(train=speech))
        assert made.shape == (speech.labels.size, len(PHONES))
        return made

    first, second = heard(0), heard(1)
    assert torch.equal(heard(1, 0), torch.cat([second, first]))
    assert first.float().exp().sum(-1).numpy() == pytest.approx(np.ones(len(first)), abs=0.01)


@pytest.mark.parametrize("options", [["--teacher", "bundle"], ["--cuts", "manifest"], ["--only", "taught"]])
def test_a_teacher_comes_with_its_manifest(options: list[str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--teacher and --cuts"):
        main(["--corpus", "speech.npz", "--directory", str(tmp_path), *options])


def test_a_teacher_of_another_corpus_is_refused(corpus: Corpus) -> None:
    with pytest.raises(UserError, match="give its manifest"):
        with_teacher(corpus, torch.zeros(7, len(PHONES)))
