"""Training as a LightningModule: batches of places in a text, each with the words before it."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from asr.errors import UserError
from asr.neural_lm.corpus import Corpus
from asr.neural_lm.network import Candidates, Network, sampled_loss
from asr.training.schedule import Optimiser, make_optimiser, schedule

FREQUENT, SAMPLED = 2048, 2048  # candidates
PENALTY = (
    0.1  # on the squared normaliser: of en-small's, ln Z is -0.01 on unseen text, with a deviation of 0.24
)
SAID_EVERY = 500  # steps


@dataclass(frozen=True)
class Sizes:
    """Of an embedding, of the hidden layers, and of what a word's row of outputs is multiplied with."""

    embedding: int = 128
    hidden: int = 512
    projection: int = 192


class NeuralLmTraining(LightningModule):
    def __init__(self, corpus: Corpus, sizes: Sizes, rate: float, steps: int, batch: int, seed: int) -> None:
        super().__init__()
        self.corpus, self.sizes, self.steps, self.batch, self.seed = corpus, sizes, steps, batch, seed
        self.optimiser = Optimiser(rate=rate, warmup=200, floor=0.02, weight_decay=0.0)
        counts = corpus.counts()
        self.network = Network(len(counts), sizes.embedding, sizes.hidden, sizes.projection)
        with torch.no_grad():
            self.network.bias.copy_((counts.clamp(min=1) / counts.sum()).log())
        self.candidates = Candidates(counts, FREQUENT, SAMPLED)
        self._losses: list[float] = []  # since they were last said
        self._began = time.monotonic()

    @property
    def identity(self) -> str:
        """What a checkpoint must agree with."""
        text = "\n".join(self.corpus.words).encode()
        return f"{self.sizes}, {len(self.corpus.ids)} words and ends, {hashlib.sha256(text).hexdigest()}"

    def training_step(self, batch: tuple[Tensor, Tensor], number: int) -> Tensor:
        histories, words = batch
        vectors = self.network(histories).float()
        step = self.global_step + 1
        random = torch.Generator().manual_seed(
            self.seed * self.steps + step
        )  # what is resumed draws the same
        drawn = self.candidates.draw(random)
        loss, log_loss = sampled_loss(self.network, vectors, words, drawn, PENALTY)
        self._losses.append(float(log_loss))
        if step % SAID_EVERY == 0 or step == self.steps:
            minutes, mean = (time.monotonic() - self._began) / 60, math.fsum(self._losses) / len(self._losses)
            self._losses.clear()
            self.print(
                f"step {step} of {self.steps}, {minutes:.1f} min here:"
                f" perplexity {math.exp(mean):.0f}, of the text that it learns from"
            )
        return loss

    def train_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        return DataLoader(_Batches(self.corpus, self.batch, self.seed, self.global_step), batch_size=None)

    def configure_optimizers(self) -> Any:
        optimiser = make_optimiser(self.parameters(), self.optimiser, fused=False)  # Lightning clips
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


class _Batches(IterableDataset[tuple[Tensor, Tensor]]):
    """Histories and words, without end: all of the text in one random order after the other."""

    def __init__(self, corpus: Corpus, batch: int, seed: int, first: int) -> None:
        self.corpus, self.batch, self.seed, self.first = corpus, min(batch, len(corpus.ids)), seed, first

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        an_epoch = len(self.corpus.ids) // self.batch
        step = self.first
        while True:
            epoch, within = divmod(step, an_epoch)
            order = torch.randperm(
                len(self.corpus.ids), generator=torch.Generator().manual_seed(self.seed + epoch)
            )
            for start in range(within * self.batch, an_epoch * self.batch, self.batch):
                at = order[start : start + self.batch]
                yield self.corpus.histories(at), self.corpus.ids[at].long()
                step += 1
