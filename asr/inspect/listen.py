"""A part of a recording through a model, and what the model computes on the way, placed in time.

The model hears the recording from its beginning, chunk by chunk, as `asr transcribe` does. What lookahead
delays is moved back, so that what belongs to one stretch of audio stands at one time.

T frames, M mel bands, H hidden units, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from asr import audio
from asr.bundle import Bundle
from asr.errors import UserError
from asr.inspect.gates import Call, gates, recorded
from asr.streaming import StreamingRecognizer
from asr.transcript import Word

Array = NDArray[np.float32]
AFTER = 5.0  # seconds that are heard beyond the part, since a beam's last words depend on what follows


@dataclass(frozen=True)
class Layer:
    """A recurrent layer at work."""

    cell: str  # the name of its class
    gates: dict[str, Array]  # those that are known, (T, H) each
    outputs: Array  # (T, H)


@dataclass(frozen=True)
class Inspection:
    """What was computed of the part [start, end) of a recording. Times in seconds, rows from `start` on."""

    start: float
    end: float
    duration: float  # of the recording
    step: float  # a row of `layers`
    frame: float  # a row of `log_probs`
    log_mel: Array  # (T, M), natural logarithm of power
    bands: Array  # (M,), the frequency of each in Hz
    layers: list[Layer]  # the lowest first
    log_probs: Array  # (T, V)
    words: list[Word]  # that are at least partly inside


def listen(path: str, bundle: Bundle, start: float, seconds: float) -> Inspection:
    """A part of `seconds` that begins with the step of `start`; shorter where the recording ends.

    Raises UserError for a file that cannot be read, digital silence, and a `start` behind the end.
    """
    model, duration = bundle.model, audio.info(path).duration
    if start >= duration:
        raise UserError(f"{path}: ends at {duration:.2f} s; --start has to be before")
    end = min(start + seconds, duration)
    samples = _read(path, end + AFTER)
    if audio.is_silent(samples):
        raise UserError(f"{path}: every sample is zero; check the microphone or the export of this recording")
    recognizer = StreamingRecognizer(bundle)
    step, rate = model.step_samples, audio.SAMPLE_RATE
    first, last = int(start * rate) // step, math.ceil(end * rate / step)
    start = first * step / rate
    # Calls are kept from a chunk before the part on, for the outputs before its first step.
    begin = max(0, first * step // recognizer.chunk - 1) * recognizer.chunk
    blocks = model.encoder.blocks
    _feed(recognizer, samples[:begin])
    with recorded([model, model.frontend, *(block.mgu for block in blocks)]) as calls:
        _feed(recognizer, samples[begin:])
        words = recognizer.finish().words

    def part(rows: Tensor, each: int = 1, delay: int = 0) -> Array:
        """Of rows (T, ...) since `begin`, `each` of them a step and `delay` steps late, those of the part."""
        skipped = first - begin // step + delay
        return rows[each * skipped : each * (skipped + last - first)].numpy()

    layers = []
    for block, delay in zip(blocks, accumulate(model.config.encoder.lookahead), strict=True):
        inputs, outputs = _joined(calls[block.mgu])
        before = pad(outputs[:-1], (0, 0, 1, 0))  # a stream begins with zeros
        with torch.inference_mode():
            opened = gates(block.mgu, inputs, before)
        shown = {name: part(gate, delay=delay) for name, gate in opened.items()}
        layers.append(Layer(type(block.mgu).__name__, shown, part(outputs, delay=delay)))
    frontend = model.frontend
    heard = _joined(calls[frontend]).inputs
    with torch.inference_mode():  # of the first two frames the samples before are missing; they are not shown
        log_mel = frontend.log_mel(heard[None], frontend.initial_state(1))[0][0]
    bands = frontend.filters.argmax(0) * rate / frontend.fft
    return Inspection(
        start,
        end,
        duration,
        step / rate,
        model.frame_seconds,
        part(log_mel, each=model.encoder.subsampling),
        bands.numpy(),
        layers,
        part(_joined(calls[model]).outputs, each=model.config.outputs, delay=model.encoder.lookahead),
        [word for word in words if word.end > start and word.start < end],
    )


def _read(path: str, seconds: float) -> Array:
    """The beginning of a recording, at least `seconds` of it."""
    pieces, samples = [], 0
    for block in audio.blocks(path):
        pieces.append(block)
        samples += len(block)
        if samples >= seconds * audio.SAMPLE_RATE:
            break
    return np.concatenate(pieces)


def _feed(recognizer: StreamingRecognizer, samples: Array) -> None:
    for start in range(0, len(samples), recognizer.chunk):
        recognizer.accept(samples[start : start + recognizer.chunk])


def _joined(calls: Sequence[Call]) -> Call:
    """The calls of one stream as one, (T, ...)."""
    return Call(*(torch.cat(pieces, 1)[0] for pieces in zip(*calls, strict=True)))
