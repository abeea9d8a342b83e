"""Where there is speech: Silero's network (pip: silero-vad, MIT) for a probability, a gate to decide.

The network is written out here, since as a module of tensors it steps many windows and many streams in one
call, with its state as data; only its weights come from the package. The C library, where it is, computes the
same (ops/csrc/step.c). It knows audio, nothing of words.

B batch, S samples, W windows, H hidden units. A window is 512 samples (32 ms) after 64 of context.
"""

from __future__ import annotations

import ctypes
import importlib.util
from collections import defaultdict
from collections.abc import Sequence
from ctypes import Structure, c_float, c_void_p
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import pad

from asr.errors import UserError
from asr.ops import cpu
from asr.packed import Panels, Product, fields
from asr.state import pack, rows, together, unpack
from asr.text import BLANK

RATE = 16000
WINDOW, CONTEXT, HIDDEN = 512, 64, 128
AT_ONCE = 1024  # windows of one call: 12 MB for the largest layer
MASKED = -50.0  # log-probability of a token outside of speech: finite, so that no score becomes NaN


class VadState(NamedTuple):
    context: Tensor  # (B, CONTEXT), the samples before the next window
    hidden: Tensor  # (B, H)
    cell: Tensor  # (B, H)


class SileroVad(nn.Module):
    """Magnitude spectrogram, four convolutions inside the window, an LSTM over the windows.

    The layers have the sizes and the equation of Silero VAD 6 at 16 kHz, and give its numbers
    (`tests/test_vad.py`).
    """

    packed: PackedVad | None = None

    def __init__(self) -> None:
        super().__init__()
        self.spectrum = nn.Conv1d(1, 258, 256, stride=128, bias=False)  # cosines, then sines
        self.convolutions = nn.ModuleList(
            [
                nn.Conv1d(129, 128, 3, padding=1),
                nn.Conv1d(128, 64, 3, stride=2, padding=1),
                nn.Conv1d(64, 64, 3, stride=2, padding=1),
                nn.Conv1d(64, 128, 3, padding=1),
            ]
        )
        self.lstm = nn.LSTM(HIDDEN, HIDDEN, batch_first=True)
        self.head = nn.Linear(HIDDEN, 1)

    def initial_state(self, batch_size: int) -> VadState:
        zeros = self.head.weight.new_zeros
        return VadState(zeros(batch_size, CONTEXT), zeros(batch_size, HIDDEN), zeros(batch_size, HIDDEN))

    def forward(self, audio: Tensor, state: VadState) -> tuple[Tensor, VadState]:
        """audio (B, W * 512) at 16 kHz -> probability of speech (B, W), state."""
        audio = torch.cat([state.context, audio], 1)
        windows = audio.unfold(1, CONTEXT + WINDOW, WINDOW)  # (B, W, 576)
        batch, count, length = windows.shape
        frames = pad(windows.reshape(batch * count, 1, length), (0, 64), mode="reflect")
        real, imaginary = self.spectrum(frames).chunk(2, 1)
        frames = (real.square() + imaginary.square()).sqrt()  # (B * W, 129, 4)
        for layer in self.convolutions:
            frames = layer(frames).relu()
        steps, (hidden, cell) = self.lstm(
            frames.view(batch, count, HIDDEN), (state.hidden[None], state.cell[None])
        )
        speech = self.head(steps.relu()).sigmoid().squeeze(-1)
        return speech, VadState(audio[:, audio.size(1) - CONTEXT :], hidden[0], cell[0])

    def step(self, audio: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """`forward` of streams whose states are rows of `asr.state.pack`, in C where there is the library."""
        if self.packed:
            return self.packed(audio, rows)
        speech, state = self(audio, unpack(rows, self.initial_state(1)))
        return speech, pack(state)


class _Vad(Structure):
    _fields_ = [
        ("spectrum", Product),
        ("convolutions", Product * 4),
        *fields(Product, "inputs", "recurrent"),
        ("head", c_void_p),
        ("head_bias", c_float),
    ]


class PackedVad:
    """`SileroVad`, a batch of windows in one call of C."""

    def __init__(self, network: SileroVad, kind: int | None = None) -> None:
        library = cpu.loaded()
        self._forward = library.vad_forward
        self._kind = library.step_best() if kind is None else kind
        self._panels = panels = Panels("f32", self._kind)
        layers: Any = network  # nn.Module's attributes have no types
        convolutions = [
            panels.product(layer.weight.transpose(1, 2).flatten(1), layer.bias)
            for layer in layers.convolutions
        ]
        self._vad = _Vad(
            panels.product(layers.spectrum.weight.flatten(1), None),
            (Product * 4)(*convolutions),
            panels.product(layers.lstm.weight_ih_l0, layers.lstm.bias_ih_l0),
            panels.product(layers.lstm.weight_hh_l0, layers.lstm.bias_hh_l0),
            panels.keep(layers.head.weight),
            layers.head.bias.item(),
        )

    def __call__(self, audio: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """audio (B, W * 512) in float32, rows (B, D) of packed states -> probabilities (B, W), rows."""
        batch, windows = audio.size(0), audio.size(1) // WINDOW
        audio, rows = audio.contiguous(), rows.clone(memory_format=torch.contiguous_format)
        speech = audio.new_empty(batch, windows)
        pointers = audio.data_ptr(), rows.data_ptr(), speech.data_ptr()
        if self._forward(ctypes.byref(self._vad), *pointers, batch, windows, self._kind):
            raise MemoryError(f"not enough memory for {batch} streams of {windows} windows")
        return speech, rows


@cache
def load_vad() -> SileroVad:
    """The network with the weights of the installed silero-vad, shared by all streams: it holds no state."""
    # Not imported: the package's __init__ would set torch's threads, and load what is not needed here.
    package = importlib.util.find_spec("silero_vad")
    if package is None or not package.submodule_search_locations:
        raise UserError("the VAD is missing: pip install silero-vad, or decode with --vad off")
    theirs = torch.jit.load(f"{package.submodule_search_locations[0]}/data/silero_vad.jit").state_dict()
    weights = {"spectrum.weight": theirs["_model.stft.forward_basis_buffer"]}
    for index in range(4):
        for kind in ("weight", "bias"):
            weights[f"convolutions.{index}.{kind}"] = theirs[f"_model.encoder.{index}.reparam_conv.{kind}"]
    for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        weights[f"lstm.{kind}_l0"] = theirs[f"_model.decoder.rnn.{kind}"]
    weights["head.weight"] = theirs["_model.decoder.decoder.2.weight"][:, :, 0]
    weights["head.bias"] = theirs["_model.decoder.decoder.2.bias"]
    network = SileroVad()
    network.load_state_dict(weights)
    network.eval().requires_grad_(False)
    if cpu.is_available():
        network.packed = PackedVad(network)
    return network


@dataclass(frozen=True)
class VadConfig:
    """Speech begins when the probability has been `threshold` for `onset` seconds and ends under `threshold -
    hysteresis`; words may be said for `hangover` seconds more, since CTC says the end of a word late."""

    threshold: float = 0.5
    hysteresis: float = 0.15
    onset: float = 0.096  # shorter ones are barks and clicks; no word is
    hangover: float = 0.4


class SpeechGate:
    """Of one stream: windows' probabilities in, out for each frame how long silence has lasted.

    frame: samples a frame. lookahead: frames that the model has heard beyond one when it gives it out; speech
    that begins in them ends the silence already, so that no onset is lost. What is said of a frame depends on
    the audio up to its lookahead alone, not on the pieces in which the audio came.
    """

    def __init__(self, config: VadConfig, frame: int, lookahead: int) -> None:
        self.config, self.frame, self.lookahead = config, frame, lookahead
        self._onset = max(1, round(config.onset * RATE / WINDOW))  # windows
        self._likely = 0  # windows in a row that are speech, or begin it
        self._frames = self._windows = 0  # how many have been decided
        self._waiting: list[float] = []  # probabilities of windows that no frame has needed yet
        self._ended = -(10**12)  # where the last window of speech did, in samples

    def accept(self, probabilities: NDArray[np.float32]) -> None:
        """The next windows (W,) of the stream."""
        self._waiting += probabilities.tolist()

    def take(self, frames: int) -> NDArray[np.int64]:
        """(T,) whole frames since the last speech, of the next T = `frames` frames; 0 from the frame whose
        lookahead speech is in. All windows that end in their lookahead have to be there."""
        silence = np.zeros(frames, np.int64)
        for index in range(frames):
            self._frames += 1
            end = self._frames * self.frame
            self._hear((end + self.lookahead * self.frame) // WINDOW)
            silence[index] = max(0, (end - self._ended) // self.frame)
        return silence

    def _hear(self, windows: int) -> None:
        """Move the gate on to the first `windows` windows of the stream."""
        count = windows - self._windows
        for probability in self._waiting[:count]:
            self._windows += 1
            speaking = self._likely >= self._onset
            least = self.config.threshold - self.config.hysteresis * speaking
            self._likely = self._likely + 1 if probability >= least else 0
            if self._likely >= self._onset:
                self._ended = self._windows * WINDOW
        del self._waiting[:count]


class VadStream:
    """Network and gate of one stream of audio."""

    def __init__(self, config: VadConfig, frame: int, lookahead: int) -> None:
        self.hangover = round(config.hangover * RATE / frame)  # frames
        self._gate = SpeechGate(config, frame, lookahead)
        self._state = pack(load_vad().initial_state(1))
        self._waiting = np.zeros(0, np.float32)  # samples short of a window
        self.speaking = False  # in the last frame, or its lookahead

    @torch.inference_mode()
    def accept(self, audio: NDArray[np.float32], frames: int) -> NDArray[np.int64]:
        """audio (S,), the next of the stream -> `SpeechGate.take` of the `frames` that it completes."""
        return hear([self], [audio], [frames])[0]

    def _take(self, frames: int) -> NDArray[np.int64]:
        silence = self._gate.take(frames)
        if frames:
            self.speaking = bool(silence[-1] == 0)
        return silence


def hear(
    streams: Sequence[VadStream], audio: Sequence[NDArray[np.float32]], frames: Sequence[int]
) -> list[NDArray[np.int64]]:
    """For several streams as `VadStream.accept` for each; the network runs in batches, in inference mode."""
    groups: defaultdict[int, list[VadStream]] = defaultdict(list)
    for stream, samples in zip(streams, audio, strict=True):
        stream._waiting = np.concatenate([stream._waiting, samples])
        groups[len(stream._waiting) // WINDOW].append(stream)
    for windows, group in groups.items():
        if windows:
            _hear_windows(group, windows)
    return [stream._take(count) for stream, count in zip(streams, frames, strict=True)]


def _hear_windows(streams: Sequence[VadStream], windows: int) -> None:
    waiting = np.concatenate([stream._waiting[: windows * WINDOW] for stream in streams])
    audio = torch.from_numpy(waiting.reshape(len(streams), windows * WINDOW))
    network, most = load_vad(), max(1, AT_ONCE // len(streams)) * WINDOW
    states = together([stream._state for stream in streams])
    for start in range(0, windows * WINDOW, most):
        speech, states = network.step(audio[:, start : start + most], states)
        for stream, probabilities in zip(streams, speech.numpy(), strict=True):
            stream._gate.accept(probabilities)
    for stream, own in zip(streams, rows(states), strict=True):
        stream._state = own
        stream._waiting = stream._waiting[windows * WINDOW :].copy()  # a slice would keep the whole alive


def mask(log_probs: NDArray[np.float32], silent: NDArray[np.bool_]) -> NDArray[np.float32]:
    """log_probs (T, V) in which silent frames (T,) say nothing but blank."""
    if not silent.any():
        return log_probs
    masked = log_probs.copy()
    masked[silent] = MASKED
    masked[silent, BLANK] = 0.0
    return masked
