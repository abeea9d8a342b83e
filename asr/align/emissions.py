"""Audio through a model to the log-probabilities of the whole recording, whatever its length.

S samples, T frames, V vocabulary. The audio goes by in pieces; what is kept is (T, V) float32: for an hour in
frames of 40 ms with 256 tokens, 92 MB.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray

from asr.model import CtcModel


@torch.inference_mode()
def emissions(model: CtcModel, pieces: Iterable[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Pieces (S,) of one recording, at the model's rate -> log-probabilities (T, V), aligned with it."""
    state = model.initial_state(1)
    waiting = np.zeros(0, np.float32)
    outputs, samples = [], 0
    for piece in pieces:
        samples += len(piece)
        waiting = np.concatenate([waiting, piece])
        ready = len(waiting) // model.step_samples * model.step_samples
        if ready:
            log_probs, state = model(torch.from_numpy(waiting[:ready])[None], state)
            outputs.append(log_probs[0].numpy())
            waiting = waiting[ready:]
    rest = model.pad_for_lookahead(torch.from_numpy(waiting)[None])
    if rest.size(1):
        outputs.append(model(rest, state)[0][0].numpy())
    if not outputs:
        return np.zeros((0, model.config.vocabulary), np.float32)
    return np.concatenate(outputs)[model.lookahead :][: model.frames(samples)]
