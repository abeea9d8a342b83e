"""Training as a LightningModule: losses, masking, validation, and what a checkpoint must agree with.

Knows batches (asr.data.dataset.Batch) and the model, not where batches come from nor where results go.
B batch, T frames, V vocabulary.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import Tensor
from torch.nn.functional import ctc_loss, nll_loss

from asr.bundle import load_bundle
from asr.data.augment import SpecAugment, spec_augment
from asr.data.dataset import Batch
from asr.data.phones import phone_log_probs, without_places
from asr.encoder import EncoderConfig, EncoderState
from asr.errors import UserError
from asr.frontend import FrontEndConfig, LogMel
from asr.lexicon import PhoneTokenizer, load_tokenizer
from asr.model import CtcModel, ModelConfig
from asr.ops import Backend
from asr.phones import UNKNOWN
from asr.state import leaves, map_state, with_leaves
from asr.training.denominator import denominator_graph, log_denominator
from asr.training.identity import OF_THE_HEAD, check_same, identity
from asr.training.penalty import penalties
from asr.training.schedule import Optimiser, make_optimiser, schedule
from asr.training.teachers import Teachers, divergence

STATISTICS_UTTERANCES = 200
MOST_LEFT_OUT = 10  # steps in a row whose gradients are no numbers, before training ends


@dataclass(frozen=True)
class Objective:
    """Weights of what training minimises.

    ctc: of the tokens. denominator: of everything that could have been said instead, by n-grams of the
    training texts' tokens; with both at 1 the reference is to be likelier than its rivals (MMI). frames:
    cross-entropy of each frame with the phone that an aligner found there, for the utterances whose phones
    are timed; where a word begins is left to the model, which needs phones as tokens. smoothing: of these
    labels; alignments are off by a frame here and there. teachers: of the divergence from their posteriors.
    No weight: order, of the denominator's n-grams.
    """

    ctc: float = 1.0
    denominator: float = 0.0
    frames: float = 0.0
    smoothing: float = 0.0
    teachers: float = 0.0
    order: int = 2


class Sums(NamedTuple):
    """Over the dev set, of its batches."""

    sequences: float  # nats of ctc and denominator, weighted
    tokens: int
    edits: int
    words: int
    frames: float  # nats
    wrong: int  # frames in which another phone is the likeliest
    known: int  # frames whose phone is known


class CtcTraining(LightningModule):
    """
    Args:
        tokenizer: the SentencePiece model made by `asr tokenizer`, or a lexicon, for phones as tokens.
        encoder: sizes of the network.
        outputs: distributions over the tokens a frame of the encoder, which phones can be shorter than.
        frontend: of the features.
        optimiser: Muon or AdamW, and its schedule.
        spec_augment: masks on the features while training.
        backend: of the MGU recurrence.
        init_from: a bundle to start from, weights and feature statistics; sizes and tokenizer must agree.
        encoder_from: likewise, but for the head, which begins anew: for other tokens, or another language.
        carried: share of training utterances that begin in the state in which another one ended, as words of
            a long stream do. Without it the first token of an utterance is learnt as a guess at frame 0,
            which the zero state makes easy to find, and the model has never met a stream that goes on.
        objective: what is minimised.
        teachers: bundles, or names of models of the package, whose posteriors are learnt too, each with its
            share in the mean of their logarithms. Masks are not for them.
        seed: of dropout and SpecAugment.
    """

    def __init__(
        self,
        tokenizer: Path,
        encoder: EncoderConfig = EncoderConfig(),  # noqa: B008 (frozen)
        outputs: int = 1,
        frontend: FrontEndConfig = FrontEndConfig(),  # noqa: B008
        optimiser: Optimiser = Optimiser(),  # noqa: B008
        spec_augment: SpecAugment = SpecAugment(),  # noqa: B008
        backend: Backend = "auto",
        init_from: Path | None = None,
        encoder_from: Path | None = None,
        carried: float = 0.5,
        objective: Objective = Objective(),
        teachers: dict[str, float] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.tokenizer = load_tokenizer(tokenizer)
        if not (objective.ctc or objective.frames):
            raise UserError("model.objective: both weights are 0; give ctc or frames one")
        if objective.denominator and not objective.ctc:
            raise UserError("model.objective.denominator: is half of a loss; give model.objective.ctc too")
        if objective.order < 2:
            raise UserError(f"model.objective.order: {objective.order}; give 2 or more")
        if objective.frames and not isinstance(self.tokenizer, PhoneTokenizer):
            raise UserError("model.objective.frames: needs phones as tokens; model.tokenizer: give a lexicon")
        if bool(objective.teachers) != bool(teachers):
            raise UserError("model.objective.teachers: is the weight of model.teachers; give both or none")
        self.model = CtcModel(ModelConfig(self.tokenizer.vocabulary, frontend, encoder, outputs), backend)
        self.optimiser, self.masks, self.seed = optimiser, spec_augment, seed
        self.carried, self.objective = carried, objective
        self._teachers = Teachers(teachers, self.tokenizer, self.model, backend) if teachers else None
        self.generator = torch.Generator()
        self._ended: EncoderState | None = None  # where the utterances of the last training batch ended
        self._left_out = 0  # steps in a row
        self._sums: list[Sums] = []
        if init_from is not None and encoder_from is not None:
            raise UserError("model.encoder_from: and model.init_from are two beginnings; give one of them")
        if init_from is not None:
            self._start_from(init_from)
        if encoder_from is not None:
            self._start_from(encoder_from, head=False)

    def _start_from(self, bundle: Path, head: bool = True) -> None:
        start = load_bundle(bundle)
        ours = identity(self.model, self.tokenizer)
        if not head:
            ours = {key: value for key, value in ours.items() if key not in OF_THE_HEAD}
        check_same(str(bundle), identity(start.model, start.tokenizer), ours)
        theirs = start.model.state_dict()
        kept = {name: each for name, each in theirs.items() if head or not name.startswith("head.")}
        self.model.load_state_dict({**self.model.state_dict(), **kept})

    # The forward path of training: CtcModel.offline with masks between front-end and encoder

    def outputs(self, batch: Batch, training: bool) -> tuple[Tensor, Tensor]:
        """Log-probabilities (B, T, V) in float32, and frames (B,)."""
        audio = self.model.pad_for_lookahead(batch.audio)
        state = self.model.initial_state(audio.size(0))
        with torch.autocast(audio.device.type, enabled=False):
            features, _ = self.model.frontend(audio, state.frontend)
        start = state.encoder
        if training:
            lengths = batch.lengths // self.model.config.frontend.hop
            features = spec_augment(features, lengths, self.masks, self.generator)
            start = self._carry(start)
        encoded, ended = self.model.encoder(features, start)
        if training:
            self._ended = map_state(lambda leaf: leaf.detach().float(), ended)
        logits = self.model.drop_lookahead(self.model.logits(encoded))
        return logits.float().log_softmax(-1), self.model.frames(batch.lengths)

    def _carry(self, zeros: EncoderState) -> EncoderState:
        """The zero state (B, ...), a random share of its rows replaced by rows of the last batch's end."""
        if self._ended is None:
            return zeros
        others, batch = len(leaves(self._ended)[0]), len(leaves(zeros)[0])
        rows = torch.randint(others, (batch,), generator=self.generator).to(self.device)
        kept = (torch.rand(batch, generator=self.generator) < self.carried).to(self.device)

        def choose(zero: Tensor, last: Tensor) -> Tensor:
            return torch.where(kept.view(-1, *[1] * (zero.dim() - 1)), last[rows], zero)

        return map_state(choose, zeros, self._ended)

    def sequence_loss(self, log_probs: Tensor, frames: Tensor, batch: Batch) -> Tensor:
        """What the objective's `ctc` and `denominator` weigh, summed over the batch, in nats."""
        # no zero_infinity: the data module has dropped what cannot be aligned, all else should be seen
        loss = self.objective.ctc * ctc_loss(
            log_probs.transpose(0, 1),
            batch.tokens,
            frames,
            batch.token_lengths,
            blank=self.tokenizer.blank,
            reduction="sum",
        )
        if self.objective.denominator:
            rivals = log_denominator(log_probs, frames, self._denominator)
            loss = loss + self.objective.denominator * rivals.sum()
        return loss

    def frame_loss(self, log_probs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """log_probs (B, T', V), labels (B, T): phones, T <= T'. Cross-entropy summed over the frames whose
        phone is known, in nats; in how many another one is the likeliest; how many there are."""
        phones = phone_log_probs(log_probs[:, : labels.size(1)]).transpose(1, 2)  # (B, P, T)
        loss = nll_loss(phones, labels, ignore_index=UNKNOWN, reduction="sum")
        known = labels != UNKNOWN
        if self.objective.smoothing:
            even = -phones.mean(1)[known].sum()
            loss = torch.lerp(loss, even, self.objective.smoothing)
        wrong = (phones.argmax(1) != labels) & known
        return loss, wrong.sum(), known.sum()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        # every batch has its own seed, so that a resumed training draws the masks and dropout it would have
        seed = zlib.crc32(f"{self.seed} {self.current_epoch} {batch_idx} {self.global_rank}".encode())
        torch.manual_seed(seed)
        self.generator.manual_seed(seed)

    def loss(self, log_probs: Tensor, frames: Tensor, batch: Batch) -> Tensor:
        """The objective of a batch, its parts logged."""
        loss = torch.zeros((), device=log_probs.device)
        if self.objective.ctc:
            summed = self.sequence_loss(log_probs, frames, batch)
            sequences = summed / batch.token_lengths.sum().clamp(min=1)
            self.log("sequences", sequences, prog_bar=True)  # nats a token
            loss = loss + sequences
        if self.objective.frames:
            assert batch.phones is not None
            summed, wrong, known = self.frame_loss(log_probs, batch.phones)
            self.log("frame_error", 100 * wrong / known.clamp(min=1), prog_bar=True)  # percent
            loss = loss + self.objective.frames * summed / known.clamp(min=1)
        if self._teachers:
            taught = self._teachers.log_probs(batch.audio, batch.lengths)
            apart = divergence(taught, log_probs, frames) / frames.sum()
            self.log("teachers", apart, prog_bar=True)  # nats a frame
            loss = loss + self.objective.teachers * apart
        return loss

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        with penalties(self.model.encoder) as asked:
            outputs = self.outputs(batch, training=True)
        loss = self.loss(*outputs, batch)
        if asked:
            penalty = self.penalty(asked, batch.lengths)
            self.log("penalty", penalty, prog_bar=True)  # nats a frame of the encoder
            loss = loss + penalty
        self.log("loss", loss, prog_bar=True)
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """A step whose gradients are not finite is left out; weights that have met one never recover."""
        gradients = [each.grad for each in self.parameters() if each.grad is not None]
        if torch.stack(torch._foreach_norm(gradients)).isfinite().all():
            self._left_out = 0
            return
        self._left_out += 1
        if self._left_out == MOST_LEFT_OUT:
            raise UserError(
                f"step {self.global_step}: for {MOST_LEFT_OUT} steps gradients have not been finite; go on"
                " from an earlier checkpoint (--ckpt_path FILE) with a lower model.optimiser.rate"
            )
        rank_zero_only(print)(f"step {self.global_step} left out: its gradients are not finite")
        optimizer.zero_grad()  # to none, so that nothing moves
        self._ended = None

    def penalty(self, asked: list[Tensor], lengths: Tensor) -> Tensor:
        """The sum of what layers asked for, (B, T) each, in the mean over the frames of audio of lengths (B,)
        in samples, and of the lookahead after it."""
        frames = -(-lengths // self.model.step_samples) + self.model.encoder.lookahead
        inside = torch.arange(asked[0].size(1), device=lengths.device) < frames.unsqueeze(1)
        return torch.stack(asked).sum(0)[inside].mean()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        log_probs, frames = self.outputs(batch, training=False)
        sequences, edits, words = 0.0, 0, 0
        if self.objective.ctc:
            sequences = self.sequence_loss(log_probs, frames, batch).item()
            edits, words = self._count(batch, self.greedy(log_probs, frames))
        summed, wrong, known = 0.0, 0, 0
        if self.objective.frames:
            assert batch.phones is not None
            loss, errors, labelled = self.frame_loss(log_probs, batch.phones)
            summed, wrong, known = loss.item(), int(errors), int(labelled)
        tokens = int(batch.token_lengths.sum())
        self._sums.append(Sums(sequences, tokens, edits, words, summed, wrong, known))

    def _count(self, batch: Batch, found: list[str]) -> tuple[int, int]:
        """Errors, and words, of a batch as its tokens say it; phones where these are the tokens."""
        from jiwer import process_words  # a second of import that only validation needs

        tokens = zip(batch.tokens.cpu(), batch.token_lengths, strict=True)
        said = [self._decode(own[:length].tolist()) for own, length in tokens]
        result = process_words(said, found)
        edits = result.substitutions + result.insertions + result.deletions
        return edits, result.hits + result.substitutions + result.deletions

    def greedy(self, log_probs: Tensor, frames: Tensor) -> list[str]:
        """Best-path text of each utterance; of phones, wherever in a word, where these are the tokens."""
        if self._phones:
            log_probs = without_places(log_probs)
        texts = []
        for path, length in zip(log_probs.argmax(-1).cpu(), frames.tolist(), strict=True):
            tokens = path[:length].unique_consecutive().tolist()
            texts.append(self._decode([token for token in tokens if token != self.tokenizer.blank]))
        return texts

    def _decode(self, tokens: list[int]) -> str:
        text = self.tokenizer.decode(tokens)
        return " ".join(text.replace(" ", "")) if self._phones else text

    @property
    def _phones(self) -> bool:
        return self.tokenizer.lexicon is not None

    def on_validation_epoch_end(self) -> None:
        sums = torch.tensor(self._sums, dtype=torch.float64).sum(0).to(self.device, torch.float32)
        self._sums.clear()
        total = Sums(*self.trainer.strategy.reduce(sums, reduce_op="sum").tolist())
        frames = self.objective.frames * total.frames / max(1, total.known)
        self.log("dev_loss", total.sequences / max(1, total.tokens) + frames, prog_bar=True)
        if self.objective.ctc:
            name = "dev_phone_error" if self._phones else "dev_wer"
            self.log(name, 100 * total.edits / max(1, total.words), prog_bar=True)  # percent
        if self.objective.frames:
            self.log("dev_frame_error", 100 * total.wrong / max(1, total.known), prog_bar=True)  # percent

    @property
    def judged_by(self) -> str:
        """The dev figure by which checkpoints are chosen. With a denominator the best path says little: it
        fills with what a language model would forbid, and its errors grow while the beam's words get better.
        """
        if self.objective.denominator:
            return "dev_loss"
        if not self.objective.ctc:
            return "dev_frame_error"
        return "dev_phone_error" if self._phones else "dev_wer"

    # Before the first step

    def on_fit_start(self) -> None:
        if self.objective.frames and not self.trainer.datamodule.phones:  # type: ignore[attr-defined]
            raise UserError("data.phones: name the CTM files that model.objective.frames needs")
        if self.objective.denominator:
            said = self.trainer.datamodule.training_tokens()  # type: ignore[attr-defined]
            self._denominator = denominator_graph(said, self.tokenizer.vocabulary, self.objective.order).to(
                self.device
            )
        if not self.model.frontend.has_statistics:
            audio = self.trainer.datamodule.sample_audio(STATISTICS_UTTERANCES)  # type: ignore[attr-defined]
            self.model.frontend.set_statistics(*measure_statistics(self.model.frontend, audio))
        if self._teachers:
            self._teachers.to(self.device)
        self.print(self.model.describe())

    def configure_optimizers(self) -> Any:
        # Lightning refuses to clip the gradients of a fused optimiser in mixed precision
        fused = "mixed" not in str(self.trainer.precision)
        optimiser = make_optimiser(self.parameters(), self.optimiser, fused)
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
        checkpoint["identity"] = identity(self.model, self.tokenizer)
        checkpoint["ended"] = leaves(self._ended) if self._ended else []

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        theirs = {"model.encoder.cell": "mgu", **checkpoint.get("identity", {})}  # once there was no choice
        check_same("the checkpoint", theirs, identity(self.model, self.tokenizer))
        if checkpoint.get("ended"):
            self._ended = with_leaves(self.model.initial_state(1).encoder, checkpoint["ended"])


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
