"""Bytes of PCM as they come over a wire, as samples at the model's rate. Knows no protocol.

S samples, C channels.
"""

from __future__ import annotations

from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from asr.audio import Resampler
from asr.serving.refusal import Refusal

Format = Literal["u8", "s16le", "s32le", "f32le", "alaw", "ulaw"]
TYPES: dict[Format, str] = {
    **{"u8": "u1", "s16le": "<i2", "s32le": "<i4"},
    **{"f32le": "<f4", "alaw": "u1", "ulaw": "u1"},
}
LOWEST, HIGHEST = 4000, 192000  # Hz that are taken
MOST = 8  # channels


class Pcm:
    """One stream of PCM; channels are averaged. Pieces may end anywhere, inside a sample too.

    Raises Refusal ("bad_message") for a rate outside of 4-192 kHz, more channels than 8, and for samples that
    are no sound.
    """

    def __init__(self, rate: int, target: int, format: Format = "s16le", channels: int = 1) -> None:
        if not LOWEST <= rate <= HIGHEST:
            raise Refusal("bad_message", f"a rate of {rate} Hz: send {LOWEST} to {HIGHEST} Hz")
        if not 1 <= channels <= MOST:
            raise Refusal("bad_message", f"{channels} channels: send 1 to {MOST}")
        self.format, self.channels = format, channels
        self._type = np.dtype(TYPES[format])
        self._resampler = Resampler(rate, target)
        self._rest = b""  # of a sample that is not whole yet

    def accept(self, data: bytes) -> NDArray[np.float32]:
        """The next bytes -> mono float32 at the target rate, what is ready of it."""
        data = self._rest + data
        whole = len(data) - len(data) % (self._type.itemsize * self.channels)
        self._rest = data[whole:]
        coded = np.frombuffer(data[:whole], self._type).reshape(-1, self.channels)  # (S, C)
        return self._resampler.accept(_decoded(coded, self.format))

    def finish(self) -> NDArray[np.float32]:
        """What the resampler still holds. Nothing can be accepted afterwards."""
        return self._resampler.finish()


def _decoded(coded: NDArray, format: Format) -> NDArray[np.float32]:
    if format == "f32le":
        if not (np.abs(coded) <= 1e4).all():  # NaN is not either
            raise Refusal("bad_message", "samples that are NaN, infinite or far outside of [-1, 1]")
        return coded.astype(np.float32)
    if format in ("alaw", "ulaw"):
        return _companded(format)[coded]
    middle = 128 if format == "u8" else 0
    return (coded.astype(np.float32) - middle) / 2.0 ** (8 * coded.itemsize - 1)


@cache
def _companded(format: Literal["alaw", "ulaw"]) -> NDArray[np.float32]:
    """(256,): what each code of G.711 means (ITU-T G.711, tables 1 and 2)."""
    codes = np.arange(256) ^ (0x55 if format == "alaw" else 0xFF)
    segment, step = codes >> 4 & 7, codes & 15
    if format == "alaw":
        size = np.where(segment > 0, (2 * step + 33 << np.maximum(segment, 1) - 1), 2 * step + 1) << 3
        return (np.where(codes & 0x80, size, -size) / 32768).astype(np.float32)
    size = ((2 * step + 33) << segment + 2) - 132
    return (np.where(codes & 0x80, -size, size) / 32768).astype(np.float32)
