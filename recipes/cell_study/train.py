"""One training: an encoder learns the phone of each frame, and is judged by frames and by words.

How it learns is of the study alone, since a hundred trainings have to fit into an hour or two: features are
made before, and long streams take the place of batches of utterances. Optimiser, schedule and masks are those
of `asr train`; what comes out is a bundle.

B streams, T steps, P phones with silence, V tokens.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from asr.bundle import Bundle, save_bundle
from asr.calibrate.development import Example, decode
from asr.data.augment import SpecAugment, spec_augment
from asr.decoding.config import DecodingConfig
from asr.decoding.language_model import LanguageModel
from asr.encoder import Encoder, EncoderConfig, EncoderState
from asr.evaluation.results import write_text
from asr.lexicon import PhoneTokenizer
from asr.model import CtcModel, ModelConfig
from asr.phones import PHONES, SILENCE, UNKNOWN
from asr.state import map_state
from asr.training.penalty import penalties
from asr.training.schedule import Optimiser, make_optimiser, schedule
from recipes.cell_study.contenders import OUTPUTS, SUBSAMPLING, encoder
from recipes.cell_study.corpus import FRONTEND, STEP, Corpus, Speech, streams

STREAMS, STEPS = 16, 50  # of a batch: 16 times 2 s
AFRESH = 0.2  # share of rows that begin in the zero state, as an utterance does
MASKS = SpecAugment(time_masks=2, time_ratio=0.02, frequency_masks=2, frequency_width=10)
CURVE = 12  # points of a learning curve ...
CURVE_UTTERANCES = 60  # ... each on so many
RESULT = "result.json"
PRIOR = 0.6  # of a frame's posterior, what makes it a likelihood; hybrid systems take 1
_OTHERS = torch.arange(1, len(PHONES))
PHONE_OF_TOKEN = torch.cat([torch.tensor([SILENCE, SILENCE]), _OTHERS, _OTHERS])
UNKNOWN_TOKEN, NEVER = 1, -30.0


@dataclass(frozen=True)
class Task:
    """What is trained on, for how long, and what words are made with."""

    corpus: Corpus
    tokenizer: PhoneTokenizer
    language_model: LanguageModel | None
    optimiser: Optimiser
    steps: int
    decoding: DecodingConfig


class Judgement(NamedTuple):
    """Of utterances, in the order of the set."""

    wrong: list[int]  # frames whose likeliest phone is another one, of ...
    known: list[int]  # ... those whose phone is known
    log_probs: list[Tensor]  # (T * OUTPUTS, P)


class Hearing(nn.Module):
    """An encoder, and phones of each of its steps."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.encoder = Encoder(config, FRONTEND.mels)
        self.lookahead = sum(config.lookahead)
        self.phones = nn.Linear(config.width, OUTPUTS * len(PHONES))

    def forward(self, features: Tensor, state: EncoderState) -> tuple[Tensor, EncoderState]:
        """features (B, T * SUBSAMPLING, M) -> logits (B, T, OUTPUTS, P), delayed by the lookahead."""
        encoded, state = self.encoder(features, state)
        return self.phones(encoded).unflatten(-1, (OUTPUTS, -1)), state


def frame_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of logits (B, T, OUTPUTS, P) with labels (B, T, OUTPUTS), in nats a frame."""
    return cross_entropy(logits.flatten(0, 2), labels.flatten(), ignore_index=UNKNOWN)


def train(
    make: Callable[[], Hearing],
    seed: int,
    task: Task,
    loss_of: Callable[[Tensor, Tensor], Tensor] = frame_loss,
    views: int = 1,
) -> tuple[Hearing, list[tuple[int, float]], float]:
    """The trained model, the dev frame error in percent after steps, and seconds of the steps alone.

    loss_of: logits (B, T, OUTPUTS, P), labels (B, T, OUTPUTS) -> what is minimised. views: how often each
    stream is in a batch, with other masks each time; the rows of a view come one after the other.
    """
    torch.manual_seed(seed)
    masks = torch.Generator().manual_seed(seed)
    model = make()
    optimiser = make_optimiser(model.parameters(), task.optimiser)
    rate = torch.optim.lr_scheduler.LambdaLR(optimiser, schedule(task.optimiser, task.steps))
    batches = streams(task.corpus.train, STREAMS // views, STEPS, np.random.default_rng(seed))
    zeros = state = model.encoder.initial_state(STREAMS)
    late = torch.full((STREAMS, model.lookahead, OUTPUTS), UNKNOWN)  # of what is heard, and not yet put out
    extent = torch.full((STREAMS,), STEPS * SUBSAMPLING)
    curve, seconds = [], 0.0
    for step in range(1, task.steps + 1):
        start = time.perf_counter()
        features, labels = (each.repeat(views, 1, 1) for each in next(batches))
        afresh = torch.rand(STREAMS, generator=masks) < AFRESH
        state = map_state(partial(_begin, afresh), state, zeros)
        late[afresh] = UNKNOWN
        labels = torch.cat([late, labels], 1)
        with penalties(model) as asked:
            logits, state = model(spec_augment(features, extent, MASKS, masks), state)
        said, late = labels.split([STEPS, model.lookahead], 1)
        loss = loss_of(logits, said) + sum(each.mean() for each in asked)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        rate.step()
        seconds += time.perf_counter() - start
        if step * CURVE // task.steps != (step - 1) * CURVE // task.steps:
            found = judge(model, task.corpus.dev, CURVE_UTTERANCES)
            curve.append((step, 100 * sum(found.wrong) / sum(found.known)))
    return model.eval(), curve, seconds


def _begin(afresh: Tensor, old: Tensor, zero: Tensor) -> Tensor:
    return torch.where(afresh.view(-1, *[1] * (old.dim() - 1)), zero, old.detach())


@torch.inference_mode()
def judge(model: Hearing, speech: Speech, count: int | None = None, batch: int = 32) -> Judgement:
    """Of all utterances, or of so many of those whose phones are known, spread over the set."""
    lengths = np.diff(speech.starts)
    chosen = np.arange(len(lengths))
    if count is not None:
        chosen = chosen[[speech.labels[start, 0] != UNKNOWN for start in speech.starts[:-1]]]
        chosen = chosen[:: max(1, len(chosen) // count)]
    training = model.training
    found: dict[int, tuple[int, int, Tensor]] = {}
    model.eval()
    for rows in np.array_split(sorted(chosen, key=lengths.__getitem__), -(-len(chosen) // batch)):
        spans = [slice(speech.starts[row], speech.starts[row + 1]) for row in rows]
        features = [torch.from_numpy(speech.features[span]).float().flatten(0, 1) for span in spans]
        padded = nn.utils.rnn.pad_sequence(features, batch_first=True)
        logits, _ = model(padded, model.encoder.initial_state(len(rows)))
        for row, span, own in zip(rows, spans, logits, strict=True):
            made = own[model.lookahead : lengths[row]].flatten(0, 1).log_softmax(-1)
            labels = torch.from_numpy(speech.labels[span][: len(made) // OUTPUTS]).long().flatten()
            wrong = (made.argmax(-1) != labels) & (labels != UNKNOWN)
            found[row] = int(wrong.sum()), int((labels != UNKNOWN).sum()), made
    model.train(training)
    return Judgement(*(list(each) for each in zip(*(found[row] for row in sorted(found)), strict=True)))


def shares(speech: Speech) -> Tensor:
    """Of each phone among the frames, (P,)."""
    counts = torch.from_numpy(speech.labels[speech.labels != UNKNOWN]).bincount(minlength=len(PHONES))
    return (counts + 1) / (counts + 1).sum()


def spell(phones: Tensor, share: Tensor) -> Tensor:
    """Scores of phones (..., P), their shares in the training speech (P,) -> scores of tokens (..., V): both
    tokens of a phone have its score, less PRIOR times the logarithm of its share."""
    tokens = (phones - PRIOR * share.log())[..., PHONE_OF_TOKEN]
    tokens[..., UNKNOWN_TOKEN] = NEVER
    return tokens


def as_bundle(model: Hearing, task: Task) -> Bundle:
    """The same as a `CtcModel` of tokens, for all that recognises."""
    sizes = ModelConfig(task.tokenizer.vocabulary, FRONTEND, model.encoder.config, OUTPUTS)
    ctc = CtcModel(sizes).eval()
    ctc.frontend.set_statistics(torch.from_numpy(task.corpus.mean), torch.from_numpy(task.corpus.std))
    ctc.encoder.load_state_dict(model.encoder.state_dict())
    weight, bias = (each.detach().unflatten(0, (OUTPUTS, -1)) for each in model.phones.parameters())
    with torch.no_grad():
        ctc.head.weight.copy_(weight[:, PHONE_OF_TOKEN].flatten(0, 1))
        ctc.head.bias.copy_(spell(bias, shares(task.corpus.train)).flatten())
    return Bundle(ctc, task.tokenizer, task.decoding, task.language_model)


def examples(found: Judgement, task: Task) -> list[Example]:
    """The dev set as what the bundle's model puts out."""
    dev, share = task.corpus.dev, shares(task.corpus.train)
    outputs = [spell(own, share).log_softmax(-1).numpy() for own in found.log_probs]
    seconds = [len(own) * STEP / OUTPUTS / FRONTEND.rate for own in outputs]
    known = zip(dev.ids.tolist(), dev.speakers.tolist(), dev.texts.tolist(), outputs, seconds, strict=True)
    return [Example(*each, forced=None) for each in known]


def run(name: str, seed: int, task: Task, directory: Path) -> None:
    """Train and judge: result.json, and the bundle without its language model. Where they are, nothing."""
    if (directory / RESULT).exists():
        return
    model, curve, seconds = train(partial(Hearing, encoder(name)), seed, task)
    found = judge(model, task.corpus.dev)
    bundle = as_bundle(model, task)
    decoded = decode(examples(found, task), bundle, task.decoding)
    result = {
        "name": name,
        "seed": seed,
        "steps": task.steps,
        "rate": task.optimiser.rate,
        "parameters": sum(each.numel() for each in model.parameters()),
        "hidden": model.encoder.config.hidden,
        "seconds": seconds,
        "curve": curve,
        "frame_error": 100 * sum(found.wrong) / sum(found.known),
        "word_error": 100 * decoded.rate,
        "wrong": found.wrong,
        "known": found.known,
        "errors": decoded.errors,
        "words": [own.words.length for own in decoded.scores],
        "speakers": [each.speaker for each in decoded.examples],
    }
    save_bundle(directory, replace(bundle, language_model=None))
    write_text(directory / RESULT, json.dumps(result) + "\n")
