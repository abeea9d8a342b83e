from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from asr.data.augment import SpecAugment
from asr.data.dataset import Batch
from asr.encoder import EncoderConfig
from asr.training.callbacks import Ema
from asr.training.checkpoint import average
from asr.training.module import CtcTraining, measure_statistics
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


def test_the_training_path_without_masks_is_the_offline_path(module: CtcTraining, batch: Batch) -> None:
    log_probs, frames = module.log_probs(batch, training=False)
    expected, expected_frames = module.model.offline(batch.audio, batch.lengths)
    torch.testing.assert_close(log_probs, expected)
    assert torch.equal(frames, expected_frames)


def test_masks_change_the_outputs_and_follow_the_generator(module: CtcTraining, batch: Batch) -> None:
    plain, _ = module.log_probs(batch, training=False)
    module.on_train_batch_start(batch, 7)
    first, _ = module.log_probs(batch, training=True)
    module.on_train_batch_start(batch, 7)
    again, _ = module.log_probs(batch, training=True)
    module.on_train_batch_start(batch, 8)
    other, _ = module.log_probs(batch, training=True)
    assert torch.equal(first, again)
    assert not torch.allclose(first, plain)
    assert not torch.allclose(first, other)


def test_utterances_begin_in_the_zero_state_or_where_another_ended(module: CtcTraining, batch: Batch) -> None:
    module.masks = SpecAugment(time_masks=0, frequency_masks=0)
    fresh, _ = module.log_probs(batch, training=True)
    for carried, same in ((0.0, [True, True]), (1.0, [False, False])):
        module.carried = carried
        again, _ = module.log_probs(batch, training=True)
        assert [torch.equal(a, b) for a, b in zip(fresh, again, strict=True)] == same
    validated, _ = module.log_probs(batch, training=False)
    torch.testing.assert_close(validated, fresh)


def test_padding_does_not_change_the_loss(module: CtcTraining, batch: Batch) -> None:
    first = Batch(*(field[:1] for field in batch))  # type: ignore[arg-type]
    second = Batch(*(field[1:] for field in batch))._replace(audio=batch.audio[1:, :9000])  # type: ignore[arg-type]
    both, alone, short = (
        module.loss(*module.log_probs(b, training=False), b) for b in (batch, first, second)
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
