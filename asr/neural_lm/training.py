"""Training as a LightningModule."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from asr.decoding.neural_model import NeuralModel
from asr.errors import UserError
from asr.neural_lm.corpus import Batch, Corpus, Epoch
from asr.neural_lm.network import Candidates, Network, sampled_loss
from asr.training.muon import Muon
from asr.training.schedule import Optimiser, schedule

FREQUENT, SAMPLED = 2048, 1024  # candidates
PENALTY = (
    0.1  # on the squared normaliser: of en-small's, ln Z is -0.01 on unseen text, with a deviation of 0.24
)
SAID_EVERY = 500  # steps


@dataclass(frozen=True)
class Sizes:
    """Of an embedding, of the state, and of what a word's row of outputs is multiplied with."""

    embedding: int = 128
    hidden: int = 512
    projection: int = 192


class NeuralLmTraining(LightningModule):
    """rate: Muon's. epochs: over the text; batch: words a step; joined: as in `Epoch`. start: what it goes on
    from, no wider than sizes."""

    def __init__(
        self,
        corpus: Corpus,
        sizes: Sizes,
        rate: float,
        epochs: float,
        batch: int,
        joined: float,
        dropout: float,
        seed: int,
        start: NeuralModel | None = None,
    ) -> None:
        super().__init__()
        self.corpus, self.sizes, self.batch, self.joined, self.seed = corpus, sizes, batch, joined, seed
        self.steps = max(1, int(epochs * len(Epoch(corpus, batch, joined, seed))))
        self.optimiser = Optimiser(rate=rate, warmup=200, floor=0.02)
        counts = corpus.counts()
        self.network = Network(len(counts), sizes.embedding, sizes.hidden, sizes.projection, dropout)
        with torch.no_grad():
            self.network.bias.copy_((counts.clamp(min=1) / counts.sum()).log())
        if start is not None:
            self.network.start_from(start, corpus.words)
        self.candidates = Candidates(counts, FREQUENT, SAMPLED)
        self._losses: list[float] = []  # since they were last said
        self._began = time.monotonic()

    @property
    def identity(self) -> str:
        """What a checkpoint must agree with."""
        text = "\n".join(self.corpus.words).encode()
        return f"{self.sizes}, {len(self.corpus.ids)} words and ends, {hashlib.sha256(text).hexdigest()}"

    def training_step(self, batch: Batch, number: int) -> Tensor:
        vectors = self.network(batch.before)[batch.real].float()
        step = self.global_step + 1
        random = torch.Generator().manual_seed(
            self.seed * self.steps + step
        )  # what is resumed draws the same
        drawn = self.candidates.draw(random)
        loss, log_loss = sampled_loss(self.network, vectors, batch.words[batch.real], drawn, PENALTY)
        self._losses.append(float(log_loss))
        if step % SAID_EVERY == 0 or step == self.steps:
            minutes, mean = (time.monotonic() - self._began) / 60, math.fsum(self._losses) / len(self._losses)
            self._losses.clear()
            self.print(
                f"step {step} of {self.steps}, {minutes:.1f} min here:"
                f" perplexity {math.exp(mean):.0f}, of the text that it learns from"
            )
        return loss

    def train_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(
            _Batches(self.corpus, self.batch, self.joined, self.seed, self.global_step), batch_size=None
        )

    def configure_optimizers(self) -> Any:
        tables = (self.network.embeddings.weight, self.network.outputs)
        optimiser = Muon(list(self.parameters()), self.optimiser.rate, weight_decay=0.0, tables=tables)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimiser, schedule(self.optimiser, self.steps))
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["identity"] = self.identity

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if checkpoint["identity"] != self.identity:
            raise UserError(
                "the training that was stopped had other text, words or sizes: give the same ones,"
                " or delete its checkpoint to begin anew"
            )


class _Batches(IterableDataset[Batch]):
    """One epoch after the other, without end, from step `first` on."""

    def __init__(self, corpus: Corpus, batch: int, joined: float, seed: int, first: int) -> None:
        self.corpus, self.batch, self.joined, self.seed, self.first = corpus, batch, joined, seed, first

    def __iter__(self) -> Iterator[Batch]:
        skipped = self.first
        for number in count():
            epoch = Epoch(self.corpus, self.batch, self.joined, self.seed + number)
            for place in range(min(skipped, len(epoch)), len(epoch)):
                yield epoch[place]
            skipped = max(0, skipped - len(epoch))
