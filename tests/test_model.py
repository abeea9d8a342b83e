"""The promises of the one forward path, for every shape of encoder in conftest."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from asr.errors import UserError
from asr.model import CtcModel, ModelState
from asr.state import pack, rows, unpack
from tests.conftest import ENCODERS, signal, tiny_model

FRESH = settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])


def batch(*signals: np.ndarray) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([len(samples) for samples in signals])
    padded = torch.zeros(len(signals), int(lengths.max()))
    for row, samples in zip(padded, signals, strict=True):
        row[: len(samples)] = torch.from_numpy(samples)
    return padded, lengths


def in_chunks(model: CtcModel, audio: Tensor, steps: list[int]) -> Tensor:
    """Log-probabilities of a padded batch, in chunks of the given numbers of steps, round and round."""
    frames = model.frames(audio.size(1))
    audio, state, outputs = model.pad_for_lookahead(audio), model.initial_state(audio.size(0)), []
    start = turn = 0
    while start < audio.size(1):
        end = start + steps[turn % len(steps)] * model.step_samples
        log_probs, state = model(audio[:, start:end], state)
        outputs.append(log_probs)
        start, turn = end, turn + 1
    return model.drop_lookahead(torch.cat(outputs, 1))[:, :frames]


@torch.inference_mode()
@FRESH
@given(steps=st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_any_chunking_gives_the_offline_log_probs(model: CtcModel, steps: list[int]) -> None:
    audio, lengths = batch(signal(2.03, 1), signal(1.5, 2))
    offline, _ = model.offline(audio, lengths)
    torch.testing.assert_close(in_chunks(model, audio, steps), offline, atol=1e-4, rtol=0)


@torch.inference_mode()
@FRESH
@given(padding=st.integers(0, 20000))
def test_right_padding_changes_nothing(model: CtcModel, padding: int) -> None:
    audio, lengths = batch(signal(1.21, 3))
    alone, frames = model.offline(audio, lengths)
    padded, same_frames = model.offline(torch.nn.functional.pad(audio, (0, padding)), lengths)
    assert torch.equal(frames, same_frames)
    torch.testing.assert_close(padded[:, : alone.size(1)], alone, atol=1e-4, rtol=0)
    assert alone.size(1) == frames.item()


@torch.inference_mode()
def test_a_stream_is_unaffected_by_its_neighbours(model: CtcModel) -> None:
    signals = [signal(2.0, 4), signal(0.7, 5), signal(1.3, 6)]
    together, frames = model.offline(*batch(*signals))
    for row, samples in enumerate(signals):
        alone, _ = model.offline(*batch(samples))
        torch.testing.assert_close(together[row, : frames[row]], alone[0], atol=1e-4, rtol=0)


@torch.inference_mode()
@FRESH
@given(st.lists(st.sets(st.integers(0, 2), min_size=1), min_size=1, max_size=12))
def test_streams_may_be_stepped_together_in_any_mixture(model: CtcModel, turns: list[set[int]]) -> None:
    """Each turn computes a step of a subset of three streams, as a server does with whoever has audio."""
    audio = torch.stack([torch.from_numpy(signal(2.0, seed)) for seed in (7, 8, 9)])
    like: ModelState = model.initial_state(1)
    kept = [pack(like)] * 3
    outputs: list[list[Tensor]] = [[], [], []]
    for turn in turns:
        streams = sorted(turn)
        starts = [len(outputs[stream]) * model.step_samples for stream in streams]
        samples = torch.stack(
            [audio[row, s : s + model.step_samples] for row, s in zip(streams, starts, strict=True)]
        )
        log_probs, stepped = model(samples, unpack(torch.cat([kept[stream] for stream in streams]), like))
        for stream, output, row in zip(streams, log_probs, rows(pack(stepped)), strict=True):
            outputs[stream].append(output)
            kept[stream] = row
    for row, output in ((row, output) for row, output in enumerate(outputs) if output):
        alone, _ = model(audio[row : row + 1, : len(output) * model.step_samples], model.initial_state(1))
        torch.testing.assert_close(torch.cat(output), alone[0], atol=1e-4, rtol=0)


@torch.inference_mode()
def test_an_output_depends_on_the_audio_of_its_frame_and_lookahead_and_nothing_later(model: CtcModel) -> None:
    audio = model.pad_for_lookahead(torch.from_numpy(signal(2.0, 10))[None])
    before, _ = model(audio, model.initial_state(1))
    changed = 12  # frame, the first of a step
    audio[:, changed * model.frame_samples :] = 0.5
    after, _ = model(audio, model.initial_state(1))
    differs = (before - after).abs().amax(-1)[0] > 1e-6
    # Outputs lag by the lookahead, so the first output that may differ belongs to frame changed - lookahead.
    assert not differs[:changed].any()
    assert differs[changed]


@torch.inference_mode()
def test_the_first_frames_depend_on_their_lookahead(model: CtcModel) -> None:
    """The lookahead is used, not only waited for."""
    audio = torch.from_numpy(signal(2.0, 11))[None]
    lengths = torch.tensor([audio.size(1)])
    before, _ = model.offline(audio.clone(), lengths)
    changed = 12
    audio[:, changed * model.frame_samples :] = 0.5
    after, _ = model.offline(audio, lengths)
    first = int(((before - after).abs().amax(-1)[0] > 1e-6).nonzero()[0])
    assert first == changed - model.lookahead


def test_samples_short_of_a_step_are_refused(model: CtcModel) -> None:
    with pytest.raises(ValueError, match="step_samples"):
        model(torch.zeros(1, model.step_samples + 1), model.initial_state(1))


@torch.inference_mode()
@pytest.mark.parametrize("outputs", [1, 2, 4])
def test_outputs_share_a_step_evenly(outputs: int) -> None:
    model = tiny_model(ENCODERS["4x, lookahead"], 7, outputs)
    assert (model.step_samples, model.frame_samples, model.lookahead) == (640, 640 // outputs, 3 * outputs)
    for samples in (1, 640 // outputs, 640, 641, 2000):
        log_probs, frames = model.offline(torch.zeros(1, samples), torch.tensor([samples]))
        assert log_probs.shape == (1, -(-samples // model.frame_samples), 7)
        assert frames.item() == log_probs.size(1)


def test_outputs_that_do_not_divide_a_step_are_refused() -> None:
    with pytest.raises(UserError, match="outputs: 3"):
        tiny_model(ENCODERS["4x, lookahead"], 7, outputs=3)


def test_the_latency_is_the_step_and_its_lookahead(model: CtcModel) -> None:
    assert model.latency_ms == 10 * model.encoder.subsampling * (1 + sum(model.config.encoder.lookahead))
    assert f"{model.latency_ms:.0f} ms" in model.describe()


def test_gradients_reach_every_parameter(model: CtcModel) -> None:
    log_probs, frames = model.offline(*batch(signal(1.0, 12), signal(0.8, 13)))
    targets, two = torch.tensor([[2, 3], [4, 5]]), torch.tensor([2, 2])
    torch.nn.functional.ctc_loss(log_probs.transpose(0, 1), targets, frames, two).backward()
    for name, parameter in ((n, p) for n, p in model.named_parameters() if p.numel()):
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
