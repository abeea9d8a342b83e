"""CTC training as a LightningModule: loss, masking, validation, and what a checkpoint must agree with.

Knows batches (asr.data.dataset.Batch) and the model, not where batches come from nor where results go.
B batch, T frames, V vocabulary.
"""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.nn.functional import ctc_loss, nll_loss

from asr.bundle import load_bundle
from asr.data.augment import SpecAugment, spec_augment
from asr.data.dataset import Batch
from asr.data.spoken_text import TextBatch
from asr.encoder import BlockState, EncoderConfig, EncoderState
from asr.errors import UserError
from asr.frontend import FrontEndConfig, LogMel
from asr.model import CtcModel, ModelConfig
from asr.ops import Backend
from asr.phones import SILENCE, UNKNOWN
from asr.state import State, leaves, map_state, with_leaves
from asr.text import Tokenizer
from asr.training.schedule import Optimiser, adamw, schedule

STATISTICS_UTTERANCES = 200


@dataclass(frozen=True)
class Objective:
    """Weights of what training minimises.

    ctc: of the tokens. phones: of the phone layer, cross-entropy of each of its slots, for the utterances
    whose phones are timed. Where ctc is 0, the layers above the phones are neither trained nor run.
    smoothing: of the phones' labels; alignments are off by a frame here and there.
    """

    ctc: float = 1.0
    phones: float = 0.0
    smoothing: float = 0.0


class Errors(NamedTuple):
    """Counts over the dev set, summed over its batches."""

    loss: float
    tokens: int
    edits: int
    words: int
    wrong: int  # slots of the phone layer whose label is not the likeliest
    slots: int


class Outputs(NamedTuple):
    """Of a batch, in float32."""

    log_probs: Tensor | None  # (B, T, V); None where they are not trained
    phones: Tensor | None  # (B, T', slots, P) log-probabilities, T' >= T; None without a phone layer
    frames: Tensor  # (B,)


class CtcTraining(LightningModule):
    """
    Args:
        tokenizer: the SentencePiece model made by `asr tokenizer`.
        encoder: sizes of the network.
        frontend: of the features.
        optimiser: AdamW and its schedule.
        spec_augment: masks on the features while training.
        backend: of the MGU recurrence.
        init_from: a bundle to start from, weights and feature statistics; sizes and tokenizer must agree.
        carried: share of training utterances that begin in the state in which another one ended, as words of
            a long stream do. Without it the first token of an utterance is learnt as a guess at frame 0,
            which the zero state makes easy to find, and the model has never met a stream that goes on.
        objective: what is minimised.
        seed: of dropout and SpecAugment.
    """

    def __init__(
        self,
        tokenizer: Path,
        encoder: EncoderConfig = EncoderConfig(),  # noqa: B008 (frozen)
        frontend: FrontEndConfig = FrontEndConfig(),  # noqa: B008
        optimiser: Optimiser = Optimiser(),  # noqa: B008
        spec_augment: SpecAugment = SpecAugment(),  # noqa: B008
        backend: Backend = "auto",
        init_from: Path | None = None,
        carried: float = 0.5,
        objective: Objective = Objective(),
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.tokenizer = Tokenizer.load(tokenizer)
        self.model = CtcModel(ModelConfig(self.tokenizer.vocabulary, frontend, encoder), backend)
        self.optimiser, self.masks, self.seed = optimiser, spec_augment, seed
        self.carried, self.objective = carried, objective
        if objective.phones and not encoder.phone_layer:
            raise UserError(
                "model.objective.phones: the encoder has no phone layer; give model.encoder.phone_layer"
            )
        self.generator = torch.Generator()
        self._ended: EncoderState | None = None  # where the utterances of the last training batch ended
        self._spelt_end: tuple[BlockState, ...] | None = None  # the same of text
        self._errors: list[Errors] = []
        if init_from is not None:
            self._start_from(init_from)

    def _start_from(self, bundle: Path) -> None:
        start = load_bundle(bundle)
        _check_same(
            str(bundle), _identity(start.model, start.tokenizer), _identity(self.model, self.tokenizer)
        )
        self.model.load_state_dict(start.model.state_dict())

    # The forward path of training: CtcModel.offline with masks between front-end and encoder

    def outputs(self, batch: Batch | TextBatch, training: bool) -> Outputs:
        if isinstance(batch, TextBatch):
            return self._spelt(batch)
        audio = self.model.pad_for_lookahead(batch.audio)
        state = self.model.initial_state(audio.size(0))
        with torch.autocast(audio.device.type, enabled=False):
            features, _ = self.model.frontend(audio, state.frontend)
        start = state.encoder
        if training:
            lengths = batch.lengths // self.model.config.frontend.hop
            features = spec_augment(features, lengths, self.masks, self.generator)
            start = self._carry(start, self._ended)
        encoder, frames = self.model.encoder, self.model.frames(batch.lengths)
        heard, convolutions, below = encoder.hear(features, start)
        above, phones, log_probs = start.blocks[encoder.below :], None, None
        if encoder.phones is not None:
            logits = encoder.phones.logits(heard)
            phones = logits[:, encoder.hearing :].float().log_softmax(-1)
            heard = encoder.phones.embed(logits.softmax(-1))
        if self.objective.ctc:
            encoded, above = encoder.spell(heard, above)
            logits = self.model.head(self.model.drop_lookahead(encoded))
            log_probs = logits.float().log_softmax(-1)
        if training:
            ended = EncoderState(convolutions, (*below, *above))
            self._ended = map_state(lambda leaf: leaf.detach().float(), ended)
        return Outputs(log_probs, phones, frames)

    def _spelt(self, batch: TextBatch) -> Outputs:
        """Text, in training: no audio, so the blocks below the phone layer rest."""
        encoder = self.model.encoder
        assert encoder.phones is not None
        delay = encoder.lookahead - encoder.hearing
        quiet = torch.zeros_like(batch.posteriors[:, :1])
        quiet[..., SILENCE] = 1.0
        posteriors = torch.cat([batch.posteriors, quiet.expand(-1, delay, -1, -1)], 1)
        zeros = self.model.initial_state(len(posteriors)).encoder.blocks[encoder.below :]
        start = self._carry(zeros, self._spelt_end)
        encoded, ended = encoder.spell(encoder.phones.embed(posteriors), start)
        self._spelt_end = map_state(lambda leaf: leaf.detach().float(), ended)
        log_probs = self.model.head(encoded[:, delay:]).float().log_softmax(-1)
        return Outputs(log_probs, None, self.model.frames(batch.lengths))

    def _carry(self, zeros: State, ended: State | None) -> State:
        """The zero state (B, ...), a random share of its rows replaced by rows of the last batch's end."""
        if ended is None:
            return zeros
        others, batch = len(leaves(ended)[0]), len(leaves(zeros)[0])
        rows = torch.randint(others, (batch,), generator=self.generator).to(self.device)
        kept = (torch.rand(batch, generator=self.generator) < self.carried).to(self.device)

        def choose(zero: Tensor, last: Tensor) -> Tensor:
            return torch.where(kept.view(-1, *[1] * (zero.dim() - 1)), last[rows], zero)

        return map_state(choose, zeros, ended)

    def loss(self, log_probs: Tensor, frames: Tensor, batch: Batch | TextBatch) -> Tensor:
        """CTC loss summed over the batch, in nats."""
        # no zero_infinity: the data module has dropped what cannot be aligned, all else should be seen
        return ctc_loss(
            log_probs.transpose(0, 1),
            batch.tokens,
            frames,
            batch.token_lengths,
            blank=self.tokenizer.blank,
            reduction="sum",
        )

    def on_train_batch_start(self, batch: Batch | TextBatch, batch_idx: int) -> None:
        # every batch has its own seed, so that a resumed training draws the masks and dropout it would have
        seed = zlib.crc32(f"{self.seed} {self.current_epoch} {batch_idx} {self.global_rank}".encode())
        torch.manual_seed(seed)
        self.generator.manual_seed(seed)

    def phone_loss(self, phones: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Cross-entropy summed over labelled slots, in nats; how many are wrong; how many there are.

        phones (B, T', slots, P) log-probabilities.
        """
        assert batch.phones is not None
        flat = phones.flatten(1, 2)[:, : batch.phones.size(1)].transpose(1, 2)  # (B, P, K)
        labels = batch.phones[:, : flat.size(2)]
        loss = nll_loss(flat, labels, ignore_index=UNKNOWN, reduction="sum")
        known = labels != UNKNOWN
        if self.objective.smoothing:
            even = -flat.mean(1)[known].sum()
            loss = torch.lerp(loss, even, self.objective.smoothing)
        wrong = (flat.argmax(1) != labels) & known
        return loss, wrong.sum(), known.sum()

    def training_step(self, batch: Batch | TextBatch, batch_idx: int) -> Tensor:
        outputs = self.outputs(batch, training=True)
        loss = torch.zeros((), device=self.device)
        if outputs.log_probs is not None:
            tokens = batch.token_lengths.sum().clamp(min=1)
            ctc = self.loss(outputs.log_probs, outputs.frames, batch) / tokens
            self.log("text" if isinstance(batch, TextBatch) else "ctc", ctc, prog_bar=True)  # nats a token
            loss = loss + self.objective.ctc * ctc
        if outputs.phones is not None and self.objective.phones and isinstance(batch, Batch):
            summed, wrong, slots = self.phone_loss(outputs.phones, batch)
            self.log("phone_error", 100 * wrong / slots.clamp(min=1), prog_bar=True)  # percent
            loss = loss + self.objective.phones * summed / slots.clamp(min=1)
        self.log("loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        from jiwer import process_words  # a second of import that only validation needs

        outputs = self.outputs(batch, training=False)
        loss, tokens, edits, words, wrong, slots = 0.0, int(batch.token_lengths.sum()), 0, 0, 0, 0
        if outputs.phones is not None and batch.phones is not None:
            summed, errors, known = self.phone_loss(outputs.phones, batch)
            wrong, slots = int(errors), int(known)
            loss += self.objective.phones * summed.item() * tokens / max(1, slots)
        if outputs.log_probs is not None:
            loss += self.objective.ctc * self.loss(outputs.log_probs, outputs.frames, batch).item()
            found = process_words(list(batch.texts), self.greedy(outputs.log_probs, outputs.frames))
            edits = found.substitutions + found.insertions + found.deletions
            words = found.hits + found.substitutions + found.deletions
        self._errors.append(Errors(loss, tokens, edits, words, wrong, slots))

    def greedy(self, log_probs: Tensor, frames: Tensor) -> list[str]:
        """Best-path text of each utterance."""
        texts = []
        for path, length in zip(log_probs.argmax(-1).cpu(), frames.tolist(), strict=True):
            tokens = path[:length].unique_consecutive().tolist()
            texts.append(self.tokenizer.decode([token for token in tokens if token != self.tokenizer.blank]))
        return texts

    def on_validation_epoch_end(self) -> None:
        sums = torch.tensor(self._errors, dtype=torch.float64).sum(0).to(self.device, torch.float32)
        self._errors.clear()
        loss, tokens, edits, words, wrong, slots = self.trainer.strategy.reduce(
            sums, reduce_op="sum"
        ).tolist()
        self.log("dev_loss", loss / max(1.0, tokens), prog_bar=True)
        if self.objective.ctc:
            self.log("dev_wer", 100 * edits / max(1.0, words), prog_bar=True)  # percent
        if self.objective.phones:
            self.log("dev_phone_error", 100 * wrong / max(1.0, slots), prog_bar=True)  # percent

    @property
    def judged_by(self) -> str:
        """The dev figure, in percent, by which checkpoints are chosen."""
        return "dev_wer" if self.objective.ctc else "dev_phone_error"

    # Before the first step

    def on_fit_start(self) -> None:
        if self.objective.phones and not self.trainer.datamodule.phones:  # type: ignore[attr-defined]
            raise UserError("data.phones: name the CTM files that model.objective.phones needs")
        if not self.model.frontend.has_statistics:
            audio = self.trainer.datamodule.sample_audio(STATISTICS_UTTERANCES)  # type: ignore[attr-defined]
            self.model.frontend.set_statistics(*measure_statistics(self.model.frontend, audio))
        self.print(self.model.describe())

    def configure_optimizers(self) -> Any:
        # Lightning refuses to clip the gradients of a fused optimiser in mixed precision
        optimiser = adamw(self.parameters(), self.optimiser, fused="mixed" not in str(self.trainer.precision))
        rate = torch.optim.lr_scheduler.LambdaLR(optimiser, schedule(self.optimiser, self._steps()))
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": rate, "interval": "step"}}

    def _steps(self) -> int:
        """Optimiser steps of the whole training, a function of the config: resuming changes nothing."""
        trainer = self.trainer
        if self.optimiser.decay != "cosine":
            return 0
        if self.optimiser.steps is not None:
            return self.optimiser.steps
        if trainer.max_steps > 0:
            return trainer.max_steps
        if trainer.max_epochs is None or trainer.max_epochs < 1:
            raise UserError(
                "model.optimiser.steps: the cosine must know where training ends;"
                " set it, or trainer.max_steps or trainer.max_epochs, or model.optimiser.decay: inverse_sqrt"
            )
        batches = trainer.datamodule.steps_an_epoch()  # type: ignore[attr-defined]
        return trainer.max_epochs * -(-batches // trainer.accumulate_grad_batches)

    # Checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["identity"] = _identity(self.model, self.tokenizer)
        checkpoint["ended"] = leaves(self._ended) if self._ended else []
        checkpoint["spelt_end"] = leaves(self._spelt_end) if self._spelt_end else []

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        _check_same("the checkpoint", checkpoint.get("identity", {}), _identity(self.model, self.tokenizer))
        state = self.model.initial_state(1).encoder
        if checkpoint.get("ended"):
            self._ended = with_leaves(state, checkpoint["ended"])
        if checkpoint.get("spelt_end"):
            above = state.blocks[self.model.encoder.below :]
            self._spelt_end = with_leaves(above, checkpoint["spelt_end"])


def measure_statistics(frontend: LogMel, audio: Any) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each mel band, (M,) both, over utterances of audio (S,)."""
    device = frontend.mean.device
    count, total, squares = 0, torch.zeros(1, device=device), torch.zeros(1, device=device)
    with torch.no_grad():
        for samples in audio:
            whole = samples[: len(samples) // frontend.config.hop * frontend.config.hop]
            features, _ = frontend.log_mel(whole[None].to(device), frontend.initial_state(1))
            frames = features[0].double()
            count += len(frames)
            total, squares = total + frames.sum(0), squares + frames.square().sum(0)
    mean = total / count
    return mean.float(), (squares / count - mean.square()).clamp(min=1e-4).sqrt().float()


def _identity(model: CtcModel, tokenizer: Tokenizer) -> dict[str, Any]:
    """What a checkpoint or bundle must share with the config that goes on from it."""
    config = asdict(model.config)
    parts = ("encoder", "frontend")
    sizes = {f"model.{part}.{key}": value for part in parts for key, value in config[part].items()}
    sizes.pop("model.encoder.dropout")
    return {
        "vocabulary": tokenizer.vocabulary,
        "tokenizer": hashlib.sha256(tokenizer.model).hexdigest(),
        **{key: list(value) if isinstance(value, tuple) else value for key, value in sizes.items()},
    }


def _check_same(source: str, theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    for key, value in ours.items():
        if theirs.get(key) == value:
            continue
        if key in ("vocabulary", "tokenizer"):
            detail = f"{theirs.get('vocabulary')} tokens there, {ours['vocabulary']} here"
            raise UserError(
                f"model.tokenizer: {source} was trained with another vocabulary ({detail});"
                " give the tokenizer that it was trained with, or train from the start"
            )
        raise UserError(f"{key}: {source} has {theirs.get(key)}, the config {value}; make them the same")
