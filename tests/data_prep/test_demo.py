"""data_prep.demo: a corpus out of nothing, the same every time, with voices and sentences kept apart."""

import hashlib
import random
from pathlib import Path

import pytest

from asr import audio
from asr.data.manifest import load_cuts
from data_prep import demo

pytest.importorskip("espeakng_loader")


def checksums(tree: Path) -> dict[str, str]:
    return {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in tree.rglob("*.flac")}


def few(speakers: int = 3) -> list[demo.Speaker]:
    return demo.plan(1, train_size=2, dev_size=2)[6 : 6 + speakers]  # the last two of dev, the first of train


def test_voices_and_sentences_of_dev_are_not_in_train() -> None:
    speakers = demo.plan(1, 23, 18)
    parts = {part: [s for s in speakers if s.part == part] for part in (demo.TRAIN, demo.DEV)}
    variants = {part: {s.voice.split("+")[1] for s in some} for part, some in parts.items()}
    sentences = {part: {text for s in some for text in s.sentences} for part, some in parts.items()}
    assert not variants[demo.TRAIN] & variants[demo.DEV]
    assert not sentences[demo.TRAIN] & sentences[demo.DEV]
    assert sum(len(s.sentences) for s in speakers) == len(sentences[demo.TRAIN] | sentences[demo.DEV])
    assert len({s.number for s in speakers}) == len({s.voice for s in speakers}) == len(speakers)


def test_every_word_is_said_often_in_training() -> None:
    words = [
        w for s in demo.plan(1, 23, 18) if s.part == demo.TRAIN for text in s.sentences for w in text.split()
    ]
    counts = {word: words.count(word) for word in words}
    heldout = {w for s in demo.plan(1, 23, 18) if s.part == demo.DEV for t in s.sentences for w in t.split()}
    assert min(counts.values()) >= 10 and heldout <= set(counts) and len(counts) < 100


def test_sentences_are_plain_lower_case_words() -> None:
    rng = random.Random(0)
    for _ in range(200):
        words = demo.sentence(rng).split(" ")
        assert all(word.isalpha() and word.islower() for word in words) and 4 <= len(words) <= 11


def test_the_number_of_processes_changes_no_sample(tmp_path: Path) -> None:
    speakers = demo.plan(1, train_size=1, dev_size=1)  # all voices: some of espeak-ng's are never the same
    demo.write_tree(tmp_path / "one", speakers, seed=1, jobs=1)
    demo.write_tree(tmp_path / "two", speakers, seed=1, jobs=2)
    found = checksums(tmp_path / "one")
    assert len(found) == len(speakers) and found == checksums(tmp_path / "two")


def test_speech_is_16_khz_flac_of_a_sensible_length_and_level(tmp_path: Path) -> None:
    demo.synthesise(few(1), tmp_path, seed=1)
    for path in tmp_path.rglob("*.flac"):
        samples = audio.read(path)
        assert audio.info(path).rate == 16000 and audio.info(path).channels == 1
        assert 1.0 < len(samples) / 16000 < 6.0 and 0.1 < abs(samples).max() < 0.9


def test_the_command_prepares_manifests_and_keeps_what_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    speakers = few()
    monkeypatch.setattr(demo, "plan", lambda *_, **__: speakers)
    assert demo.main(["--output-dir", str(tmp_path), "--jobs", "1"]) == 0
    cuts = load_cuts([tmp_path / f"{part}.jsonl.gz" for part in (demo.TRAIN, demo.DEV)])
    assert [cut.supervisions[0].speaker for cut in cuts] == ["9", "9", "7", "7", "8", "8"]
    assert cuts[0].supervisions[0].text == speakers[2].sentences[0]
    before = checksums(tmp_path)
    monkeypatch.setattr(demo, "write_tree", None)  # it would fail if it was called
    capsys.readouterr()
    assert demo.main(["--output-dir", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("up to date") == 2 and checksums(tmp_path) == before
