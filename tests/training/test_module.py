from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from asr.data.augment import SpecAugment
from asr.data.dataset import Batch
from asr.data.phones import phone_log_probs
from asr.encoder import EncoderConfig
from asr.errors import UserError
from asr.phones import INDEX, SILENCE, UNKNOWN
from asr.training.callbacks import Ema
from asr.training.checkpoint import average
from asr.training.denominator import denominator_graph, log_denominator
from asr.training.module import MOST_LEFT_OUT, CtcTraining, Objective, measure_statistics
from asr.training.penalty import penalties
from asr.training.schedule import Optimiser, make_optimiser, schedule
from tests.conftest import signal

ENCODER = EncoderConfig(channels=(8, 8), width=16, hidden=16, lookahead=(0, 2), dropout=0.0)


@pytest.fixture
def module(corpus: Path) -> CtcTraining:
    torch.manual_seed(0)
    module = CtcTraining(corpus / "tokenizer.model", ENCODER, spec_augment=SpecAugment(5, 0.1, 2, 20))
    module.model.frontend.set_statistics(torch.full((80,), -6.0), torch.full((80,), 3.0))
    module.carried = 0.0
    return module.eval()


@pytest.fixture
def batch() -> Batch:
    audio = torch.zeros(2, 16000)
    audio[0], audio[1, :9000] = torch.from_numpy(signal(1.0, 1)), torch.from_numpy(signal(1.0, 2))[:9000]
    tokens = torch.tensor([[2, 3, 4], [5, 2, 0]])
    lengths, token_lengths = torch.tensor([16000, 9000]), torch.tensor([3, 2])
    return Batch(audio, lengths, tokens, token_lengths, ("a", "b"))


def test_the_training_path_without_masks_is_the_offline_path(module: CtcTraining, batch: Batch) -> None:
    log_probs, frames = module.outputs(batch, training=False)
    expected, expected_frames = module.model.offline(batch.audio, batch.lengths)
    torch.testing.assert_close(log_probs, expected)
    assert torch.equal(frames, expected_frames)


def test_masks_change_the_outputs_and_follow_the_generator(module: CtcTraining, batch: Batch) -> None:
    plain, _ = module.outputs(batch, training=False)
    module.on_train_batch_start(batch, 7)
    first, _ = module.outputs(batch, training=True)
    module.on_train_batch_start(batch, 7)
    again, _ = module.outputs(batch, training=True)
    module.on_train_batch_start(batch, 8)
    other, _ = module.outputs(batch, training=True)
    assert torch.equal(first, again)
    assert not torch.allclose(first, plain)
    assert not torch.allclose(first, other)


def test_utterances_begin_in_the_zero_state_or_where_another_ended(module: CtcTraining, batch: Batch) -> None:
    module.masks = SpecAugment(time_masks=0, frequency_masks=0)
    fresh, _ = module.outputs(batch, training=True)
    for carried, same in ((0.0, [True, True]), (1.0, [False, False])):
        module.carried = carried
        again, _ = module.outputs(batch, training=True)
        assert [torch.equal(a, b) for a, b in zip(fresh, again, strict=True)] == same
    validated, _ = module.outputs(batch, training=False)
    torch.testing.assert_close(validated, fresh)


@pytest.mark.parametrize("method", ["muon", "adamw"])
def test_a_step_of_gradients_that_are_not_finite_is_left_out(
    module: CtcTraining, batch: Batch, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    optimiser = make_optimiser(module.parameters(), Optimiser(method=method), fused=True)
    module.outputs(batch, training=True)[0].sum().backward()
    module.on_before_optimizer_step(optimiser)
    assert module.model.head.bias.grad is not None
    optimiser.step()  # momentum
    before = [each.clone() for each in module.parameters()]
    module.model.head.bias.grad[3] = math.inf
    module.on_before_optimizer_step(optimiser)
    assert "left out" in capsys.readouterr().out
    assert module._ended is None
    optimiser.step()
    assert all(map(torch.equal, before, module.parameters()))


def test_training_ends_when_gradients_stay_not_finite(module: CtcTraining, batch: Batch) -> None:
    optimiser = make_optimiser(module.parameters(), Optimiser(), fused=True)

    def step(gradient: float) -> None:
        module.model.head.bias.grad = torch.full_like(module.model.head.bias, gradient)
        module.on_before_optimizer_step(optimiser)

    for gradient in [*[math.nan] * (MOST_LEFT_OUT - 1), 1.0, *[math.nan] * (MOST_LEFT_OUT - 1)]:
        step(gradient)
    with pytest.raises(UserError, match="for 10 steps gradients have not been finite"):
        step(math.nan)


def test_padding_does_not_change_the_loss(module: CtcTraining, batch: Batch) -> None:
    first = Batch(*(field[:1] for field in batch[:5]))  # type: ignore[arg-type]
    second = Batch(*(field[1:] for field in batch[:5]))._replace(audio=batch.audio[1:, :9000])  # type: ignore[arg-type]
    both, alone, short = (
        module.sequence_loss(*module.outputs(b, training=False), b) for b in (batch, first, second)
    )
    torch.testing.assert_close(both, alone + short, rtol=1e-4, atol=1e-4)


def test_greedy_merges_repeats_drops_blanks_and_stops_at_the_length(module: CtcTraining) -> None:
    path = torch.tensor([[0, 5, 5, 0, 5, 6, 6, 0, 7, 7]])
    log_probs = torch.nn.functional.one_hot(path, 11).float().log()
    assert module.greedy(log_probs, torch.tensor([8])) == [module.tokenizer.decode([5, 5, 6])]


def test_statistics_normalise_the_speech_they_were_measured_on(module: CtcTraining) -> None:
    audio = [torch.from_numpy(signal(seconds, seed)) for seed, seconds in enumerate((0.5, 1.0, 2.0))]
    frontend = module.model.frontend
    frontend.set_statistics(*measure_statistics(frontend, audio))
    features = [frontend(a[None, : len(a) // 160 * 160], frontend.initial_state(1))[0][0] for a in audio]
    frames = torch.cat(features)
    torch.testing.assert_close(frames.mean(0), torch.zeros(80), atol=1e-3, rtol=0)
    torch.testing.assert_close(frames.std(0), torch.ones(80), atol=2e-2, rtol=0)


def test_the_rate_rises_linearly_then_falls_to_its_floor() -> None:
    factor = schedule(Optimiser(warmup=10, floor=0.1), steps=100)
    rising, falling = [factor(step) for step in range(11)], [factor(step) for step in range(10, 101)]
    assert rising == sorted(rising)
    assert 0 < rising[0] < 0.1
    assert max(rising) == pytest.approx(1.0)
    assert falling == sorted(falling, reverse=True)
    assert falling[-1] == pytest.approx(0.1)
    assert factor(1000) == pytest.approx(0.1)


def test_the_inverse_square_root_halves_when_steps_quadruple() -> None:
    factor = schedule(Optimiser(warmup=99, decay="inverse_sqrt"), steps=0)
    assert factor(99) == pytest.approx(1.0)
    assert factor(399) == pytest.approx(0.5)


def test_weight_decay_spares_biases_and_gains() -> None:
    layer = nn.Sequential(nn.Linear(3, 3), nn.RMSNorm(3))
    decayed, spared = make_optimiser(layer.parameters(), Optimiser(weight_decay=0.1)).param_groups
    assert [parameter.dim() for parameter in decayed["params"]] == [2]
    assert decayed["weight_decay"] == 0.1
    assert [parameter.dim() for parameter in spared["params"]] == [1, 1]
    assert spared["weight_decay"] == 0


def test_the_average_forgets_the_first_weights_soon_and_then_keeps_to_its_decay() -> None:
    average, weights = [torch.zeros(1)], [torch.ones(1)]
    Ema(0.99)._update(average, weights, torch.tensor(1))
    assert average[0].item() == pytest.approx(1 - 2 / 11)
    average = [torch.zeros(1)]
    Ema(0.99)._update(average, weights, torch.tensor(100_000))
    assert average[0].item() == pytest.approx(0.01)


def test_the_average_of_checkpoints_is_the_mean_of_their_weights(tmp_path: Path) -> None:
    paths = [tmp_path / f"{value}.ckpt" for value in (1.0, 2.0, 6.0)]
    for path in paths:
        torch.save({"state_dict": {"w": torch.full((2,), float(path.stem))}, "identity": {}}, path)
    assert torch.equal(average(paths)["w"], torch.full((2,), 3.0))


@pytest.fixture
def hearing(lexicon: Path) -> CtcTraining:
    torch.manual_seed(0)
    module = CtcTraining(lexicon, ENCODER, outputs=2, objective=Objective(ctc=0.0, frames=1.0))
    module.model.frontend.set_statistics(torch.full((80,), -6.0), torch.full((80,), 3.0))
    module.carried = 0.0
    return module.eval()


def test_with_two_outputs_a_frame_the_training_path_is_the_offline_path_too(
    hearing: CtcTraining, batch: Batch
) -> None:
    batch = batch._replace(audio=batch.audio[:, :15500])  # ends in the first half of a step
    log_probs, frames = hearing.outputs(batch, training=False)
    expected, expected_frames = hearing.model.offline(batch.audio, batch.lengths)
    torch.testing.assert_close(log_probs[:, : expected.size(1)], expected)
    assert torch.equal(frames, expected_frames)


def test_frames_are_judged_by_the_phone_wherever_in_a_word_it_stands(
    hearing: CtcTraining, batch: Batch
) -> None:
    pieces = hearing.tokenizer.pieces
    log_probs, _ = hearing.outputs(batch, training=False)
    probabilities = log_probs.exp()
    s = [token for token, piece in enumerate(pieces) if piece in ("s", "\u2581s")]
    blank = hearing.tokenizer.blank
    labels = torch.full((2, 50), UNKNOWN)
    labels[0, 10], labels[1, 3] = INDEX["S"], SILENCE
    loss, _, known = hearing.frame_loss(log_probs, labels)
    expected = -probabilities[0, 10, s].sum().log() - log_probs[1, 3, blank]
    torch.testing.assert_close(loss, expected)
    assert int(known) == 2 and len(s) == 2

    halves = torch.full_like(log_probs, -20.0)
    halves[..., s], halves[..., blank] = math.log(0.3), math.log(0.4)  # together likelier than the blank
    assert [int(hearing.frame_loss(halves, labels)[1])] == [1]


def test_a_smoothed_label_leaves_a_share_to_the_others(hearing: CtcTraining, batch: Batch) -> None:
    log_probs, _ = hearing.outputs(batch, training=False)
    labels = torch.full((2, 50), INDEX["AH"])
    sharp, _, _ = hearing.frame_loss(log_probs, labels)
    hearing.objective = Objective(ctc=0.0, frames=1.0, smoothing=0.1)
    smooth, _, _ = hearing.frame_loss(log_probs, labels)
    even = -phone_log_probs(log_probs[:, :50]).mean(-1).sum()
    torch.testing.assert_close(smooth, 0.9 * sharp + 0.1 * even)


def test_the_outputs_of_a_frame_are_those_of_the_audio_of_that_frame(
    hearing: CtcTraining, batch: Batch
) -> None:
    """Not delayed by the lookahead: a label is put where it was said."""
    torch.nn.init.normal_(hearing.model.encoder.blocks[1].lookahead.weight)  # zeros at first
    before, _ = hearing.outputs(batch, training=False)
    step, ahead = 12, 2
    batch.audio[:, step * 640 :] = 0.3
    after, _ = hearing.outputs(batch, training=False)
    differs = (before - after).abs().amax((0, 2)) > 1e-6
    assert int(differs.nonzero()[0]) == 2 * (step - ahead)


def test_frames_can_be_learnt(hearing: CtcTraining, batch: Batch) -> None:
    """The labels of one batch, by hand: the error goes away."""
    labels = torch.full((2, 50), SILENCE)
    labels[:, 7:20], labels[:, 20:31] = INDEX["L"], INDEX["AA"]
    labels[1, 29:] = UNKNOWN
    optimiser = torch.optim.Adam(hearing.parameters(), 0.02)
    errors = []
    for _ in range(40):
        loss, wrong, known = hearing.frame_loss(hearing.outputs(batch, training=False)[0], labels)
        optimiser.zero_grad()
        (loss / known).backward()
        optimiser.step()
        errors.append(int(wrong) / int(known))
    assert errors[0] > 0.5 and errors[-1] < 0.05


def test_ctc_is_not_computed_where_it_has_no_weight(
    hearing: CtcTraining, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hearing, "sequence_loss", None)
    monkeypatch.setattr(hearing, "log", lambda *_, **__: None)
    batch = batch._replace(phones=torch.full((2, 50), SILENCE))
    assert hearing.training_step(batch, 0) > 0
    hearing.validation_step(batch, 0)
    (sums,) = hearing._sums
    assert sums.known == 100 and sums.words == 0 and hearing.judged_by == "dev_frame_error"


def test_phones_are_counted_wherever_in_a_word_they_are(hearing: CtcTraining, batch: Batch) -> None:
    tokens = [hearing.tokenizer.encode("la mi"), hearing.tokenizer.encode("so")]
    batch = batch._replace(
        tokens=torch.tensor([tokens[0], [*tokens[1], 0, 0]]), token_lengths=torch.tensor([4, 2])
    )
    assert hearing._count(batch, ["l a m i", "s o"]) == (0, 6)
    assert hearing._count(batch, ["l a m i", "l o m"]) == (2, 6)

    hearing.objective = Objective(ctc=1.0, denominator=1.0)
    assert hearing.judged_by == "dev_loss"
    hearing.objective = Objective(ctc=1.0)
    assert hearing.judged_by == "dev_phone_error"
    log_probs = torch.full((1, 6, hearing.tokenizer.vocabulary), -9.0)
    first, inside = (hearing.tokenizer.pieces.index(piece) for piece in ("\u2581s", "s"))
    for frame, best in enumerate([first, inside, 0, inside, inside, first]):
        log_probs[0, frame, best] = 0.0
    assert hearing.greedy(log_probs, torch.tensor([6])) == ["s s"]


def test_the_denominator_makes_the_reference_likelier_than_its_rivals(
    hearing: CtcTraining, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hearing, "log", lambda *_, **__: None)
    hearing.objective = Objective(ctc=1.0, denominator=1.0)
    tokens = [hearing.tokenizer.encode("la mi"), hearing.tokenizer.encode("so")]
    hearing._denominator = denominator_graph(tokens, hearing.tokenizer.vocabulary, 3)
    batch = batch._replace(
        tokens=torch.tensor([tokens[0], [*tokens[1], 0, 0]]), token_lengths=torch.tensor([4, 2])
    )
    optimiser = torch.optim.Adam(hearing.parameters(), 0.02)
    losses = []
    for step in range(60):
        loss = hearing.training_step(batch, step)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    # at best nothing but the reference is likely: what is left is its probability by the n-grams
    certain = torch.full((2, 8, hearing.tokenizer.vocabulary), -30.0)
    certain[0, range(8), [token for own in tokens[0] for token in (own, 0)]] = 0.0
    certain[1, range(8), [*tokens[1], 0, 0, 0, 0, 0, 0]] = 0.0
    best = float(log_denominator(certain, torch.tensor([8, 8]), hearing._denominator).sum()) / 6
    assert losses[0] > losses[-1] + 0.5 > best + 0.5


def test_what_a_layer_asks_for_is_paid_in_training_for_the_frames_of_the_audio(
    lexicon: Path, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, logged = replace(ENCODER, cell="variational_mgu"), {}
    module = CtcTraining(lexicon, encoder, objective=Objective(ctc=0.0, frames=1.0), carried=0.0)
    monkeypatch.setattr(module, "log", lambda name, value, **_: logged.update({name: value.item()}))
    loss = module.training_step(batch._replace(phones=torch.full((2, 25), SILENCE)), 0)
    layers = [block.mgu for block in module.model.encoder.blocks]
    loss.backward()
    assert 0 < logged["penalty"] < logged["loss"]
    assert all(float(layer.log_deviation.grad.abs().sum()) > 0 for layer in layers)

    asked = torch.zeros(2, 27)
    asked[0], asked[1, : 15 + 2] = 1.0, 1.0  # 25 and 15 frames of 40 ms, and 2 of lookahead
    asked[1, 15 + 2 :] = torch.nan
    assert float(module.penalty([asked, asked], batch.lengths)) == 2.0
    with penalties(CtcTraining(lexicon, ENCODER).model) as nothing:
        assert nothing == []


def test_a_denominator_alone_is_refused(lexicon: Path) -> None:
    with pytest.raises(UserError, match=r"objective\.denominator"):
        CtcTraining(lexicon, ENCODER, objective=Objective(ctc=0.0, frames=1.0, denominator=1.0))
    with pytest.raises(UserError, match=r"objective\.order"):
        CtcTraining(lexicon, ENCODER, objective=Objective(denominator=1.0, order=1))


def test_an_objective_of_frames_needs_phones_as_tokens(corpus: Path) -> None:
    with pytest.raises(UserError, match=r"objective\.frames"):
        CtcTraining(corpus / "tokenizer.model", ENCODER, objective=Objective(frames=1.0))


def test_an_objective_without_weights_is_refused(lexicon: Path) -> None:
    with pytest.raises(UserError, match=r"model\.objective"):
        CtcTraining(lexicon, ENCODER, objective=Objective(ctc=0.0))


def test_a_bundle_with_other_outputs_is_refused_as_a_start(hearing: CtcTraining, lexicon: Path) -> None:
    checkpoint: dict = {}
    hearing.on_save_checkpoint(checkpoint)
    CtcTraining(lexicon, ENCODER, outputs=2).on_load_checkpoint(checkpoint)
    with pytest.raises(UserError, match=r"model\.outputs"):
        CtcTraining(lexicon, ENCODER).on_load_checkpoint(checkpoint)


def test_a_checkpoint_that_says_nothing_of_its_cell_is_of_the_mgu(
    hearing: CtcTraining, lexicon: Path
) -> None:
    checkpoint: dict = {}
    hearing.on_save_checkpoint(checkpoint)
    del checkpoint["identity"]["model.encoder.cell"]
    hearing.on_load_checkpoint(checkpoint)
    with pytest.raises(UserError, match=r"model\.encoder\.cell: the checkpoint has mgu, the config gru"):
        CtcTraining(lexicon, replace(ENCODER, cell="gru"), outputs=2).on_load_checkpoint(checkpoint)
