from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from lhotse import CutSet

from asr.data.augment import NO_AUGMENTATION, Augmentation
from asr.data.datamodule import AsrData
from asr.data.dataset import Batch, EpochLoader, Utterances, can_align
from asr.data.manifest import load_cuts, write_cuts
from asr.data.phones import PhoneTimes
from asr.errors import UserError
from asr.phones import UNKNOWN
from asr.text import Tokenizer
from tests.training.conftest import RATE, cut_of, tones, write_corpus

DataMaker = Callable[..., AsrData]


@pytest.fixture
def make_data(corpus: Path) -> DataMaker:
    def make(**changes: object) -> AsrData:
        arguments: dict = {
            "train": [corpus / "train.jsonl.gz"],
            "dev": [corpus / "dev.jsonl.gz"],
            "max_duration": 6.0,
            "buckets": 3,
            "workers": 0,
        }
        data = AsrData(**{**arguments, **changes})
        data.connect(Tokenizer.load(corpus / "tokenizer.model"), RATE, 640)
        return data

    return make


def test_each_epoch_has_every_utterance_once_in_batches_of_about_the_duration(make_data: DataMaker) -> None:
    data = make_data()
    data.setup("fit")
    cuts = data._train.cuts
    for epoch in range(3):
        batches = data.batches(epoch)
        assert sorted(row for batch in batches for row in batch) == list(range(len(cuts)))
        # the last utterance of a batch may be the longest
        assert all((len(batch) - 1) * max(cuts[row].duration for row in batch) <= 6.0 for batch in batches)


def test_batches_depend_on_seed_and_epoch_alone(make_data: DataMaker) -> None:
    first, again, other = make_data(seed=1), make_data(seed=1), make_data(seed=2)
    for data in (first, again, other):
        data.setup("fit")
    assert first.batches(1)
    assert first.batches(1) == again.batches(1)
    assert first.batches(1) != first.batches(2)
    assert first.batches(1) != other.batches(1)


def test_utterances_are_batched_with_others_of_like_duration(make_data: DataMaker) -> None:
    def padding(data: AsrData) -> float:
        data.setup("fit")
        durations = [[data._train.cuts[row].duration for row in batch] for batch in data.batches(0)]
        return sum(len(batch) * max(batch) for batch in durations) / sum(map(sum, durations)) - 1

    assert padding(make_data(buckets=5)) < padding(make_data(buckets=2))


def test_a_batch_holds_what_the_files_hold_zero_padded(corpus: Path) -> None:
    tokenizer = Tokenizer.load(corpus / "tokenizer.model")
    cuts = list(load_cuts([corpus / "dev.jsonl.gz"]))
    batch = Utterances(cuts, [tokenizer.encode(cut.supervisions[0].text) for cut in cuts], RATE)[[2, 0]]
    assert batch.ids == ("dev-002", "dev-000")
    for row, cut in enumerate([cuts[2], cuts[0]]):
        samples, _ = soundfile.read(corpus / "wav" / f"{cut.id}.wav", dtype="float32")
        length = int(batch.lengths[row])
        assert np.array_equal(batch.audio[row, :length].numpy(), samples)
        assert not batch.audio[row, length:].any()
        tokens = batch.tokens[row, : batch.token_lengths[row]].tolist()
        assert tokenizer.decode(tokens) == cut.supervisions[0].text


def test_frames_are_labelled_where_phones_are_timed_and_silent_where_nothing_is_said(corpus: Path) -> None:
    cuts = list(load_cuts([corpus / "dev.jsonl.gz"]))[:3]
    cuts[2].supervisions[0].text = ""
    times = {cuts[0].id: PhoneTimes(np.array([0, 7]), np.array([0.0, 0.1]), 0.2)}
    dataset = Utterances(cuts, [[]] * 3, RATE, phones=times, frame_samples=320)
    phones = dataset[[0, 1, 2]].phones
    assert phones is not None
    frames = [-(-len(dataset.audio(row)) // 320) for row in range(3)]
    assert phones[0, : frames[0]].tolist() == [0] * 5 + [7] * 5 + [0] * (frames[0] - 10)
    assert (phones[1] == UNKNOWN).all()
    assert (phones[2, : frames[2]] == 0).all() and (phones[2, frames[2] :] == UNKNOWN).all()


@pytest.mark.parametrize("rate", [8000, 48000])
def test_other_rates_and_channel_counts_arrive_as_mono_at_the_models_rate(tmp_path: Path, rate: int) -> None:
    samples = tones("la mi", np.random.default_rng(0), rate)
    path = tmp_path / "stereo.wav"
    soundfile.write(path, np.stack([samples, np.zeros_like(samples)], 1), rate)
    cut = cut_of(path, "la mi").recording.to_cut()
    cut.supervisions = cut_of(path, "la mi").supervisions
    audio = Utterances([cut], [[]], RATE).audio(0)
    assert len(audio) == pytest.approx(len(samples) * RATE / rate, abs=2)
    assert np.abs(audio).max() == pytest.approx(np.abs(samples).max() / 2, rel=0.1)


def test_augmentation_is_a_function_of_seed_epoch_and_utterance(corpus: Path) -> None:
    cuts = list(load_cuts([corpus / "train.jsonl.gz"]))

    def audio(seed: int, epoch: int, row: int = 3) -> np.ndarray:
        return Utterances(cuts, [[]] * len(cuts), RATE, Augmentation(), seed, epoch).audio(row)

    assert np.array_equal(audio(1, 2), audio(1, 2))
    assert not np.array_equal(audio(1, 2), audio(1, 3))
    assert not np.array_equal(audio(1, 2), audio(2, 2))


def ids(loader: EpochLoader) -> list[tuple[str, ...]]:
    return [batch.ids for batch in loader]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_that_starts_late_gives_the_rest_of_the_epoch(make_data: DataMaker, workers: int) -> None:
    data = make_data(workers=workers)
    data.setup("fit")
    whole = data.train_dataloader()
    data.load_state_dict({"epoch": 0, "batches": 3})
    rest = data.train_dataloader()
    assert len(rest) == len(whole)
    assert ids(rest) == ids(whole)[3:]
    data.load_state_dict({"epoch": 4, "batches": 3})
    assert ids(data.train_dataloader()) == ids(whole)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_goes_while_training_is_named_in_one_line(
    tmp_path: Path, make_data: DataMaker, workers: int
) -> None:
    data = make_data(train=[write_corpus(tmp_path, "going", 4, seed=0)], workers=workers)
    data.setup("fit")
    (tmp_path / "wav" / "going-001.wav").unlink()
    with pytest.raises(UserError) as error:
        list(data.train_dataloader())
    assert "going-001.wav" in str(error.value)
    assert "\n" not in str(error.value)


def test_nan_samples_are_an_error_that_names_the_file(tmp_path: Path) -> None:
    samples = tones("la mi", np.random.default_rng(0))
    samples[100] = np.nan
    soundfile.write(tmp_path / "nan.wav", samples, RATE, subtype="FLOAT")
    with pytest.raises(UserError, match=r"nan\.wav"):
        Utterances([cut_of(tmp_path / "nan.wav", "la mi")], [[]], RATE).audio(0)


def test_utterances_that_cannot_be_aligned_are_named_and_dropped(
    tmp_path: Path, make_data: DataMaker, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = write_corpus(tmp_path, "mixed", 4, seed=0)
    cuts = list(load_cuts([manifest]))
    cuts[2].supervisions[0].text = "la mi so re " * 50
    write_cuts(CutSet.from_cuts(cuts), manifest)
    data = make_data(train=[manifest], dev=[manifest])
    data.setup("fit")
    assert [cut.id for cut in data._train.cuts] == ["mixed-000", "mixed-001", "mixed-003"]
    assert "dropped 1 of 4" in capsys.readouterr().out


def test_a_repeated_token_needs_a_frame_more_and_shorter_speech_has_fewer() -> None:
    distinct = [2, 3] * 25
    assert can_align(distinct, 2.0, 25.0)
    assert not can_align(distinct, 2.0 / 1.1, 25.0)
    assert not can_align([2, 2, *distinct[2:]], 2.0, 25.0)
    assert not can_align([*distinct, 5], 2.0, 25.0)


def test_what_counts_as_alignable_has_a_finite_loss() -> None:
    seconds, frame_rate = 1.97, 25.0
    frames = int(seconds * frame_rate)
    for tokens in ([2, 3] * frames, [2] * frames):
        longest = max(n for n in range(len(tokens)) if can_align(tokens[:n], seconds, frame_rate))
        logits = torch.zeros(frames, 1, 6).log_softmax(-1)
        length = torch.tensor([len(logits)])
        target = torch.tensor([tokens[:longest]])
        loss = torch.nn.functional.ctc_loss(logits, target, length, torch.tensor([longest]), reduction="sum")
        assert torch.isfinite(loss)


def test_the_dev_set_comes_whole_and_unaugmented(make_data: DataMaker, corpus: Path) -> None:
    data = make_data()
    data.setup("fit")
    batches: list[Batch] = list(data.val_dataloader())
    seen = dict(pair for batch in batches for pair in zip(batch.ids, batch.lengths.tolist(), strict=True))
    assert seen == {cut.id: cut.num_samples for cut in load_cuts([corpus / "dev.jsonl.gz"])}
    assert data._dev.augmentation == NO_AUGMENTATION


def test_no_manifest_is_an_error_that_names_the_key(make_data: DataMaker) -> None:
    with pytest.raises(UserError, match=r"data\.train"):
        make_data(train=[]).setup("fit")


def test_words_in_another_order_need_times_of_phones(make_data: DataMaker) -> None:
    data = make_data(augmentation=Augmentation(splice_share=0.5))
    with pytest.raises(UserError, match=r"splice_share .* needs data\.phones, and a lexicon"):
        data.setup("fit")
