from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.decoding.language_model import HISTORY
from asr.neural_lm.network import Candidates, Network, sampled_loss

PENALTY = 0.3


def small(vocabulary: int, seed: int = 0) -> Network:
    torch.manual_seed(seed)
    return Network(vocabulary, embedding=3, hidden=8, projection=5)


def whole_loss(network: Network, histories: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
    scores = network(histories) @ network.outputs.T + network.bias
    normaliser = scores.logsumexp(-1)
    own = scores.gather(1, words[:, None]).squeeze(1)
    return (normaliser - own + PENALTY * normaliser.square()).mean()


@given(st.integers(0, 1000), st.integers(1, 600))
@settings(max_examples=20, deadline=None)
def test_where_every_word_is_a_candidate_the_loss_and_its_gradients_are_exact(seed: int, batch: int) -> None:
    network = small(20, seed)
    histories, words = torch.randint(20, (batch, HISTORY)), torch.randint(20, (batch,))
    candidates = Candidates(torch.ones(20), frequent=20, sampled=0).draw(torch.Generator())
    found = sampled_loss(network, network(histories), words, candidates, PENALTY)[0]
    gradients = torch.autograd.grad(found, list(network.parameters()))
    wanted = whole_loss(network, histories, words)
    torch.testing.assert_close(found, wanted)
    for mine, right in zip(gradients, torch.autograd.grad(wanted, list(network.parameters())), strict=True):
        torch.testing.assert_close(mine, right, atol=1e-5, rtol=1e-4)


def test_the_sample_stands_for_all_rare_words() -> None:
    network = small(50)
    histories, words = torch.randint(50, (20, HISTORY)), torch.randint(50, (20,))
    candidates = Candidates(torch.arange(50, 0, -1), frequent=10, sampled=1_000_000).draw(torch.Generator())
    with torch.no_grad():
        found, log_loss = sampled_loss(network, network(histories), words, candidates, PENALTY)
    wanted = whole_loss(network, histories, words)
    torch.testing.assert_close(found, wanted, atol=0.01, rtol=0.0)
    assert log_loss < found


def test_histories_of_other_words_and_other_orders_differ() -> None:
    network = small(20)
    ordered = torch.arange(3, 3 + HISTORY)[None]
    vectors = network(torch.cat([ordered, ordered.flip(1), ordered + 1]))
    assert torch.pdist(vectors).min() > 1e-3
