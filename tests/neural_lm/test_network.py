from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.errors import UserError
from asr.neural_lm.network import Candidates, Network, sampled_loss

PENALTY = 0.3


def small(vocabulary: int, seed: int = 0) -> Network:
    torch.manual_seed(seed)
    return Network(vocabulary, embedding=3, hidden=8, projection=5)


def whole_loss(network: Network, before: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
    scores = network(before).flatten(0, 1) @ network.outputs.T + network.bias
    normaliser = scores.logsumexp(-1)
    own = scores.gather(1, words[:, None]).squeeze(1)
    return (normaliser - own + PENALTY * normaliser.square()).mean()


@given(st.integers(0, 1000), st.integers(1, 200))
@settings(max_examples=20, deadline=None)
def test_where_every_word_is_a_candidate_the_loss_and_its_gradients_are_exact(seed: int, batch: int) -> None:
    network = small(20, seed)
    before, words = torch.randint(20, (batch, 3)), torch.randint(20, (3 * batch,))
    candidates = Candidates(torch.ones(20), frequent=20, sampled=0).draw(torch.Generator())
    found = sampled_loss(network, network(before).flatten(0, 1), words, candidates, PENALTY)[0]
    gradients = torch.autograd.grad(found, list(network.parameters()))
    wanted = whole_loss(network, before, words)
    torch.testing.assert_close(found, wanted)
    for mine, right in zip(gradients, torch.autograd.grad(wanted, list(network.parameters())), strict=True):
        torch.testing.assert_close(mine, right, atol=1e-5, rtol=1e-4)


def test_the_sample_stands_for_all_rare_words() -> None:
    network = small(50)
    before, words = torch.randint(50, (5, 4)), torch.randint(50, (20,))
    candidates = Candidates(torch.arange(50, 0, -1), frequent=10, sampled=1_000_000).draw(torch.Generator())
    with torch.no_grad():
        found, log_loss = sampled_loss(network, network(before).flatten(0, 1), words, candidates, PENALTY)
    wanted = whole_loss(network, before, words)
    torch.testing.assert_close(found, wanted, atol=0.01, rtol=0.0)
    assert log_loss < found


def test_vectors_depend_on_all_words_before_and_their_order_and_on_none_behind() -> None:
    network = small(20)
    torch.nn.init.normal_(network.embeddings.weight)
    said = torch.tensor([[1, 3, 4, 5, 6], [1, 4, 3, 5, 6], [1, 7, 4, 5, 6], [1, 3, 4, 5, 9]])
    vectors = network(said)
    assert torch.pdist(vectors[:3, 3]).min() > 1e-3
    torch.testing.assert_close(vectors[0, :4], vectors[3, :4])


def scores(network: Network, said: torch.Tensor) -> torch.Tensor:
    return network(said) @ network.outputs.T + network.bias


def test_a_wider_one_begins_where_it_comes_from_and_its_copies_learn_apart() -> None:
    narrow = small(20)
    for bias in (narrow.mix.bias, narrow.out.bias, narrow.cell.bias, narrow.cell.bias_hn):
        torch.nn.init.normal_(bias)
    words = tuple(f"word{row}" for row in range(3, 20))
    wide = Network(20, embedding=7, hidden=16, projection=6)
    wide.start_from(narrow.export(words, 1.0), words)
    said = torch.randint(20, (6, 9))
    torch.testing.assert_close(scores(wide, said), scores(narrow, said))
    scores(wide, said).square().mean().backward()
    for layer, old in ((wide.mix.weight, 8), (wide.out.weight, 5)):
        assert layer.grad is not None
        assert torch.cdist(layer.grad[old:], layer.grad[:old]).min() > 1e-6


@pytest.mark.parametrize("sizes", [(2, 8, 5), (3, 7, 5), (3, 8, 4)])
def test_a_narrower_one_cannot_begin_there(sizes: tuple[int, int, int]) -> None:
    words = tuple(f"word{row}" for row in range(3, 20))
    with pytest.raises(UserError, match=r"fewer than the \d of the model to go on from"):
        Network(20, *sizes).start_from(small(20).export(words, 1.0), words)


def test_dropout_is_of_training_alone() -> None:
    network = Network(20, 3, 8, 5, dropout=0.5)
    torch.nn.init.normal_(network.embeddings.weight)
    said = torch.randint(20, (6, 9))
    assert not torch.equal(network(said), network(said))
    network.eval()
    assert torch.equal(network(said), network(said))
