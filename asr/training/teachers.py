"""Models that a training learns from besides what was said: distillation of their posteriors, frame by frame.

B batch, S samples, T frames, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import kl_div

from asr.bundle import load_bundle
from asr.errors import UserError
from asr.lexicon import PhoneTokenizer
from asr.model import CtcModel
from asr.ops import Backend
from asr.text import Tokenizer


class Teachers:
    """
    Args:
        shares: of the mean of logarithms, by bundle; they are divided by their sum.
        tokenizer, model: of what learns. Tokens, the rate of the audio and the length of a frame must agree
            with it; all else, lookahead too, may differ.

    No modules of what learns: their weights are neither trained nor kept in its checkpoints.
    """

    def __init__(
        self,
        shares: Mapping[str, float],
        tokenizer: Tokenizer | PhoneTokenizer,
        model: CtcModel,
        backend: Backend = "auto",
    ) -> None:
        if min(shares.values()) <= 0:
            raise UserError("model.teachers: the share of each is a number above 0")
        self.shares = [share / sum(shares.values()) for share in shares.values()]
        self.models: list[CtcModel] = []
        for name in shares:
            teacher = load_bundle(name, backend)
            if teacher.tokenizer.model != tokenizer.model:
                raise UserError(f"model.teachers: {name} has other tokens than model.tokenizer")
            theirs, ours = _time(teacher.model), _time(model)
            if theirs != ours:
                raise UserError(f"model.teachers: {name} has {theirs}, the config {ours}; make them the same")
            self.models.append(teacher.model.requires_grad_(False))

    def to(self, device: torch.device) -> None:
        for model in self.models:
            model.to(device)

    @torch.no_grad()
    def log_probs(self, audio: Tensor, lengths: Tensor) -> Tensor:
        """audio (B, S) zero-padded, lengths (B,) -> the teachers' mean, normalised, (B, T, V) in float32."""
        told = torch.stack([model.offline(audio, lengths)[0].float() for model in self.models])
        return torch.einsum("nbtv,n->btv", told, told.new_tensor(self.shares)).log_softmax(-1)


def divergence(taught: Tensor, log_probs: Tensor, frames: Tensor) -> Tensor:
    """Kullback-Leibler's, of log_probs (B, T', V) from `taught` (B, T, V), T <= T', summed over the frames
    (B,), in nats."""
    apart = kl_div(log_probs[:, : taught.size(1)], taught, reduction="none", log_target=True).sum(-1)
    inside = torch.arange(taught.size(1), device=frames.device) < frames.unsqueeze(1)
    return apart[inside].sum()


def _time(model: CtcModel) -> str:
    return f"frames of {1000 * model.frame_seconds:g} ms of {model.config.frontend.rate} Hz"
