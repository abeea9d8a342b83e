"""The network of csrc/neural.h, and a softmax over a sample of its vocabulary.

B batch, T time, V vocabulary, D outputs, C candidates.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import embedding, rms_norm, silu

from asr.decoding.language_model import SPECIAL
from asr.decoding.neural_model import NeuralModel
from asr.errors import UserError
from asr.mgu import MGU

EPSILON = 1e-6  # of csrc/neural.cc

_ROWS = 256  # of the batch at a time: scores of that many fit the cache


class Network(nn.Module):
    """Words -> vectors; the next word's score is their product with its row of `outputs`, and its bias."""

    def __init__(
        self, vocabulary: int, embedding: int, hidden: int, projection: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(vocabulary, embedding)
        self.cell = MGU(embedding, hidden)
        self.mix, self.out = nn.Linear(hidden, hidden), nn.Linear(hidden, projection)
        self.outputs = nn.Parameter(torch.empty(vocabulary, projection))
        self.bias = nn.Parameter(torch.zeros(vocabulary))
        self.dropout = nn.Dropout(dropout)  # of what the cell reads, and of what the vectors are made of
        nn.init.normal_(self.embeddings.weight, std=0.1)
        nn.init.normal_(self.outputs, std=0.05)
        with torch.no_grad():
            self.cell.weight_ih.mul_(5)  # embeddings are small, so that steps change them

    def forward(self, before: Tensor) -> Tensor:
        """(B, T) ids of sentences from their beginning -> (B, T, D)."""
        read = self.dropout(self.embeddings(before))
        hidden, _ = self.cell(read, self.cell.initial_state(len(before)))
        hidden = hidden + silu(self.mix(_normalised(hidden)))
        vectors: Tensor = self.out(self.dropout(_normalised(hidden)))
        return vectors

    def start_from(self, start: NeuralModel, words: tuple[str, ...]) -> None:
        """Its numbers; of the rows those of the words that it knows.

        It may be narrower in anything: what it lacks are copies of its units, which share what those gave
        (Net2Net, arXiv 1511.05641). Vectors stay as they were, but for what copies do to the mean square.
        """
        known = {word: row for row, word in enumerate((*SPECIAL, *start.words))}
        pairs = [(row, known[word]) for row, word in enumerate((*SPECIAL, *words)) if word in known]
        ours, theirs = torch.tensor(pairs).T
        tables = [torch.from_numpy(table)[theirs] for table in (start.embeddings, start.outputs, start.bias)]
        layers = {name: torch.from_numpy(layer) for name, layer in start.layers.items()}
        embedding = _copies(start.embeddings.shape[1], self.embeddings.embedding_dim)
        hidden = _copies(len(layers["weight_hh"]), self.cell.hidden)
        gates = torch.cat([hidden, hidden + len(layers["weight_hh"])])
        vector = _copies(start.outputs.shape[1], self.outputs.shape[1])
        reads = {"ih": embedding, "hh": hidden, "mix": hidden, "out": hidden}
        makes = {"ih": gates, "hh": gates, "hn": hidden, "mix": hidden, "out": vector}
        with torch.no_grad():
            self.embeddings.weight[ours] = tables[0][:, embedding]
            self.outputs[ours] = _shared(tables[1].T, vector).T
            self.bias[ours] = tables[2]
            for name, layer in self._layers().items():
                kind, place = name.split("_")
                made = layers[name][..., makes[place]]
                layer.copy_(made if kind == "bias" else _shared(made, reads[place]))

    def export(self, words: tuple[str, ...], share: float) -> NeuralModel:
        def numbers(tensor: Tensor) -> NDArray[np.float32]:
            return tensor.detach().cpu().float().contiguous().numpy()

        embeddings, outputs, bias = map(numbers, (self.embeddings.weight, self.outputs, self.bias))
        layers = {name: numbers(layer) for name, layer in self._layers().items()}
        return NeuralModel(words, share, embeddings, outputs, bias, layers)

    def _layers(self) -> dict[str, Tensor]:
        """As a file names them; matrices are (inputs, outputs)."""
        cell = self.cell
        assert cell.bias_hn is not None
        return {
            "weight_ih": cell.weight_ih.T,
            "bias_ih": cell.bias,
            "weight_hh": cell.weight_hh.T,
            "bias_hn": cell.bias_hn,
            "weight_mix": self.mix.weight.T,
            "bias_mix": self.mix.bias,
            "weight_out": self.out.weight.T,
            "bias_out": self.out.bias,
        }


def _copies(old: int, new: int) -> Tensor:
    """(new,): which of the old units each is a copy of; the first ones are themselves."""
    if new < old:
        raise UserError(f"{new} units are fewer than the {old} of the model to go on from")
    more = [torch.randperm(old) for _ in range(math.ceil(new / old) - 1)]
    return torch.cat([torch.arange(old), *more])[:new]


def _shared(matrix: Tensor, copies: Tensor) -> Tensor:
    """(inputs, outputs) -> (copies, outputs): each input's row is divided among its copies at random, so that
    they do not learn the same."""
    parts = torch.rand(len(copies), matrix.size(1)) + 0.1
    sums = torch.zeros_like(matrix).index_add_(0, copies, parts)
    return matrix[copies] * parts / sums[copies]


def _normalised(hidden: Tensor) -> Tensor:
    return rms_norm(hidden.float(), hidden.shape[-1:], eps=EPSILON)


class Drawn(NamedTuple):
    """Candidates of one step: the first `frequent` are always there."""

    ids: Tensor  # (C,)
    extra: Tensor  # (C,): added to their scores, ln of how many words each stands for
    frequent: int


class Candidates:
    """Words that a softmax is summed over: the most frequent ones, and a sample of the others for all of them
    (Jean et al. 2015, arXiv 1412.2007), drawn by their counts to the power of 0.75."""

    def __init__(self, counts: Tensor, frequent: int, sampled: int) -> None:
        self.frequent, self.sampled = min(frequent, len(counts)), sampled
        rare = counts[self.frequent :].clamp(min=1).float() ** 0.75
        self._shares = rare / rare.sum()

    def draw(self, random: torch.Generator) -> Drawn:
        always, nothing = torch.arange(self.frequent), torch.zeros(self.frequent)
        if not len(self._shares):
            return Drawn(always, nothing, self.frequent)
        rare = torch.multinomial(self._shares, self.sampled, replacement=True, generator=random)
        weights = -self._shares[rare].log() - math.log(self.sampled)
        return Drawn(torch.cat([always, rare + self.frequent]), torch.cat([nothing, weights]), self.frequent)


def sampled_loss(
    network: Network, vectors: Tensor, words: Tensor, candidates: Drawn, penalty: float
) -> tuple[Tensor, Tensor]:
    """vectors (B, D), words (B,) -> mean of -ln P + penalty * (ln Z)^2, and of -ln P alone.

    The penalty on the normaliser teaches scores that need none (Devlin et al. 2014).
    """
    drawn, extra = candidates.ids.to(words.device), candidates.extra.to(words.device)
    wanted = torch.cat([drawn, words])  # at once: each look into a table has a gradient as large as the table
    rows, bias = embedding(wanted, network.outputs), network.bias[wanted]
    own = (vectors * rows[len(drawn) :]).sum(-1) + bias[len(drawn) :]
    rows, bias = rows[: len(drawn)], bias[: len(drawn)] + extra
    loss, log_loss = _Sampled.apply(vectors, rows, bias, own, words, drawn, candidates.frequent, penalty)
    return loss, log_loss


class _Sampled(torch.autograd.Function):
    """Value and gradients at once, some rows at a time: scores of all rows are never in memory together."""

    @staticmethod
    def forward(
        ctx: Any,
        vectors: Tensor,
        rows: Tensor,
        bias: Tensor,
        own: Tensor,
        words: Tensor,
        drawn: Tensor,
        frequent: int,
        penalty: float,
    ) -> tuple[Tensor, Tensor]:
        half = torch.is_autocast_enabled(vectors.device.type)
        kind = torch.bfloat16 if half else torch.float32
        narrow, narrow_rows = vectors.to(kind), rows.to(kind)
        by_vectors, by_own = torch.empty_like(vectors, dtype=torch.float32), torch.empty_like(own)
        by_rows, by_bias = torch.zeros_like(rows), torch.zeros_like(bias)
        normalisers = torch.empty_like(own)
        for start in range(0, len(vectors), _ROWS):
            part = slice(start, start + _ROWS)
            scores = (narrow[part] @ narrow_rows.T).float().add_(bias)
            twice = drawn[frequent:] == words[part, None]  # a word that is rare counts once, as itself
            scores[:, frequent:].masked_fill_(twice, -torch.inf)
            most = torch.maximum(scores.amax(1), own[part])
            shares = scores.sub_(most[:, None]).exp_()
            itself = torch.where(words[part] >= frequent, (own[part] - most).exp(), 0.0)
            sums = shares.sum(1) + itself
            normalisers[part] = sums.log() + most
            slope = (1 + 2 * penalty * normalisers[part]) / sums
            shares.mul_(slope[:, None])
            by_own[part] = itself * slope - 1
            narrow_shares = shares.to(kind)
            by_vectors[part] = (narrow_shares @ narrow_rows).float()
            by_rows += (narrow_shares.T @ narrow[part]).float()
            by_bias += shares.sum(0)
        gradients = (by_vectors, by_rows, by_bias, by_own)
        ctx.save_for_backward(*(gradient / len(vectors) for gradient in gradients))
        log_loss = (normalisers - own).mean()
        ctx.mark_non_differentiable(log_loss)
        return log_loss + penalty * normalisers.square().mean(), log_loss

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        by_vectors, by_rows, by_bias, by_own = (each * gradients[0] for each in ctx.saved_tensors)
        return by_vectors, by_rows, by_bias, by_own, None, None, None, None
