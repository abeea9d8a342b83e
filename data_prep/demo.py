"""A corpus for `make demo`, out of nothing: espeak-ng's voices say sentences of a small grammar.

    python -m data_prep.demo --output-dir data/demo

Writes a tree in LibriSpeech's layout, data/demo/LibriSpeech/{train,dev}-clean-demo, then its manifests with
the code that prepares LibriSpeech. The voices of dev, and its sentences, are not in train. The same seed and
espeak-ng give the same samples on any number of cores. Needs the package espeakng-loader, which carries the
library and its voices; nothing is fetched, and no root is needed.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import multiprocessing
import os
import random
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from asr import audio
from asr.cli import run
from asr.errors import UserError
from asr.pronounce import Espeak

DESCRIPTION = "Synthesise the demo corpus with espeak-ng, and write its manifests."
TRAIN, DEV = "train-clean-demo", "dev-clean-demo"
ACCENTS = (
    *("en-us", "en", "en-gb-x-rp", "en-gb-scotland"),
    *("en-029", "en-us-nyc", "en-gb-x-gbclan", "en-gb-x-gbcwmd"),
)
# espeak-ng's voice variants, without the robots, whispers and jokes; and without most of those with `breath`
# (f2, f3, f5, Alicia, sandro, victor), which sound a little different in every process
DEV_WOMEN = ("f4", "Annie", "belinda")
DEV_MEN = ("m5", "m7", "Michael", "Diogo", "Reed")
WOMEN = (
    *("f1", "Andrea", "anika", "aunty", "grandma", "linda"),
    *("steph", "steph2", "steph3"),
)
MEN = (
    *("m1", "m2", "m3", "m4", "m6", "m8", "adam", "Alex", "Andy", "antonio", "benjamin", "boris", "caleb"),
    *("david", "Denis", "ed", "edward", "edward2", "Gene", "Gene2", "grandpa", "gustave", "Henrique", "Hugo"),
    *("ian", "iven3", "iven4", "john", "Lee", "marcelo", "Mario", "max", "michel", "miguel", "Mike", "mike2"),
    *("norbert", "pablo", "paul", "pedro", "quincy", "rob", "robert", "travis", "zac"),
)

GRAMMAR = {
    "sentence": (
        "{polite} turn {switch} the {colour} {device} in the {room}",
        "turn the {device} {switch} in the {room} please",
        "set the {device} in the {room} to {number}",
        "call {name} on {day} at {hour}",
        "dial {digit} {digit} {digit} {digit}",
        "the number is {digit} {digit} {digit}",
        "{polite} open the {colour} {thing} in the {room}",
        "close the {thing} and the {thing}",
        "{polite} bring {name} the {colour} {thing}",
        "the {colour} {animal} is {where} the {colour} {thing}",
        "is the {animal} {where} the {thing} in the {room}",
        "{name} has {number} {colour} {animal}s",
        "play music in the {room} at {hour} on {day}",
        "wake me on {day} at {hour}",
    ),
    "polite": ("please", "now", "can you"),
    "switch": ("on", "off"),
    "colour": ("red", "blue", "green", "yellow", "black", "white", "orange", "silver"),
    "device": ("light", "radio", "heater", "fan", "camera"),
    "room": ("kitchen", "bedroom", "garden", "office", "garage"),
    "thing": ("window", "door", "box", "table", "chair", "bottle"),
    "animal": ("dog", "cat", "bird", "horse", "rabbit"),
    "name": ("anna", "peter", "maria", "oscar", "julia", "david"),
    "where": ("under", "behind", "near"),
    "day": ("monday", "tuesday", "friday", "sunday"),
    "hour": ("{digit}", "ten", "eleven", "twelve", "noon"),
    "digit": ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    "number": ("{tens}", "{tens} {digit}", "{digit} hundred"),
    "tens": ("twenty", "thirty", "fifty", "ninety"),
}
VOCABULARY = sorted(
    {word for rules in GRAMMAR.values() for rule in rules for word in rule.split() if "{" not in word}
    | {f"{animal}s" for animal in GRAMMAR["animal"]}
)


class Speaker(NamedTuple):
    """A voice and what it says. Rate: words a minute; pitch and intonation: espeak's scale of 0 to 100."""

    number: int
    part: str
    voice: str
    sex: str
    rate: int
    pitch: int
    intonation: int
    sentences: tuple[str, ...]


def sentence(rng: random.Random, rule: str = "sentence") -> str:
    """One random sentence of the grammar."""
    pattern = rng.choice(GRAMMAR[rule])
    while "{" in pattern:
        before, _, rest = pattern.partition("{")
        name, _, after = rest.partition("}")
        pattern = before + sentence(rng, name) + after
    return pattern


def scramble(rng: random.Random) -> str:
    """Words of the grammar in no order: what comes next cannot be guessed and has to be heard."""
    return " ".join(rng.choices(VOCABULARY, k=rng.randint(4, 7)))


def plan(seed: int, train_size: int, dev_size: int) -> list[Speaker]:
    """Who says what, with `train_size` or `dev_size` sentences a voice. No sentence comes twice."""
    rng = random.Random(seed)
    said: set[str] = set()
    voices = [(DEV, "F", v) for v in DEV_WOMEN] + [(DEV, "M", v) for v in DEV_MEN]
    women = [(TRAIN, "F", v) for v in WOMEN + WOMEN]  # twice, in two accents: there are fewer of them
    voices += women + [(TRAIN, "M", v) for v in MEN]
    return [
        Speaker(
            number=number,
            part=part,
            voice=f"{ACCENTS[number % len(ACCENTS)]}+{variant}",
            sex=sex,
            rate=rng.randint(145, 190),
            pitch=rng.randint(35, 65),
            intonation=rng.randint(30, 70),
            sentences=_sentences(rng, part, dev_size if part == DEV else train_size, said),
        )
        for number, (part, sex, variant) in enumerate(voices, start=1)
    ]


def _sentences(rng: random.Random, part: str, count: int, said: set[str]) -> tuple[str, ...]:
    """Sentences of the grammar; in train, every other one is scrambled."""
    new: list[str] = []
    while len(new) < count:
        candidate = scramble(rng) if part == TRAIN and len(new) % 2 else sentence(rng)
        if candidate not in said:
            said.add(candidate)
            new.append(candidate)
    return tuple(new)


# Speech


class Voices(Espeak):
    """espeak-ng's voices, one at a time."""

    RATE, VOLUME, PITCH, RANGE = 1, 2, 3, 4  # espeak_PARAMETER in speak_lib.h
    _Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)

    def __init__(self) -> None:
        super().__init__()
        self._pieces: list[np.ndarray] = []
        self._callback = self._Callback(self._collect)  # held here, or it would be freed under espeak's hands
        self._library.espeak_SetSynthCallback(self._callback)

    def _collect(self, samples: ctypes._Pointer[ctypes.c_short], count: int, events: int | None) -> int:
        if samples and count > 0:
            self._pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    def say(self, text: str, voice: str, rate: int, pitch: int, intonation: int) -> np.ndarray:
        """(S,) float32 at `self.rate` Hz."""
        if self._library.espeak_SetVoiceByName(voice.encode()):
            raise UserError(f"espeak-ng has no voice {voice}: install the pinned espeakng-loader")
        for parameter, value in ((self.RATE, rate), (self.PITCH, pitch), (self.RANGE, intonation)):
            self._library.espeak_SetParameter(parameter, value, 0)
        self._pieces.clear()
        data, utf8 = text.encode() + b"\0", 1
        self._library.espeak_Synth(data, len(data), 0, 1, 0, utf8, None, None)
        return np.concatenate(self._pieces).astype(np.float32) / 32768


def synthesise(speakers: list[Speaker], tree: Path, seed: int) -> int:
    """Write all that these speakers say below `tree`, at 16 kHz; returns the number of utterances."""
    espeak = Voices()
    for speaker in speakers:
        rng = random.Random(f"{seed} {speaker.number}")
        noise = np.random.default_rng([seed, speaker.number])
        paths = write_transcript(
            tree / speaker.part, speaker.number, 1000 + speaker.number, speaker.sentences
        )
        for path, text in zip(paths, speaker.sentences, strict=True):
            rate, pitch = speaker.rate + rng.randint(-10, 10), speaker.pitch + rng.randint(-5, 5)
            speech = espeak.say(text, speaker.voice, rate, pitch, speaker.intonation)
            resampler = audio.Resampler(espeak.rate)
            speech = np.concatenate([resampler.accept(speech), resampler.finish()])
            audio.write(path, _as_recorded(speech, rng, noise))
    return sum(len(speaker.sentences) for speaker in speakers)


def write_transcript(part: Path, speaker: int, chapter: int, texts: Sequence[str]) -> list[Path]:
    """Write a chapter's transcript in LibriSpeech's layout; returns where its audio is to go, in order."""
    folder = part / str(speaker) / str(chapter)
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{speaker}-{chapter}-{number:04d}" for number in range(len(texts))]
    lines = [f"{name} {text.upper()}\n" for name, text in zip(names, texts, strict=True)]
    (folder / f"{speaker}-{chapter}.trans.txt").write_text("".join(lines), encoding="utf-8")
    return [folder / f"{name}.flac" for name in names]


def _as_recorded(speech: np.ndarray, rng: random.Random, noise: np.random.Generator) -> np.ndarray:
    """At some level, between two short pauses, in a room that is quiet but not digitally so."""
    pauses = [np.zeros(rng.randint(800, 4800), np.float32) for _ in range(2)]  # 0.05 to 0.3 s
    sound = np.concatenate([pauses[0], speech / max(np.abs(speech).max(), 1e-4), pauses[1]])
    floor = 10 ** rng.uniform(-3.5, -2.5) * noise.standard_normal(len(sound), dtype=np.float32)
    return rng.uniform(0.15, 0.7) * (sound + floor).clip(-1.2, 1.2)


def write_tree(tree: Path, speakers: list[Speaker], seed: int, jobs: int) -> None:
    """Synthesise everything, in `jobs` processes.

    What espeak-ng says depends a little on what it said before, so the work is cut into the same portions,
    each for a fresh process, whatever the number of jobs.
    """
    from data_prep.common import progress  # Lhotse comes with it, which the processes below need not load

    portions = [speakers[start::10] for start in range(min(10, len(speakers)))]
    work: Callable[[list[Speaker]], int] = functools.partial(synthesise, tree=tree, seed=seed)
    context = multiprocessing.get_context("spawn")
    # Ctrl-C is the parent's to handle: it ends them
    pool = context.Pool(jobs, signal.signal, (signal.SIGINT, signal.SIG_IGN), maxtasksperchild=1)
    with pool, progress() as bar:
        task = bar.add_task("speaking", total=sum(len(speaker.sentences) for speaker in speakers))
        for count in pool.imap_unordered(work, portions):
            bar.advance(task, count)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m data_prep.demo", description=DESCRIPTION)
    parser.add_argument("--output-dir", type=Path, required=True, help="for LibriSpeech/ and the manifests")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--train-sentences", type=int, default=23, metavar="N", help="a voice (%(default)s)")
    parser.add_argument("--dev-sentences", type=int, default=18, metavar="N", help="a voice (%(default)s)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes (default: one a core)")
    parser.add_argument("--force", action="store_true", help="make again what is up to date")
    args = parser.parse_args(argv)
    from data_prep.librispeech import prepare_part

    tree = args.output_dir / "LibriSpeech"
    speakers = plan(args.seed, args.train_sentences, args.dev_sentences)
    notes = speaker_table(speakers, args.seed)
    done = tree / "SPEAKERS.TXT"  # written last: without it the tree is not complete
    if args.force or not done.is_file() or done.read_text(encoding="utf-8") != notes:
        done.unlink(missing_ok=True)
        for part in (TRAIN, DEV):
            shutil.rmtree(tree / part, ignore_errors=True)
        write_tree(tree, speakers, args.seed, args.jobs)
        done.write_text(notes, encoding="utf-8")
    for part in (TRAIN, DEV):
        prepare_part(tree / part, args.output_dir / f"{part}.jsonl.gz", args.force)
    return 0


def speaker_table(speakers: list[Speaker], seed: int) -> str:
    """What LibriSpeech's SPEAKERS.TXT would say: ID | SEX | SUBSET | SENTENCES | NAME."""
    lines = [f"; synthesised by data_prep.demo, seed {seed}", "; ID | SEX | SUBSET | SENTENCES | NAME"]
    lines += [f"{s.number} | {s.sex} | {s.part} | {len(s.sentences)} | {s.voice}" for s in speakers]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run(main)
