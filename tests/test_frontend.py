"""The running mean of the front-end, against its definition, and what it is for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from asr.errors import UserError
from asr.frontend import HANGOVER, HEARD, PRIOR, RISE, FrontEndConfig, LogMel

CONFIG = FrontEndConfig(mels=20, mean_frames=150)


def front_end(config: FrontEndConfig = CONFIG) -> LogMel:
    made = LogMel(config)
    made.set_statistics(torch.linspace(-5, 2, config.mels), torch.linspace(1.5, 0.7, config.mels))
    return made


def bursts(seconds: float, level: float = 0.1) -> Tensor:
    """(1, S): noise that is loud for 0.2 s, then quiet for 0.1, as syllables are."""
    torch.manual_seed(0)
    samples = int(16000 * seconds)
    loud = torch.arange(samples) % 4800 < 3200
    return level * torch.where(loud, 1.0, 0.01) * torch.randn(1, samples)


def test_it_is_what_its_equations_say() -> None:
    adapting, plain = front_end(), front_end(FrontEndConfig(mels=20))
    audio = torch.cat([bursts(2), 1e-3 * torch.randn(1, 32000), bursts(1)], 1)
    found, _ = adapting(audio, adapting.initial_state(1))
    features, _ = plain(audio, plain.initial_state(1))
    loudness = plain.log_mel(audio, plain.initial_state(1))[0].mean(2)[0].tolist()
    floor, since, frames = float("inf"), 0, PRIOR
    mean, wanted = torch.zeros(20, dtype=torch.float64), []
    for loud, row in zip(loudness, features[0].double(), strict=True):
        floor = min(loud, floor + RISE)
        since = 0 if loud > floor + HEARD else since + 1
        if since <= HANGOVER:
            frames = min(CONFIG.mean_frames, frames + 1)
            mean = mean + (row - mean) / frames
        wanted.append(row - mean)
    assert frames == CONFIG.mean_frames
    assert since == 0
    torch.testing.assert_close(found[0], torch.stack(wanted).float(), rtol=1e-4, atol=1e-4)


def test_any_split_gives_the_same() -> None:
    module = front_end()
    audio = bursts(60)  # more than one block of sums
    whole, final = module(audio, module.initial_state(1))
    state, pieces = module.initial_state(1), []
    for piece in audio.split([160, 4800, audio.size(1) - 4960], 1):
        features, state = module(piece, state)
        pieces.append(features)
    torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=0, atol=1e-5)
    torch.testing.assert_close(state, final, rtol=1e-5, atol=1e-5)


def test_what_is_quieter_or_duller_ends_alike() -> None:
    audio = bursts(20)
    duller = (audio + audio.roll(1)) / 2
    module, plain = front_end(), front_end(FrontEndConfig(mels=20))
    for other in (0.1 * audio, duller):
        apart = [
            (each(other, each.initial_state(1))[0] - each(audio, each.initial_state(1))[0])[0, -200:]
            for each in (module, plain)
        ]
        assert apart[0].abs().mean() < 0.05 * apart[1].abs().mean()


@pytest.mark.parametrize("level", [0.0, 0.001])
def test_silence_and_steady_noise_leave_it_alone(level: float) -> None:
    module = front_end()
    _, speech = module(bursts(10), module.initial_state(1))
    _, before = module(level * torch.randn(1, 16000 * 2), speech)
    _, after = module(level * torch.randn(1, 16000 * 60), before)
    assert torch.equal(after.mean, before.mean)
    assert before.mean.abs().mean() > 0.1


def test_without_it_there_is_no_state_of_it() -> None:
    state = front_end(FrontEndConfig(mels=20)).initial_state(3)
    assert state.floor.shape == state.frames.shape == state.mean.shape == (3, 0)


def test_a_mean_of_a_few_frames_is_refused() -> None:
    with pytest.raises(UserError, match="mean_frames"):
        LogMel(FrontEndConfig(mean_frames=2))
