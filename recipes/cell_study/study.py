"""All trainings of the study: contenders and seeds, on speech and on digits, several beside each other.

    python -m recipes.cell_study.study --directory exp/cell-study [--jobs 2] [--steps 1500] [--only gru lstm]

Each contender first tries every one of RATES for a few steps on speech; all train with what is best in the
mean. (So short a trial does not tell which is best for one of them: differences are as large as chance makes
them, and its errors cost points in the end.) What has a result is skipped, so that a study can be stopped and
gone on with; of each task, the first seed of all comes first. DIRECTORY holds what recipes/cell_study/run.sh
has made, and takes rates/CONTENDER.json and TASK/CONTENDER/SEED/result.json.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import torch

from asr.cli import at_least
from asr.cli import run as run_command
from asr.decoding.config import OF_PHONES
from asr.decoding.language_model import LanguageModel
from asr.evaluation.results import write_text
from asr.lexicon import Lexicon, PhoneTokenizer
from asr.training.memory import keep_freed_memory
from asr.training.schedule import Optimiser
from recipes.cell_study.contenders import NAMES, encoder
from recipes.cell_study.corpus import load
from recipes.cell_study.train import Hearing, Task, run, train

SEEDS = (1, 2, 3)
TASKS = {"speech": 1.0, "digits": 1 / 10}  # and their share of the steps
RATES = (3e-3, 6e-3, 12e-3)
TRIAL = 1 / 8  # share of the steps in which a rate is tried ...
TRIAL_SEED = 0  # ... by a training that is none of those compared
DECODING = replace(OF_PHONES, beam=64, lm_weight=1.5)


class Job(NamedTuple):
    task: str
    name: str
    seed: int


@cache
def task_of(name: str, directory: Path, steps: int) -> Task:
    """One for all jobs of a process; each sets its rate."""
    return Task(
        load(directory / f"{name}.npz"),
        PhoneTokenizer(Lexicon.load(directory / f"{name}.lexicon.txt")),
        LanguageModel.open(directory / f"{name}.lm.bin"),
        Optimiser(rate=RATES[0], warmup=steps // 20, steps=steps),
        steps,
        DECODING,
    )


def with_rate(task: Task, rate: float) -> Task:
    return replace(task, optimiser=replace(task.optimiser, rate=rate))


def try_rates(name: str, directory: Path, steps: int) -> None:
    """rates/NAME.json: the dev frame error of each rate, in percent. Where it is, nothing."""
    path = directory / "rates" / f"{name}.json"
    if path.exists():
        return
    task = task_of("speech", directory, steps)
    make = partial(Hearing, encoder(name))
    ends = [train(make, TRIAL_SEED, with_rate(task, rate))[1][-1] for rate in RATES]
    path.parent.mkdir(exist_ok=True)
    found = {str(rate): error for rate, (_, error) in zip(RATES, ends, strict=True)}
    write_text(path, json.dumps(found) + "\n")


def best_rate(directory: Path) -> float:
    tried = [json.loads(path.read_text(encoding="utf-8")) for path in (directory / "rates").iterdir()]
    return min(RATES, key=lambda rate: sum(errors[str(rate)] for errors in tried))


def work(job: Job, directory: Path, steps: int) -> None:
    results = directory / job.task / job.name / str(job.seed)
    task = with_rate(task_of(job.task, directory, steps), best_rate(directory))
    run(job.name, job.seed, task, results)


def all_of(pool: ProcessPoolExecutor, jobs: Sequence[tuple[str, Callable[[], None]]]) -> int:
    """Run them, say how each ended, and give the number of those that failed."""
    pending = {pool.submit(call): name for name, call in jobs}
    failed = 0
    for number, done in enumerate(as_completed(pending), 1):
        error = done.exception()
        failed += bool(error)
        outcome = f"failed: {error}" if error else "done"
        print(f"{number} of {len(jobs)}: {pending[done]}: {outcome}", flush=True)
    return failed


def prepare() -> None:
    torch.set_num_threads(1)
    keep_freed_memory()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="recipes.cell_study.study", description=__doc__)
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument(
        "--jobs", type=at_least(1, int), default=os.cpu_count(), help="trainings at a time, a thread each"
    )
    parser.add_argument(
        "--steps", type=at_least(240, int), default=1500, help="of a training on speech; on digits a tenth"
    )
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), metavar="TASK")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=list(NAMES), metavar="CONTENDER")
    args = parser.parse_args(argv)
    steps = {task: int(args.steps * TASKS[task]) for task in args.tasks}
    jobs = [Job(task, name, seed) for task in steps for seed in SEEDS for name in args.only]
    context = multiprocessing.get_context("spawn")  # a forked torch may hang on the locks of its threads
    with ProcessPoolExecutor(args.jobs, context, initializer=prepare) as pool:
        shortly = int(args.steps * TRIAL)
        tried = [
            (f"rates of {name}", partial(try_rates, name, args.directory, shortly)) for name in args.only
        ]
        named = [
            (" ".join(map(str, job)), partial(work, job, args.directory, steps[job.task])) for job in jobs
        ]
        failed = all_of(pool, tried) or all_of(pool, named)
    return 1 if failed else 0


if __name__ == "__main__":
    run_command(main)
