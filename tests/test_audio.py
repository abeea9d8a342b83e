"""asr.audio: the same samples however they arrive, and one clear line for whatever is wrong with a file."""

import io
import os
import resource
import struct
import sys
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from asr import audio
from asr.errors import UserError


def tone(samples: int, rate: int = 16000, channels: int = 1) -> np.ndarray:
    """(S,) or (S, C): a tone with some noise, so that a shift by one sample would show."""
    rng = np.random.default_rng(samples)
    sound = 0.3 * np.sin(2 * np.pi * 440 * np.arange(samples) / rate) + 0.01 * rng.standard_normal(samples)
    return sound.astype(np.float32) if channels == 1 else np.stack([sound] * channels, 1).astype(np.float32)


def pipe_in(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def wav_bytes(sound: np.ndarray, rate: int = 16000, subtype: str = "PCM_16", format: str = "WAV") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, sound, rate, format=format, subtype=subtype)
    return file.getvalue()


# Resampling


@given(
    rate=st.sampled_from([4000, 8000, 11025, 16000, 22050, 44100, 48000, 192000]),
    cuts=st.lists(st.integers(0, 12000), max_size=12),
)
@settings(max_examples=40, deadline=None)
def test_any_chunking_of_the_resampler_gives_the_same_samples(rate: int, cuts: list[int]) -> None:
    sound = tone(12000, rate)
    whole = audio.Resampler(rate)
    expected = np.concatenate([whole.accept(sound), whole.finish()])
    pieces = audio.Resampler(rate)
    bounds = [0, *sorted(cuts), len(sound)]
    found = [pieces.accept(sound[start:end]) for start, end in pairwise(bounds)]
    np.testing.assert_array_equal(np.concatenate([*found, pieces.finish()]), expected)
    assert len(expected) == pytest.approx(len(sound) * 16000 / rate, abs=1)


def test_one_sample_at_a_time_resamples_the_same() -> None:
    sound, whole, pieces = tone(2000, 48000), audio.Resampler(48000), audio.Resampler(48000)
    found = [pieces.accept(sound[n : n + 1]) for n in range(len(sound))]
    np.testing.assert_array_equal(
        np.concatenate([*found, pieces.finish()]), np.concatenate([whole.accept(sound), whole.finish()])
    )


def test_resampling_keeps_the_time_and_the_pitch(tmp_path: Path) -> None:
    audio.write(tmp_path / "a.wav", tone(48000, 48000), 48000)
    found, expected = audio.read(tmp_path / "a.wav"), tone(16000)
    assert np.corrcoef(found[500:-500], expected[500:-500])[0, 1] > 0.99


def test_channels_are_averaged_whatever_the_rate() -> None:
    stereo = np.stack([tone(4800), -tone(4800)], 1)
    for rate in (16000, 48000):
        resampler = audio.Resampler(rate)
        assert audio.is_silent(np.concatenate([resampler.accept(stereo), resampler.finish()]))


# Files


@pytest.mark.parametrize("rate", [4000, 16000, 44100, 192000])
@pytest.mark.parametrize("channels", [1, 2, 8])
def test_blocks_are_the_samples_of_read(tmp_path: Path, rate: int, channels: int) -> None:
    path = tmp_path / "a.flac"
    audio.write(path, tone(int(1.3 * rate), rate, channels), rate)
    whole = audio.read(path)
    assert whole.dtype == np.float32 and len(whole) == pytest.approx(1.3 * 16000, abs=1)
    for seconds in (0.00001, 0.1, 1.0) if rate < 16000 else (0.1, 1.0):
        np.testing.assert_array_equal(np.concatenate(list(audio.blocks(path, seconds))), whole)


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3", ".aiff"])
def test_common_formats_are_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    audio.write(path, tone(16000))
    assert audio.info(path).duration == pytest.approx(1.0, abs=0.1)
    assert np.corrcoef(audio.read(path)[:16000], tone(16000))[0, 1] > 0.98


def test_info_and_write_agree(tmp_path: Path) -> None:
    audio.write(tmp_path / "a.wav", tone(4410, 22050, 2), 22050)
    assert audio.info(tmp_path / "a.wav") == audio.AudioInfo(22050, 2, 4410)
    assert audio.info(tmp_path / "a.wav").duration == pytest.approx(0.2)


def test_blocks_take_constant_memory(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    with soundfile.SoundFile(path, "w", 48000, 2) as file:
        for _ in range(300):  # 300 s: 115 MB as float32
            file.write(tone(48000, 48000, 2))
    assert sum(map(len, audio.blocks(path, 1.0))) == 300 * 16000  # warm up
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert sum(map(len, audio.blocks(path, 1.0))) == 300 * 16000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 10_000  # kilobytes


def test_unusual_audio_is_accepted_with_a_remark() -> None:
    assert len(audio.remarks(audio.AudioInfo(16000, 8, 1))) == 1
    assert len(audio.remarks(audio.AudioInfo(4000, 1, 1))) == 1
    assert len(audio.remarks(audio.AudioInfo(192000, 1, 1))) == 1
    assert len(audio.remarks(audio.AudioInfo(192000, 8, 1))) == 2
    assert audio.remarks(audio.AudioInfo(48000, 2, 1)) == audio.remarks(audio.AudioInfo(8000, 1, 1)) == []


def test_silence_is_seen_and_faint_sound_is_not_silence() -> None:
    assert audio.is_silent(np.zeros(100, np.float32)) and audio.is_silent(np.zeros(0, np.float32))
    assert not audio.is_silent(np.full(100, 1e-5, np.float32))


def missing(path: Path) -> None:
    pass


def empty(path: Path) -> None:
    path.write_bytes(b"")


def no_samples(path: Path) -> None:
    path.write_bytes(wav_bytes(np.zeros(0, np.float32)))


def text(path: Path) -> None:
    path.write_text("this is no audio\n" * 50)


def truncated_wav(path: Path) -> None:
    path.write_bytes(wav_bytes(tone(16000))[:20000])


def header_of_a_wav(path: Path) -> None:
    path.write_bytes(wav_bytes(tone(16000))[:30])


def truncated_flac(path: Path) -> None:
    path.write_bytes(wav_bytes(tone(160000), format="FLAC")[:100000])


def truncated_mp3(path: Path) -> None:
    data = wav_bytes(tone(160000), format="MP3", subtype="MPEG_LAYER_III")
    path.write_bytes(data[: len(data) // 2])


def not_a_number(path: Path) -> None:
    sound = tone(16000)
    sound[12345] = np.nan
    path.write_bytes(wav_bytes(sound, subtype="FLOAT"))


def infinite(path: Path) -> None:
    sound = tone(16000)
    sound[-1] = np.inf
    path.write_bytes(wav_bytes(sound, subtype="FLOAT"))


BAD = [
    (missing, "no such file"),
    (Path.mkdir, "directory"),
    (empty, "empty"),
    (no_samples, "no samples"),
    (text, "not audio"),
    (truncated_wav, "truncated"),
    (header_of_a_wav, "truncated"),
    (truncated_flac, "truncated"),
    (truncated_mp3, "truncated"),
    (not_a_number, "NaN"),
    (infinite, "NaN or infinite"),
]


@pytest.mark.parametrize(("make", "reason"), BAD, ids=lambda value: getattr(value, "__name__", ""))
def test_a_bad_file_is_named_in_one_line(tmp_path: Path, make: Callable[[Path], None], reason: str) -> None:
    path = tmp_path / "bad.wav"
    make(path)
    for attempt in (lambda: audio.read(path), lambda: list(audio.blocks(path, 0.1))):
        with pytest.raises(UserError) as caught:
            attempt()
        assert str(path) in str(caught.value) and reason in str(caught.value)
        assert "\n" not in str(caught.value)


def test_what_precedes_the_damage_is_still_delivered(tmp_path: Path) -> None:
    truncated_flac(tmp_path / "a.flac")
    arrived = []
    with pytest.raises(UserError):
        for piece in audio.blocks(tmp_path / "a.flac", 0.5):
            arrived.append(piece)
    assert sum(map(len, arrived)) > 8000


def test_a_wav_that_a_program_piped_to_disk_is_whole(tmp_path: Path) -> None:
    data = bytearray(wav_bytes(tone(1600)))
    data[4:8] = data[40:44] = b"\xff" * 4  # as ffmpeg writes it: the size was not known
    (tmp_path / "a.wav").write_bytes(data)
    assert len(audio.read(tmp_path / "a.wav")) == 1600


def test_writing_to_no_folder_is_a_clear_error(tmp_path: Path) -> None:
    for name in ("nowhere/a.wav", "a.unknown"):
        with pytest.raises(UserError, match=name):
            audio.write(tmp_path / name, tone(100))


# Standard input


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "ULAW"])
@pytest.mark.parametrize("format", ["WAV", "WAVEX"])
def test_wav_on_stdin_is_the_same_as_from_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, subtype: str, format: str
) -> None:
    data = wav_bytes(tone(24000, 22050, 2), 22050, subtype, format)
    (tmp_path / "a.wav").write_bytes(data)
    pipe_in(monkeypatch, data + b"LIST\x04\0\0\0junk")  # what follows the samples is not sound
    np.testing.assert_array_equal(audio.read("-"), audio.read(tmp_path / "a.wav"))


def test_wav_of_unknown_length_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytearray(wav_bytes(tone(5000)))
    data[40:44] = struct.pack("<I", 0xFFFFFFFF)
    pipe_in(monkeypatch, bytes(data))
    pieces = list(audio.blocks("-", 0.1))
    assert [len(piece) for piece in pieces] == [1600, 1600, 1600, 200]


def test_raw_samples_on_stdin_are_16_bit_at_16_khz(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = (tone(5001) * 32767).astype("<i2")
    for seconds in (0.0001, 0.1, 10.0):
        pipe_in(monkeypatch, samples.tobytes())
        found = np.concatenate(list(audio.blocks("-", seconds)))
        np.testing.assert_array_equal(found, samples.astype(np.float32) / 32768)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (wav_bytes(tone(16000))[:20000], "truncated"),
        (wav_bytes(tone(16000))[:30], "header"),
        (wav_bytes(tone(16000), format="FLAC"), "FLAC"),
        (wav_bytes(np.full(100, np.nan, np.float32), subtype="FLOAT"), "NaN"),
        (wav_bytes(tone(16000), format="WAV", subtype="IMA_ADPCM"), "not known"),
    ],
    ids=["empty", "truncated", "header", "flac", "nan", "adpcm"],
)
def test_bad_stdin_is_a_clear_error(monkeypatch: pytest.MonkeyPatch, data: bytes, reason: str) -> None:
    pipe_in(monkeypatch, data)
    with pytest.raises(UserError, match=f"standard input.*{reason}"):
        audio.read("-")


def test_a_named_pipe_is_read_like_stdin(tmp_path: Path) -> None:
    path, sound = tmp_path / "pipe", tone(5000)
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(wav_bytes(sound),))
    writer.start()
    found = audio.read(path)
    writer.join()
    np.testing.assert_allclose(found, sound, atol=1e-4)
