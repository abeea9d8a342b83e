"""The sum over all token sequences, against enumeration."""

from __future__ import annotations

import itertools
from collections import defaultdict

import pytest
import torch
from torch import Tensor

from asr.ops import cpu
from asr.training.denominator import DenominatorGraph, denominator_graph, log_denominator


def after(graph: DenominatorGraph, states: dict[int, float], token: int) -> dict[int, float]:
    """Histories and their probabilities, and a token that follows -> those behind it."""
    found: dict[int, float] = defaultdict(float)
    for state, mass in states.items():
        while True:
            for arc in range(int(graph.offsets[state]), int(graph.offsets[state + 1])):
                if graph.tokens[graph.targets[arc]] == token:
                    found[int(graph.targets[arc])] += mass * float(graph.weights[arc])
            if graph.tokens[state] == token and graph.again_targets[state] >= 0:
                found[int(graph.again_targets[state])] += mass * float(graph.again_weights[state])
            mass *= float(graph.backoff[state])
            if graph.lower[state] == state:
                break
            state = int(graph.lower[state])
        found[token] += mass * float(graph.unigrams[token])
    return found


def enumerated(log_probs: Tensor, graph: DenominatorGraph) -> Tensor:
    """ln of the sum over all paths through (T, V) of their probability and that of their tokens."""
    frames, vocabulary = log_probs.shape
    total = log_probs.new_zeros(())
    for path in itertools.product(range(vocabulary), repeat=frames):
        states, sounding = {0: 1.0}, 0
        for output in path:
            if output not in (0, sounding):
                states = after(graph, states, output)
            sounding = output
        probability = log_probs[torch.arange(frames), torch.tensor(path)].sum().exp()
        total = total + probability * sum(states.values())
    return total.log()


@pytest.fixture(params=["C", "portable C", "anywhere"])
def _back_end(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "anywhere":
        monkeypatch.setattr(cpu, "is_available", lambda: False)
    elif not cpu.is_available():
        pytest.skip("no C compiler")
    elif request.param == "portable C":
        monkeypatch.setattr(cpu, "instruction_set", lambda: 0)


TEXTS = [[1, 2, 3, 3], [2, 2, 1], [2, 3, 3, 3, 1, 2, 2, 1], []]


@pytest.mark.usefixtures("_back_end")
@pytest.mark.parametrize("order", [2, 3, 4])
def test_value_and_gradient_are_those_of_enumeration(order: int) -> None:
    torch.manual_seed(0)
    frames = torch.tensor([5, 3, 1])
    log_probs = torch.randn(3, 5, 4, dtype=torch.float64).log_softmax(-1).requires_grad_()
    graph = denominator_graph(TEXTS, 4, order)
    found = log_denominator(log_probs, frames, graph)
    wanted = torch.stack([enumerated(log_probs[i, : frames[i]], graph) for i in range(3)])
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    weights = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    (gradient,) = torch.autograd.grad((found * weights).sum(), log_probs, retain_graph=True)
    (right,) = torch.autograd.grad((wanted * weights).sum(), log_probs)
    torch.testing.assert_close(gradient.double(), right, rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("_back_end")
@pytest.mark.parametrize("threads", [1, 3])
def test_an_utterance_is_the_same_in_any_company(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """13 utterances are more than a vector has lanes; some end early, and one has no frames."""
    monkeypatch.setattr(cpu, "threads", lambda: threads)
    torch.manual_seed(0)
    graph = denominator_graph(TEXTS, 4, 3)
    log_probs = torch.randn(13, 9, 4).log_softmax(-1).requires_grad_()
    frames = torch.tensor([9, 3, 1, 8, 9, 9, 2, 7, 0, 5, 9, 4, 6])
    together = log_denominator(log_probs, frames, graph)
    alone = torch.cat(
        [log_denominator(log_probs[i : i + 1, : frames[i]], frames[i : i + 1], graph) for i in range(13)]
    )
    torch.testing.assert_close(together, alone)
    gradient, right = (torch.autograd.grad(each.sum(), log_probs)[0] for each in (together, alone))
    torch.testing.assert_close(gradient, right)
    behind = torch.arange(9) >= frames[:, None]
    assert not gradient[behind].any()


@pytest.mark.usefixtures("_back_end")
def test_long_and_unlikely_sequences_do_not_underflow() -> None:
    log_probs = torch.full((1, 2000, 5), -12.0)
    log_probs[..., 3] = 0.0
    value = log_denominator(log_probs, torch.tensor([2000]), denominator_graph([[1, 2, 1, 2]], 5, 3))
    assert torch.isfinite(value).all()
    assert -10 < value.item() < 0


@pytest.mark.parametrize("order", [2, 3, 4])
def test_of_what_may_follow_the_probabilities_sum_to_one(order: int) -> None:
    graph = denominator_graph(TEXTS, 5, order)
    for state in range(len(graph.tokens)):
        followed = [sum(after(graph, {state: 1.0}, token).values()) for token in range(5)]
        assert sum(followed) == pytest.approx(1)
        assert followed[0] == 0
        assert min(followed[1:]) > 0


def test_trigrams_are_interpolated_by_witten_and_bell() -> None:
    graph = denominator_graph([[1, 2, 3], [1, 2, 3], [1, 2, 2], [2, 1]], 5, 3)
    unigram = (2 + 3 * 0.25) / (11 + 3)  # 2 of 11, of 3 kinds; 4 tokens are evenly likely
    behind_2 = (2 + 3 * unigram) / (4 + 3)  # 3 twice, 2 and 1 once
    behind_1_2 = (2 + 2 * behind_2) / (3 + 2)  # 3 twice, 2 once
    states = after(graph, after(graph, {0: 1.0}, 1), 2)
    ((state, _),) = [(each, mass) for each, mass in states.items() if graph.lower[each] != each]
    assert sum(after(graph, {state: 1.0}, 3).values()) == pytest.approx(behind_1_2)
