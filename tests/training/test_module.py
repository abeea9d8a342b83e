from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from asr.data.augment import SpecAugment
from asr.data.dataset import Batch
from asr.data.spoken_text import TextBatch
from asr.encoder import EncoderConfig, PhoneLayer
from asr.errors import UserError
from asr.phones import UNKNOWN
from asr.training.callbacks import Ema
from asr.training.checkpoint import average
from asr.training.module import CtcTraining, Objective, measure_statistics
from asr.training.schedule import Optimiser, adamw, schedule
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
    return Batch(audio, lengths, tokens, token_lengths, ("a", "b"), ("la mi", "so"))


def outputs_of(module: CtcTraining, batch: Batch, training: bool) -> tuple[torch.Tensor, torch.Tensor]:
    outputs = module.outputs(batch, training)
    assert outputs.log_probs is not None
    return outputs.log_probs, outputs.frames


def test_the_training_path_without_masks_is_the_offline_path(module: CtcTraining, batch: Batch) -> None:
    log_probs, frames = outputs_of(module, batch, training=False)
    expected, expected_frames = module.model.offline(batch.audio, batch.lengths)
    torch.testing.assert_close(log_probs, expected)
    assert torch.equal(frames, expected_frames)


def test_masks_change_the_outputs_and_follow_the_generator(module: CtcTraining, batch: Batch) -> None:
    plain, _ = outputs_of(module, batch, training=False)
    module.on_train_batch_start(batch, 7)
    first, _ = outputs_of(module, batch, training=True)
    module.on_train_batch_start(batch, 7)
    again, _ = outputs_of(module, batch, training=True)
    module.on_train_batch_start(batch, 8)
    other, _ = outputs_of(module, batch, training=True)
    assert torch.equal(first, again)
    assert not torch.allclose(first, plain)
    assert not torch.allclose(first, other)


def test_utterances_begin_in_the_zero_state_or_where_another_ended(module: CtcTraining, batch: Batch) -> None:
    module.masks = SpecAugment(time_masks=0, frequency_masks=0)
    fresh, _ = outputs_of(module, batch, training=True)
    for carried, same in ((0.0, [True, True]), (1.0, [False, False])):
        module.carried = carried
        again, _ = outputs_of(module, batch, training=True)
        assert [torch.equal(a, b) for a, b in zip(fresh, again, strict=True)] == same
    validated, _ = outputs_of(module, batch, training=False)
    torch.testing.assert_close(validated, fresh)


def test_padding_does_not_change_the_loss(module: CtcTraining, batch: Batch) -> None:
    first = Batch(*(field[:1] for field in batch[:6]))  # type: ignore[arg-type]
    second = Batch(*(field[1:] for field in batch[:6]))._replace(audio=batch.audio[1:, :9000])  # type: ignore[arg-type]
    both, alone, short = (
        module.loss(*outputs_of(module, b, training=False), b) for b in (batch, first, second)
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
    decayed, spared = adamw(layer.parameters(), Optimiser(weight_decay=0.1)).param_groups
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


PHONES = replace(ENCODER, lookahead=(1, 2), phone_layer=PhoneLayer(after=1, phones=40, slots=2))


@pytest.fixture
def hearing(corpus: Path) -> CtcTraining:
    torch.manual_seed(0)
    module = CtcTraining(corpus / "tokenizer.model", PHONES, objective=Objective(ctc=1.0, phones=1.0))
    module.model.frontend.set_statistics(torch.full((80,), -6.0), torch.full((80,), 3.0))
    module.carried = 0.0
    return module.eval()


def test_phones_are_judged_where_they_are_known_and_at_their_time(hearing: CtcTraining, batch: Batch) -> None:
    phones = hearing.outputs(batch, training=False).phones
    assert phones is not None
    likeliest = phones.flatten(1, 2).argmax(-1)  # (B, K)
    labels = likeliest[:, :50].clone()
    labels[0, 10], labels[1, 20:] = (labels[0, 10] + 1) % 40, UNKNOWN
    loss, wrong, known = hearing.phone_loss(phones, batch._replace(phones=labels))
    assert (int(wrong), int(known)) == (1, 70)
    chosen = phones.flatten(1, 2)[:, :50].gather(-1, labels.clamp(min=0)[..., None])[..., 0]
    torch.testing.assert_close(loss, -(chosen[0].sum() + chosen[1, :20].sum()))


def test_the_phones_of_a_frame_are_those_of_the_audio_of_that_frame(
    hearing: CtcTraining, batch: Batch
) -> None:
    """Not delayed by the lookahead of the blocks below: a label is put where it was said."""
    torch.nn.init.normal_(hearing.model.encoder.blocks[0].lookahead.weight)  # zeros at first
    before = hearing.outputs(batch, training=False).phones
    frame, ahead = 12, 1
    batch.audio[:, frame * 640 :] = 0.3
    after = hearing.outputs(batch, training=False).phones
    assert before is not None and after is not None
    differs = (before - after).abs().amax((0, 2, 3)) > 1e-6
    assert int(differs.nonzero()[0]) == frame - ahead


def spoken(frames: int = 20) -> TextBatch:
    posteriors = torch.zeros(2, frames, 2, 40)
    posteriors[..., 0] = 1.0
    posteriors[:, 4:9] = torch.eye(40)[
        torch.randint(1, 40, (2, 5, 2), generator=torch.Generator().manual_seed(1))
    ]
    tokens, lengths = torch.tensor([[2, 3], [4, 5]]), torch.full((2,), frames * 640)
    return TextBatch(posteriors, lengths, tokens, torch.tensor([2, 2]), ("a", "b"), ("la", "mi"))


def test_text_trains_the_blocks_above_the_phones_and_no_other(hearing: CtcTraining) -> None:
    batch = spoken()
    outputs = hearing.outputs(batch, training=True)
    assert outputs.log_probs is not None and outputs.log_probs.shape[:2] == (2, 20)
    hearing.loss(outputs.log_probs, outputs.frames, batch).backward()
    moved = {name for name, parameter in hearing.model.named_parameters() if parameter.grad is not None}
    above = ("encoder.blocks.1.", "encoder.phones.embedding.", "encoder.norm.", "head.")
    assert moved == {name for name, _ in hearing.model.named_parameters() if name.startswith(above)}


def test_without_words_to_learn_nothing_above_the_phones_runs(hearing: CtcTraining, batch: Batch) -> None:
    hearing.objective = Objective(ctc=0.0, phones=1.0)
    assert hearing.outputs(batch, training=True).log_probs is None


def test_an_objective_of_phones_needs_a_phone_layer(corpus: Path) -> None:
    with pytest.raises(UserError, match="phone_layer"):
        CtcTraining(corpus / "tokenizer.model", ENCODER, objective=Objective(phones=1.0))


def test_a_checkpoint_keeps_where_text_ended_too(hearing: CtcTraining, corpus: Path) -> None:
    hearing.outputs(spoken(), training=True)
    checkpoint: dict = {}
    hearing.on_save_checkpoint(checkpoint)
    other = CtcTraining(corpus / "tokenizer.model", PHONES)
    other.on_load_checkpoint(checkpoint)
    assert hearing._spelt_end is not None and other._spelt_end is not None
    for block, same in zip(hearing._spelt_end, other._spelt_end, strict=True):
        assert torch.equal(block.hidden, same.hidden) and torch.equal(block.lookahead, same.lookahead)
