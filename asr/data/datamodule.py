"""Manifests -> batches for Lightning: checks before training, bucketing, the exact position on resume.

Knows of the model its sampling rate and the samples a frame, for the check that CTC can align each utterance.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from copy import copy
from pathlib import Path
from typing import Any

import torch
from lhotse.cut import Cut
from lhotse.dataset.sampling import DynamicBucketingSampler
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from asr.data.augment import NO_AUGMENTATION, Augmentation
from asr.data.dataset import EpochLoader, Utterances, can_align
from asr.data.manifest import load_cuts
from asr.data.phones import read_phone_times
from asr.errors import UserError
from asr.lexicon import PhoneTokenizer
from asr.text import UNKNOWN, WORD_START, Tokenizer

say = rank_zero_only(print)
NAMED = 5  # utterances named in a message; the rest is counted


class AsrData(LightningDataModule):
    """Training and development data.

    Args:
        train: manifests to train on.
        dev: manifests to validate on.
        max_duration: seconds of audio a batch, about: with padding, before speed perturbation.
        buckets: utterances are batched with others of like duration, in so many classes of it; 20 halve the
            padding of 10.
        workers: processes that load and augment audio; 0 loads in the training process.
        seed: of the order of batches and of the augmentation.
        augmentation: speed, gain, rooms, noise and bandwidth.
        phones: CTM files that say when the phones of the utterances were said, for model.objective.frames
            (data_prep.reference_alignment --phones); utterances without are trained on all the same.
    """

    def __init__(
        self,
        train: list[Path],
        dev: list[Path],
        max_duration: float = 120.0,
        buckets: int = 10,
        workers: int = 1,
        seed: int = 0,
        augmentation: Augmentation = Augmentation(),  # noqa: B008 (frozen)
        phones: list[Path] | None = None,
    ) -> None:
        super().__init__()
        self.phones = phones or []
        self.train, self.dev = train, dev
        self.max_duration, self.buckets, self.workers, self.seed = max_duration, buckets, workers, seed
        self.augmentation = augmentation
        self._position = (0, 0)  # epoch, and batches of it already trained on

    def connect(self, tokenizer: Tokenizer | PhoneTokenizer, rate: int, frame_samples: int) -> None:
        """What the model is: its tokens, its input's rate in Hz, and how many samples a frame of it has."""
        self.tokenizer, self.rate, self.frame_samples = tokenizer, rate, frame_samples

    def setup(self, stage: str) -> None:
        if hasattr(self, "_dev"):
            return
        self._times = read_phone_times(self.phones) if self.phones else None
        self._dev = self._utterances(self.dev, "dev", NO_AUGMENTATION)
        self._train = self._utterances(self.train, "train", self.augmentation)

    def _utterances(self, manifests: Sequence[Path], name: str, augmentation: Augmentation) -> Utterances:
        if not manifests:
            raise UserError(f"data.{name}: no manifest is given; name at least one")
        if augmentation.splice_share and not (self.phones and isinstance(self.tokenizer, PhoneTokenizer)):
            raise UserError(
                "data.augmentation.splice_share cuts between words: it needs data.phones, and a lexicon as"
                " model.tokenizer"
            )
        cuts = list(load_cuts(manifests, check_audio=True))
        tokens = [self._tokens(cut) for cut in cuts]
        fastest = max(augmentation.speeds)
        if self.tokenizer.lexicon is not None:
            known = [UNKNOWN not in ids for ids in tokens]
            cuts, tokens = _keep(known, cuts, tokens, name, "with words that the lexicon lacks")
        frame_rate = self.rate / self.frame_samples
        fits = [
            can_align(ids, cut.duration / fastest, frame_rate) for cut, ids in zip(cuts, tokens, strict=True)
        ]
        cuts, tokens = _keep(
            fits, cuts, tokens, name, "that cannot be aligned, having more tokens than frames"
        )
        hours = sum(cut.duration for cut in cuts) / 3600
        say(f"{name}: {len(cuts)} utterances, {hours:.2f} h")
        starts = frozenset(
            token for token, piece in enumerate(self.tokenizer.pieces) if piece.startswith(WORD_START)
        )
        return Utterances(
            cuts, tokens, self.rate, augmentation, self.seed, 0, self._times, self.frame_samples, starts
        )

    def _tokens(self, cut: Cut) -> list[int]:
        text = cut.supervisions[0].text or ""
        if not isinstance(self.tokenizer, PhoneTokenizer):
            return self.tokenizer.encode(text)
        times = (self._times or {}).get(cut.id)
        return self.tokenizer.encode(text, times.said if times else None)

    def batches(self, epoch: int) -> list[list[int]]:
        """The rows of each training batch of an epoch: a function of the seed and the epoch alone."""
        rows = {cut.id: row for row, cut in enumerate(self._train.cuts)}
        rng = random.Random(f"{self.seed} {epoch}")
        cuts = rng.sample(self._train.cuts, len(rows))
        sampler = DynamicBucketingSampler(
            cuts,
            max_duration=self.max_duration,
            num_buckets=max(2, min(self.buckets, len(cuts))),
            shuffle=False,  # it was done above, and the sampler's own is quadratic in the size of its buckets
            sync_buckets=True,  # without, lhotse 1.33 ends the epoch at the first bucket that has run empty
            world_size=1,
            rank=0,
        )
        batches = [[rows[cut.id] for cut in batch] for batch in sampler]
        return rng.sample(batches, len(batches))  # the sampler takes its buckets in the same order every time

    def steps_an_epoch(self) -> int:
        """Batches of epoch 0 for one process; those of other epochs differ by a few."""
        return len(self.batches(0)) // self._world()[1]

    def _world(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def train_dataloader(self) -> EpochLoader:
        """The loader of the trainer's current epoch; the command has Lightning ask for one each epoch."""
        epoch = self.trainer.current_epoch if self.trainer else 0
        rank, world = self._world()
        batches = self.batches(epoch)
        batches = batches[rank : len(batches) - len(batches) % world : world]
        start = self._position[1] if self._position[0] == epoch else 0
        source = self._train
        dataset = copy(source)
        dataset.epoch = epoch
        return EpochLoader(dataset, batches, self.workers, start)

    def val_dataloader(self) -> EpochLoader:
        rank, world = self._world()
        return EpochLoader(self._dev, _pack(self._dev.cuts, self.max_duration)[rank::world], self.workers)

    def training_tokens(self) -> Sequence[Sequence[int]]:
        """Of each training utterance."""
        return self._train.tokens

    def sample_audio(self, count: int) -> Iterator[torch.Tensor]:
        """Audio (S,) of up to `count` training utterances, evenly spread over the manifests, as recorded."""
        plain = Utterances(self._train.cuts, self._train.tokens, self.rate)
        step = max(1, len(plain) // count)
        return (torch.from_numpy(plain.audio(row)) for row in range(0, len(plain), step)[:count])

    def state_dict(self) -> dict[str, Any]:
        """The position in the data. Of the trainer's counters, `processed` is `trained on` at every hook."""
        assert self.trainer is not None
        progress: Any = self.trainer.fit_loop.epoch_loop.batch_progress.current
        return {"epoch": self.trainer.current_epoch, "batches": progress.processed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._position = (state_dict["epoch"], state_dict["batches"])


def _keep(
    right: Sequence[bool], cuts: Sequence[Cut], tokens: Sequence[list[int]], name: str, reason: str
) -> tuple[list[Cut], list[list[int]]]:
    """Cuts and tokens of those utterances that are right; what is left out is named."""
    dropped = [cut.id for cut, fit in zip(cuts, right, strict=True) if not fit]
    if len(dropped) == len(cuts):
        raise UserError(
            f"data.{name}: there are only utterances {reason}; do audio, text and tokenizer belong together?"
        )
    if dropped:
        rest = "" if len(dropped) <= NAMED else f" and {len(dropped) - NAMED} more"
        say(
            f"{name}: dropped {len(dropped)} of {len(cuts)} utterances {reason}:"
            f" {', '.join(dropped[:NAMED])}{rest}"
        )
    return list(itertools.compress(cuts, right)), list(itertools.compress(tokens, right))


def _pack(cuts: Sequence[Cut], max_duration: float) -> list[list[int]]:
    """Rows in order of duration, longest first, cut into batches that fill at most `max_duration` seconds."""
    batches: list[list[int]] = []
    longest = 0.0
    for row in sorted(range(len(cuts)), key=lambda row: -cuts[row].duration):
        if not batches or longest * (len(batches[-1]) + 1) > max_duration:
            batches.append([])
            longest = cuts[row].duration
        batches[-1].append(row)
    return batches
