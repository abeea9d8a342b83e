"""The sum over all token sequences, against enumeration."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from asr.ops import cpu
from asr.training.denominator import bigram, log_denominator


def enumerated(log_probs: Tensor, transitions: Tensor) -> Tensor:
    """ln of the sum over all paths through (T, V) of their probability and that of their tokens."""
    frames, vocabulary = log_probs.shape
    total = log_probs.new_zeros(())
    for path in itertools.product(range(vocabulary), repeat=frames):
        weight, before, sounding = 1.0, 0, 0
        for output in path:
            if output not in (0, sounding):
                weight *= float(transitions[before, output])
                before = output
            sounding = output
        total = total + log_probs[torch.arange(frames), torch.tensor(path)].sum().exp() * weight
    return total.log()


@pytest.fixture(params=["C", "anywhere"])
def _back_end(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "anywhere":
        monkeypatch.setattr(cpu, "is_available", lambda: False)
    elif not cpu.is_available():
        pytest.skip("no C compiler")


@pytest.mark.usefixtures("_back_end")
def test_value_and_gradient_are_those_of_enumeration() -> None:
    torch.manual_seed(0)
    frames = torch.tensor([5, 3, 1])
    log_probs = torch.randn(3, 5, 4, dtype=torch.float64).log_softmax(-1).requires_grad_()
    transitions = bigram([[1, 2, 3, 3], [2, 2, 1], []], 4)
    found = log_denominator(log_probs, frames, transitions)
    wanted = torch.stack([enumerated(log_probs[i, : frames[i]], transitions) for i in range(3)])
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    weights = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    (gradient,) = torch.autograd.grad((found * weights).sum(), log_probs, retain_graph=True)
    (right,) = torch.autograd.grad((wanted * weights).sum(), log_probs)
    torch.testing.assert_close(gradient.double(), right, rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("_back_end")
def test_long_and_unlikely_sequences_do_not_underflow() -> None:
    log_probs = torch.full((1, 2000, 5), -12.0)
    log_probs[..., 3] = 0.0
    value = log_denominator(log_probs, torch.tensor([2000]), bigram([[1, 2, 1, 2]], 5))
    assert torch.isfinite(value).all()
    assert -10 < value.item() < 0


def test_a_bigram_has_probabilities_for_all_that_may_follow() -> None:
    transitions = bigram([[1, 2], [1, 3, 2]], 5)
    torch.testing.assert_close(transitions.sum(1), torch.ones(5))
    assert (transitions[:, 0] == 0).all()
    assert (transitions[:, 1:] > 0).all()
    assert transitions[0, 1] == pytest.approx(float(transitions[0].max()))
    assert transitions[1, 2] > transitions[1, 4]
