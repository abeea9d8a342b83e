"""Ideas for the flagship's training, each tried at a twelfth of its size: a table of frame errors.

    python -m recipes.en_small.trials --corpus SPEECH.npz --directory exp/trials [--steps 1500]
        [--only NAME ...] [--teacher BUNDLE --cuts MANIFEST]

The training is the cell study's, whose `recipes.cell_study.corpus` makes the corpus, with Muon: an MGU of
0.6 M parameters learns phones frame by frame. Each trial differs from `as it is` in one thing. What has a
result is skipped. The trial `taught` needs a bundle of phones, and the manifest that the corpus was made of.

B streams, T steps, O outputs a step, P phones with silence.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div

from asr.bundle import load_bundle
from asr.cli import at_least, run
from asr.data.dataset import Utterances
from asr.data.manifest import load_cuts
from asr.data.phones import phone_log_probs
from asr.decoding.config import OF_PHONES
from asr.encoder import EncoderConfig, EncoderState
from asr.errors import UserError
from asr.evaluation.results import write_text
from asr.frontend import LOWEST_HZ, LogMel
from asr.lexicon import Lexicon, PhoneTokenizer
from asr.phones import UNKNOWN
from asr.training.memory import keep_freed_memory
from asr.training.schedule import Optimiser
from benchmarks.common import markdown
from recipes.cell_study.contenders import OUTPUTS, REFERENCE, fit
from recipes.cell_study.corpus import FRONTEND, Corpus, Speech, load
from recipes.cell_study.train import Hearing, Task, frame_loss, judge, train

AS_IT_IS = partial(Hearing, REFERENCE)
Loss = Callable[[Tensor, Tensor], Tensor]  # logits (B, T, O, P), labels (B, T, O) -> nats a frame
EARLY = 0  # the block behind which the intermediate loss listens


class EarlyHearing(Hearing):
    """While training with phones of an early block too, behind those of the last: (B, T, 2 O, P)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        self.early = nn.Linear(config.width, self.phones.out_features)
        self.encoder.blocks[EARLY].register_forward_hook(self._listen)

    def _listen(self, block: nn.Module, given: Any, made: tuple[Tensor, Any]) -> None:
        self.heard = made[0]

    def forward(self, features: Tensor, state: EncoderState) -> tuple[Tensor, EncoderState]:
        logits, state = super().forward(features, state)
        if not self.training:
            return logits, state
        return torch.cat([logits, self.early(self.heard).unflatten(-1, (OUTPUTS, -1))], 2), state


class ManyVoices(Hearing):
    """While training, the frequencies of each stream are multiplied by a factor drawn from 1 - `most` to
    1 + `most`, as by another length of the vocal tract (VTLP, Jaitly and Hinton 2013)."""

    def __init__(self, most: float, config: EncoderConfig) -> None:
        super().__init__(config)
        self.most = most

    def forward(self, features: Tensor, state: EncoderState) -> tuple[Tensor, EncoderState]:
        if self.training:
            factors = 1 + self.most * (2 * torch.rand(features.size(0)) - 1)
            features = scale_frequencies(features, factors)
        return super().forward(features, state)


def scale_frequencies(features: Tensor, factors: Tensor) -> Tensor:
    """Features (B, T, M) of FRONTEND with the frequencies of each row multiplied by its factor (B,): between
    bands linearly, as normalised where they were; the outermost stand for what lies beyond them."""
    last = FRONTEND.mels - 1
    ends = _mel(torch.tensor([LOWEST_HZ, FRONTEND.rate / 2]))
    centres = torch.linspace(ends[0], ends[1], FRONTEND.mels + 2)[1:-1]
    hertz = 700 * (10 ** (centres / 2595) - 1)
    sources = (_mel(hertz / factors.unsqueeze(1)) - ends[0]) / (ends[1] - ends[0]) * (FRONTEND.mels + 1) - 1
    sources = sources.clamp(0, last)  # bands, from the first one's centre, fractional: (B, M)
    lower = sources.floor().clamp(max=last - 1)
    below = lower.long().unsqueeze(1).expand_as(features)
    upwards = (sources - lower).unsqueeze(1)
    return torch.lerp(features.gather(2, below), features.gather(2, below + 1), upwards)


def _mel(hertz: Tensor) -> Tensor:
    """HTK's scale, as the front-end's filters have it."""
    return 2595 * (1 + hertz / 700).log10()


def adapted(frames: int, corpus: Corpus) -> Corpus:
    """Each utterance's features less their running mean, as the front-end's."""
    frontend = LogMel(replace(FRONTEND, mean_frames=frames))
    frontend.set_statistics(torch.from_numpy(corpus.mean), torch.from_numpy(corpus.std))

    def less_mean(speech: Speech) -> Speech:
        utterances = []
        for features in np.split(speech.features, speech.starts[1:-1]):
            normalised = torch.from_numpy(features).float().flatten(0, 1)[None]
            found, _ = frontend.adapt(normalised, frontend.initial_state(1))
            utterances.append(found[0].unflatten(0, features.shape[:2]).half().numpy())
        return speech._replace(features=np.concatenate(utterances))

    return corpus._replace(train=less_mean(corpus.train), dev=less_mean(corpus.dev))


def smoothed(share: float, logits: Tensor, labels: Tensor) -> Tensor:
    return cross_entropy(logits.flatten(0, 2), labels.flatten(), ignore_index=UNKNOWN, label_smoothing=share)


def uncertain(weight: float, logits: Tensor, labels: Tensor) -> Tensor:
    """Less so many times the entropy of the posteriors (arXiv 1701.06548)."""
    logs = logits.log_softmax(-1)[labels != UNKNOWN]
    return frame_loss(logits, labels) + weight * (logs.exp() * logs).sum(-1).mean()


def early(weight: float, logits: Tensor, labels: Tensor) -> Tensor:
    """An early block's phones count too (arXiv 2102.03216), which come as much earlier as it waits less."""
    last, first = logits.chunk(2, 2)
    sooner = sum(REFERENCE.lookahead[EARLY + 1 :])
    known = frame_loss(first[:, : first.size(1) - sooner], labels[:, sooner:])
    return (1 - weight) * frame_loss(last, labels) + weight * known


def consistent(weight: float, logits: Tensor, labels: Tensor) -> Tensor:
    """Two views of a stream are to agree: each is drawn to the other, which stands still (CR-CTC, arXiv
    2410.05101, of frames)."""
    one, other = logits.log_softmax(-1).chunk(2)
    apart = [
        kl_div(a.flatten(0, 2), b.detach().flatten(0, 2), reduction="batchmean", log_target=True)
        for a, b in ((one, other), (other, one))
    ]
    return frame_loss(logits, labels) + weight * (apart[0] + apart[1]) / 2


def taught(weight: float, hard: Tensor, soft: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """labels are rows of hard (N * O,) and of a teacher's logarithms soft (N * O, P), or UNKNOWN."""
    there = labels != UNKNOWN
    said = torch.where(there, hard[labels.clamp(min=0)], UNKNOWN)
    logs = logits.log_softmax(-1)[there]
    apart = kl_div(logs, soft[labels[there]].float(), reduction="batchmean", log_target=True)
    return (1 - weight) * frame_loss(logits, said) + weight * apart


@dataclass(frozen=True)
class Trial:
    """What differs from the training as it is."""

    why: str
    make: Callable[[], Hearing] = AS_IT_IS
    loss: Loss = frame_loss
    views: int = 1
    seed: int = 1
    longer: int = 1  # times the steps
    prepare: Callable[[Corpus], Corpus] = lambda corpus: corpus


def shaped(lookahead: tuple[int, ...]) -> Callable[[], Hearing]:
    """Blocks of these lookaheads, of a size that leaves the parameters about as many as they are."""
    return lambda: Hearing(fit(lambda size: replace(REFERENCE, lookahead=lookahead, hidden=size)))


TRIALS = {
    "as it is": Trial("three blocks, 160 ms of lookahead"),
    "as it is, another seed": Trial("what chance does", seed=2),
    "two blocks": Trial("wide instead of deep", shaped((2, 2))),
    "five blocks": Trial("deep instead of wide", shaped((1, 0, 1, 0, 2))),
    **{
        f"lookahead {40 * sum(each)} ms": Trial("what latency buys", shaped(each))
        for each in ((0, 0, 0), (0, 0, 1), (1, 0, 1), (2, 2, 2), (2, 3, 3))
    },
    "label smoothing 0.1": Trial("labels are off by a frame here and there", loss=partial(smoothed, 0.1)),
    "entropy 0.1": Trial("posteriors less certain than they would be", loss=partial(uncertain, 0.1)),
    "intermediate loss 0.3": Trial(
        "lower blocks learn sooner", partial(EarlyHearing, REFERENCE), partial(early, 0.3)
    ),
    "vocal tracts 0.1": Trial("28 speakers are few", partial(ManyVoices, 0.1, REFERENCE)),
    "running mean": Trial("voices and microphones differ", prepare=partial(adapted, 400)),
    "two views": Trial("what consistency is to be held against", views=2),
    "two views, consistent 0.5": Trial("CR-CTC's idea", loss=partial(consistent, 0.5), views=2),
    "twice as long": Trial("what only takes time", longer=2),
}
TAUGHT = "taught"


@torch.inference_mode()
def posteriors(bundle: Path, manifest: Path, corpus: Corpus) -> Tensor:
    """Of the training speech, by another model: logarithms (N * O, P)."""
    model = load_bundle(bundle).model.eval()
    cuts = {cut.id: cut for cut in load_cuts([manifest])}
    chosen = [cuts[name] for name in corpus.train.ids.tolist()]
    audio = Utterances(chosen, [[]] * len(chosen), model.config.frontend.rate)
    found = []
    for row, steps in enumerate(np.diff(corpus.train.starts) * OUTPUTS):
        samples = torch.from_numpy(audio.audio(row))
        samples = torch.nn.functional.pad(
            samples, (0, model.step_samples * int(steps) // OUTPUTS - len(samples))
        )
        logs, _ = model.offline(samples[None], torch.tensor([len(samples)]))
        found.append(phone_log_probs(logs)[0].half())
    return torch.cat(found)


def with_teacher(corpus: Corpus, soft: Tensor) -> tuple[Corpus, Trial]:
    hard = torch.from_numpy(corpus.train.labels.astype(np.int64)).flatten()
    if len(soft) != len(hard):
        raise UserError(
            f"--teacher: has {len(soft)} frames where the corpus has {len(hard)}; give its manifest"
        )
    rows = np.arange(len(hard)).reshape(corpus.train.labels.shape)
    trial = Trial("a teacher of the flagship's size and lookahead", loss=partial(taught, 0.5, hard, soft))
    return corpus._replace(train=corpus.train._replace(labels=rows)), trial


def attempt(trial: Trial, corpus: Corpus, steps: int) -> dict[str, Any]:
    steps *= trial.longer
    corpus = trial.prepare(corpus)
    optimiser = Optimiser("muon", rate=6e-3, warmup=steps // 20, steps=steps)
    tokenizer = PhoneTokenizer(Lexicon({}))  # words are not asked for
    task = Task(corpus, tokenizer, None, optimiser, steps, OF_PHONES)
    model, curve, seconds = train(trial.make, trial.seed, task, trial.loss, trial.views)
    found = judge(model, corpus.dev)
    return {
        "why": trial.why,
        "steps": steps,
        "frame_error": 100 * sum(found.wrong) / sum(found.known),
        "curve": curve,
        "seconds": seconds,
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="recipes.en_small.trials", description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True, metavar="NPZ")
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--steps", type=at_least(24, int), default=1500)
    parser.add_argument("--only", nargs="+", choices=[*TRIALS, TAUGHT], metavar="NAME")
    parser.add_argument("--teacher", type=Path, metavar="BUNDLE")
    parser.add_argument("--cuts", type=Path, metavar="MANIFEST")
    args = parser.parse_args(argv)
    if (args.teacher is None) != (args.cuts is None):
        raise UserError("--teacher and --cuts: give both or none")
    asked = args.only or [*TRIALS, *([TAUGHT] if args.teacher else [])]
    if TAUGHT in asked and not args.teacher:
        raise UserError(f"--only {TAUGHT}: needs --teacher and --cuts")
    torch.set_num_threads(1)
    keep_freed_memory()
    corpus = load(args.corpus)
    args.directory.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in asked:
        path = args.directory / f"{name.replace(' ', '_')}.json"
        if not path.exists():
            if name == TAUGHT:
                speech, trial = with_teacher(corpus, posteriors(args.teacher, args.cuts, corpus))
            else:
                speech, trial = corpus, TRIALS[name]
            write_text(path, json.dumps(attempt(trial, speech, args.steps)) + "\n")
        result = json.loads(path.read_text(encoding="utf-8"))
        rows.append([name, result["why"], f"{result['frame_error']:.1f} %", f"{result['seconds']:.0f} s"])
        print(" | ".join(rows[-1]), flush=True)
    print(markdown(["what", "why", "frame error", "its steps took"], rows))
    return 0


if __name__ == "__main__":
    run(main)
