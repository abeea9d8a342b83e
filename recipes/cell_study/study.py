"""All trainings of the study: contenders and seeds, on speech and on digits, several beside each other.

    python -m recipes.cell_study.study --directory exp/cell-study [--jobs 2] [--steps 1000] [--only gru lstm]

What has a result is skipped, so that a study can be stopped and gone on with; of each task, the first seed of
all comes first. DIRECTORY holds what recipes/cell_study/run.sh has made, and takes
TASK/CONTENDER/SEED/result.json.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch

from asr.cli import at_least
from asr.cli import run as run_command
from asr.decoding.config import OF_PHONES
from asr.decoding.language_model import LanguageModel
from asr.lexicon import Lexicon, PhoneTokenizer
from asr.training.memory import keep_freed_memory
from asr.training.schedule import Optimiser
from recipes.cell_study.contenders import NAMES
from recipes.cell_study.corpus import load
from recipes.cell_study.train import Task, run

SEEDS = (1, 2, 3)
TASKS = {"speech": 1.0, "digits": 1 / 3}  # and their share of the steps
DECODING = replace(OF_PHONES, beam=64, lm_weight=1.5)


class Job(NamedTuple):
    task: str
    name: str
    seed: int


@cache
def task_of(name: str, directory: Path, steps: int) -> Task:
    """One for all jobs of a process."""
    return Task(
        load(directory / f"{name}.npz"),
        PhoneTokenizer(Lexicon.load(directory / f"{name}.lexicon.txt")),
        LanguageModel.open(directory / f"{name}.lm.bin"),
        Optimiser(rate=6e-3, warmup=steps // 20, steps=steps),
        steps,
        DECODING,
    )


def work(job: Job, directory: Path, steps: int) -> None:
    results = directory / job.task / job.name / str(job.seed)
    run(job.name, job.seed, task_of(job.task, directory, steps), results)


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
        "--steps", type=at_least(24, int), default=1000, help="of a training on speech; on digits a third"
    )
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), metavar="TASK")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=list(NAMES), metavar="CONTENDER")
    args = parser.parse_args(argv)
    steps = {task: int(args.steps * TASKS[task]) for task in args.tasks}
    jobs = [Job(task, name, seed) for task in steps for seed in SEEDS for name in args.only]
    context = multiprocessing.get_context("spawn")  # a forked torch may hang on the locks of its threads
    failed = 0
    with ProcessPoolExecutor(args.jobs, context, initializer=prepare) as pool:
        pending = {pool.submit(work, job, args.directory, steps[job.task]): job for job in jobs}
        for number, done in enumerate(as_completed(pending), 1):
            error = done.exception()
            outcome = f"failed: {error}" if error else "done"
            failed += bool(error)
            print(f"{number} of {len(jobs)}: {' '.join(map(str, pending[done]))}: {outcome}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    run_command(main)
