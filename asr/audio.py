"""Audio in and out: any file that libsndfile reads, any rate and channel count, as mono float32 at one rate.

Files go through soundfile, rates through soxr's stateful stream, so that a file read at once, a file read in
blocks and a live stream resampled a few samples at a time all give the same samples. Anything wrong with a
file becomes one `UserError` that names it. This file knows nothing of features, models or manifests.

Shapes: S samples, C channels.
"""

import io
import os
import re
import stat
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import soundfile
import soxr

from asr.errors import UserError

SAMPLE_RATE = 16000
STDIN = "-"
UNKNOWN_FRAMES = 2**62  # libsndfile says 2**63 - 1 where a header does not say how long the file is
STREAMED_BYTES = 0x7FFF0000  # a program that pipes WAV cannot know its size, and writes the largest one
SUBTYPES = {  # WAV's (format, bits)
    **{(1, 8): "PCM_U8", (1, 16): "PCM_16", (1, 24): "PCM_24", (1, 32): "PCM_32"},
    **{(3, 32): "FLOAT", (3, 64): "DOUBLE", (6, 8): "ALAW", (7, 8): "ULAW"},
}
OTHER_FORMATS = {b"fLaC": "FLAC", b"OggS": "Ogg", b"ID3\x03": "MP3", b"ID3\x04": "MP3", b"FORM": "AIFF"}


class AudioInfo(NamedTuple):
    """What a file holds: rate in Hz, channels, and samples in each channel."""

    rate: int
    channels: int
    samples: int

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.samples / self.rate


class Resampler:
    """Stateful mono resampling of a stream. How the stream is cut into pieces does not change the output.

    After `finish()` n samples at `source_rate` have become round(n * target_rate / source_rate).
    """

    def __init__(self, source_rate: int, target_rate: int = SAMPLE_RATE) -> None:
        self._stream = None
        if source_rate != target_rate:
            self._stream = soxr.ResampleStream(source_rate, target_rate, 1, dtype="float32", quality="HQ")

    def accept(self, samples: np.ndarray) -> np.ndarray:
        """(S,) or (S, C) at the source rate -> (S',) float32, what is ready so far; channels are averaged."""
        mono = _mono(samples)
        return mono if self._stream is None else self._stream.resample_chunk(mono)

    def finish(self) -> np.ndarray:
        """The samples still inside the filter, (S',). Nothing can be accepted afterwards."""
        empty = np.zeros(0, np.float32)
        return empty if self._stream is None else self._stream.resample_chunk(empty, last=True)


def info(path: str | Path) -> AudioInfo:
    """Rate, channels and length of a file. Raises UserError as `read` does, short of decoding the samples."""
    with _open(path) as file:
        frames = file.frames if file.frames < UNKNOWN_FRAMES else sum(map(len, _frames(file, path, 65536)))
        return AudioInfo(file.samplerate, file.channels, frames)


def read(path: str | Path, rate: int = SAMPLE_RATE) -> np.ndarray:
    """The whole file as mono float32 (S,) in [-1, 1] at `rate` Hz; "-" reads standard input.

    Raises UserError, naming the file, if it is missing, a directory, empty, not audio, truncated or damaged,
    or holds NaN or infinity.
    """
    pieces = list(blocks(path, 30.0, rate))
    return np.concatenate(pieces) if pieces else np.zeros(0, np.float32)


def blocks(path: str | Path, seconds: float = 1.0, rate: int = SAMPLE_RATE) -> Iterator[np.ndarray]:
    """The samples of `read`, in pieces of about `seconds`: constant memory, whatever the length.

    `path` "-" (or a named pipe) is read as it arrives: WAV, or without a header raw 16-bit little-endian mono
    at 16 kHz. Raises what `read` raises, at the first piece or, for damage further in, when it gets there.
    """
    if str(path) == STDIN:
        if sys.stdin.isatty():
            raise UserError("standard input is a terminal: pipe WAV or raw 16-bit 16 kHz audio into it")
        yield from _stream_blocks(sys.stdin.buffer, "standard input", seconds, rate)
    elif _is_pipe(path):
        with open(path, "rb") as pipe:
            yield from _stream_blocks(pipe, str(path), seconds, rate)
    else:
        with _open(path) as file:
            pieces = _frames(file, path, max(1, round(seconds * file.samplerate)))
            yield from _resampled(pieces, file.samplerate, rate)


def write(path: str | Path, samples: np.ndarray, rate: int = SAMPLE_RATE) -> None:
    """Write (S,) or (S, C) float samples in [-1, 1], 16 bit; the format follows the suffix (.wav, .flac)."""
    try:
        soundfile.write(path, samples, rate)
    except (soundfile.LibsndfileError, TypeError, ValueError) as error:
        hint = "check folder, suffix and space"
        raise UserError(f"{path}: cannot be written as audio ({error}): {hint}") from error


def remarks(info: AudioInfo) -> list[str]:
    """What a user should know about audio that is accepted all the same, a line each."""
    lines = []
    if info.channels > 2:
        lines.append(
            f"{info.channels} channels were averaged: keep only the channel of the speech if others are noise"
        )
    if info.rate < 8000:
        lines.append(f"{info.rate} Hz holds no speech above {info.rate // 2} Hz: record at 16000 Hz")
    if info.rate > 96000:
        lines.append(f"{info.rate} Hz was reduced to {SAMPLE_RATE} Hz: recording at 16000 Hz is enough")
    return lines


def is_silent(samples: np.ndarray) -> bool:
    """True for digital silence: no sample, or none but zeros."""
    return not np.any(samples)


def _mono(samples: np.ndarray) -> np.ndarray:
    samples = np.asarray(samples, dtype=np.float32)
    if samples.ndim == 1:
        return samples
    return samples[:, 0].copy() if samples.shape[1] == 1 else samples.mean(axis=1, dtype=np.float32)


def _resampled(pieces: Iterator[np.ndarray], source: int, target: int) -> Iterator[np.ndarray]:
    resampler = Resampler(source, target)
    for piece in pieces:
        ready = resampler.accept(piece)
        if len(ready):
            yield ready
    rest = resampler.finish()
    if len(rest):
        yield rest


# Files


def _is_pipe(path: str | Path) -> bool:
    try:
        return stat.S_ISFIFO(os.stat(path).st_mode)
    except OSError:
        return False


def _open(path: str | Path) -> soundfile.SoundFile:
    if str(path) == STDIN:
        raise UserError("standard input cannot be looked at before it is read: give the audio as a file")
    if os.path.isdir(path):
        raise UserError(f"{path}: is a directory: name an audio file in it")
    try:
        with open(path, "rb") as file:
            head = file.read(1)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file: check the path") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be opened ({error.strerror}): check its permissions") from error
    if not head:
        raise UserError(f"{path}: is empty (0 bytes): record or copy it again")
    try:
        file = soundfile.SoundFile(path)
    except soundfile.LibsndfileError as error:
        reason = error.error_string.removeprefix("Error : ").rstrip(".")
        hint = "truncated, damaged or not audio: use WAV, FLAC, Ogg or MP3 (ffmpeg converts most others)"
        raise UserError(f"{path}: cannot be read as audio ({reason}): {hint}") from error
    try:
        _check_header(file, path)
    except UserError:
        file.close()
        raise
    return file


def _check_header(file: soundfile.SoundFile, path: str | Path) -> None:
    # libsndfile clips the length of a truncated WAV to what is there, and tells only its log.
    sizes = re.search(r"^\s*(?:data|SSND)\s*: (\d+) \(should be (\d+)\)", file.extra_info, re.MULTILINE)
    if sizes and int(sizes[2]) < int(sizes[1]) < STREAMED_BYTES:
        raise _truncated(path, f"its header promises {sizes[1]} bytes of samples, {sizes[2]} are there")
    if file.frames == 0:
        raise UserError(f"{path}: holds no samples: record or copy it again")


def _truncated(path: str | Path, reason: str) -> UserError:
    hint = "copy it again, or keep what is left: ffmpeg -i IN OUT.wav"
    return UserError(f"{path}: truncated or damaged: {reason}; {hint}")


def _frames(file: soundfile.SoundFile, path: str | Path, size: int) -> Iterator[np.ndarray]:
    """Pieces (<= size, C) of an open file, checked."""
    seconds = 0.0
    while True:
        try:
            piece = file.read(size, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            reason = error.error_string.removeprefix("Error : ").rstrip(".")
            raise _truncated(path, f"cannot be decoded after {seconds:.2f} s ({reason})") from error
        if not len(piece):
            break
        _check_finite(piece, path, seconds)
        seconds += len(piece) / file.samplerate
        yield piece
    promised = file.frames / file.samplerate
    if seconds < promised - 0.1 and file.frames < UNKNOWN_FRAMES:  # MP3 counts whole frames, up to 0.072 s
        raise _truncated(path, f"its header promises {promised:.2f} s, {seconds:.2f} s are there")


def _check_finite(piece: np.ndarray, name: str | Path, start: float) -> None:
    if not np.isfinite(piece).all():
        raise UserError(f"{name}: NaN or infinite samples after {start:.2f} s: export it again, as 16 bit")


# Streams


def _stream_blocks(file: BinaryIO, name: str, seconds: float, rate: int) -> Iterator[np.ndarray]:
    head = file.read(12)
    if not head:
        raise UserError(f"{name}: is empty (0 bytes): pipe audio into it")
    if head[:4] in OTHER_FORMATS:
        raise UserError(f"{name}: is {OTHER_FORMATS[head[:4]]}: pipe WAV, e.g. from ffmpeg -i IN -f wav -")
    stream = _Samples("PCM_16", 1, SAMPLE_RATE, None)
    if head[:4] == b"RIFF" and head[8:] == b"WAVE":
        stream, head = _wav_header(file, name), b""
    pieces = _stream_frames(file, name, head, stream, max(1, round(seconds * stream.rate)))
    yield from _resampled(pieces, stream.rate, rate)


class _Samples(NamedTuple):
    """How the samples of a stream are written: libsndfile's subtype, and their number of bytes, if known."""

    subtype: str
    channels: int
    rate: int
    size: int | None


def _wav_header(file: BinaryIO, name: str) -> _Samples:
    """Reads up to the first sample."""
    layout = None
    while len(chunk := file.read(8)) == 8:
        kind, size = struct.unpack("<4sI", chunk)
        if kind == b"data" and layout is not None:
            return layout._replace(size=size if 0 < size < STREAMED_BYTES else None)
        body = file.read(size + size % 2)
        if kind == b"fmt " and len(body) >= 16:
            tag, channels, rate, _, _, bits = struct.unpack("<HHIIHH", body[:16])
            if tag == 0xFFFE and len(body) >= 26:  # WAVE_FORMAT_EXTENSIBLE keeps the format further on
                tag = struct.unpack("<H", body[24:26])[0]
            if (tag, bits) not in SUBTYPES or not channels or not rate:
                raise UserError(f"{name}: WAV format {tag} with {bits} bits is not known: pipe 16-bit PCM")
            layout = _Samples(SUBTYPES[tag, bits], channels, rate, None)
    raise UserError(f"{name}: the WAV header ends too early: pipe the file from its first byte")


def _stream_frames(
    file: BinaryIO, name: str, head: bytes, stream: _Samples, frames: int
) -> Iterator[np.ndarray]:
    """Pieces (<= frames, C) of a stream of samples that begins with the bytes `head`."""
    width = (
        stream.channels * next(bits for (_, bits), kind in SUBTYPES.items() if kind == stream.subtype) // 8
    )
    done, size = 0, stream.size
    while size is None or done < size:
        wanted = frames * width if size is None else min(frames * width, size - done)
        data = head[:wanted] + file.read(max(0, wanted - len(head)))
        head = head[wanted:]
        whole = len(data) - len(data) % width
        if whole:
            piece = _decoded(data[:whole], stream)
            _check_finite(piece, name, done / width / stream.rate)
            yield piece
        done += len(data)
        if len(data) < wanted:
            break
    if done < width:
        raise UserError(f"{name}: holds no samples: pipe audio into it")
    if size is not None and done < size:
        raise _truncated(name, f"its header promises {size} bytes of samples, {done} are there")


def _decoded(data: bytes, stream: _Samples) -> np.ndarray:
    raw = {"format": "RAW", "subtype": stream.subtype, "endian": "LITTLE"}
    samples, _ = soundfile.read(
        io.BytesIO(data),
        samplerate=stream.rate,
        channels=stream.channels,
        dtype="float32",
        always_2d=True,
        **raw,
    )
    return samples
