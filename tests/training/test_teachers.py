from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from asr.bundle import Bundle, save_bundle
from asr.data.augment import SpecAugment
from asr.data.dataset import Batch
from asr.encoder import EncoderConfig
from asr.errors import UserError
from asr.frontend import FrontEndConfig
from asr.lexicon import load_tokenizer
from asr.model import CtcModel, ModelConfig
from asr.training.module import CtcTraining, Objective
from asr.training.teachers import divergence
from tests.conftest import signal

ENCODER = EncoderConfig(channels=(8, 8), width=16, hidden=16, lookahead=(0, 2), dropout=0.0)
OTHERS_ENCODER = replace(ENCODER, width=24, hidden=24, lookahead=(4,))


def write_bundle(directory: Path, tokens: Path, encoder: EncoderConfig, seed: int, outputs: int = 2) -> str:
    tokenizer = load_tokenizer(tokens)
    torch.manual_seed(seed)
    model = CtcModel(ModelConfig(tokenizer.vocabulary, FrontEndConfig(), encoder, outputs))
    model.frontend.set_statistics(torch.full((80,), -6.0), torch.full((80,), 3.0))
    torch.nn.init.normal_(model.head.weight)  # far from even
    save_bundle(directory, Bundle(model, tokenizer))
    return str(directory)


@pytest.fixture
def bundles(tmp_path: Path, lexicon: Path) -> list[str]:
    """Two, of other sizes and lookaheads."""
    return [
        write_bundle(tmp_path / "one", lexicon, ENCODER, 1),
        write_bundle(tmp_path / "two", lexicon, OTHERS_ENCODER, 2),
    ]


@pytest.fixture
def batch() -> Batch:
    audio = torch.zeros(2, 15500)  # ends in the first half of a step
    audio[0], audio[1, :9000] = (
        torch.from_numpy(signal(1.0, 1))[:15500],
        torch.from_numpy(signal(1.0, 2))[:9000],
    )
    phones = torch.zeros(2, 49, dtype=torch.long)
    lengths, none = torch.tensor([15500, 9000]), torch.zeros(2, 1, dtype=torch.long)
    return Batch(audio, lengths, none, torch.ones(2, dtype=torch.long), ("a", "b"), phones)


def pupil(lexicon: Path, shares: dict[str, float] | None, weight: float = 1.0) -> CtcTraining:
    torch.manual_seed(0)
    module = CtcTraining(
        lexicon,
        ENCODER,
        outputs=2,
        spec_augment=SpecAugment(time_masks=0, frequency_masks=0),
        carried=0.0,
        objective=Objective(ctc=0.0, frames=1e-6, teachers=weight),
        teachers=shares,
    )
    module.model.frontend.set_statistics(torch.full((80,), -6.0), torch.full((80,), 3.0))
    module.log = lambda *_, **__: None  # type: ignore[assignment]
    return module


def test_two_teachers_say_the_mean_of_their_logarithms(
    lexicon: Path, bundles: list[str], batch: Batch
) -> None:
    module = pupil(lexicon, dict(zip(bundles, (3.0, 1.0), strict=True)))
    assert module._teachers is not None
    taught = module._teachers.log_probs(batch.audio, batch.lengths)
    one, two = (model.offline(batch.audio, batch.lengths)[0] for model in module._teachers.models)
    expected = one.exp() ** 0.75 * two.exp() ** 0.25
    torch.testing.assert_close(taught.exp(), expected / expected.sum(-1, keepdim=True))
    assert taught.shape == (2, 49, module.tokenizer.vocabulary)


def test_the_divergence_is_of_the_frames_of_the_audio(
    lexicon: Path, bundles: list[str], batch: Batch
) -> None:
    module = pupil(lexicon, {bundles[0]: 1.0})
    assert module._teachers is not None
    taught = module._teachers.log_probs(batch.audio, batch.lengths)
    with torch.no_grad():
        log_probs, frames = module.outputs(batch, training=False)
    assert log_probs.size(1) == 50 and frames.tolist() == [49, 29]
    parts = zip(taught, log_probs, frames.tolist(), strict=True)
    expected = sum(float((t.exp() * (t - p[:49]))[:length].sum()) for t, p, length in parts)
    assert float(divergence(taught, log_probs, frames)) == pytest.approx(expected, rel=1e-4)
    assert float(divergence(taught, taught, frames)) == 0
    taught[1, 29:] = torch.nan
    assert float(divergence(taught, log_probs, frames)) == pytest.approx(expected, rel=1e-4)


def test_what_learns_comes_near_its_teachers_and_leaves_them_as_they_are(
    lexicon: Path, bundles: list[str], batch: Batch
) -> None:
    module = pupil(lexicon, dict.fromkeys(bundles, 1.0))
    assert module._teachers is not None
    assert not [name for name in module.state_dict() if "teacher" in name]
    before = module._teachers.log_probs(batch.audio, batch.lengths)
    optimiser = torch.optim.Adam(module.parameters(), 0.02)
    losses = []
    for step in range(80):
        loss = module.training_step(batch, step)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 4
    assert torch.equal(module._teachers.log_probs(batch.audio, batch.lengths), before)


def test_the_weight_is_that_of_a_frame(lexicon: Path, bundles: list[str], batch: Batch) -> None:
    once, thrice = (
        pupil(lexicon, {bundles[1]: 1.0}, weight).training_step(batch, 0).item() for weight in (1.0, 3.0)
    )
    assert thrice == pytest.approx(3 * once, rel=1e-3)


def test_a_teacher_of_other_tokens_or_frames_is_refused(
    lexicon: Path, corpus: Path, bundles: list[str], tmp_path: Path
) -> None:
    text = write_bundle(tmp_path / "text", corpus / "tokenizer.model", ENCODER, 1)
    with pytest.raises(UserError, match=r"text has other tokens"):
        pupil(lexicon, {bundles[0]: 1.0, text: 1.0})
    slow = write_bundle(tmp_path / "slow", lexicon, ENCODER, 1, outputs=1)
    with pytest.raises(UserError, match=r"slow has frames of 40 ms of 16000 Hz, the config frames of 20 ms"):
        pupil(lexicon, {slow: 1.0})


def test_a_share_of_nothing_is_refused(lexicon: Path, bundles: list[str]) -> None:
    with pytest.raises(UserError, match="above 0"):
        pupil(lexicon, {bundles[0]: 1.0, bundles[1]: 0.0})


@pytest.mark.parametrize(("shares", "weight"), [(None, 1.0), ({}, 1.0), ({"en-small": 1.0}, 0.0)])
def test_a_weight_without_teachers_and_teachers_without_a_weight_are_refused(
    lexicon: Path, shares: dict[str, float] | None, weight: float
) -> None:
    with pytest.raises(UserError, match=r"model\.objective\.teachers: .* both or none"):
        pupil(lexicon, shares, weight)
