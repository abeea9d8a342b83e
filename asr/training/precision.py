"""Whether bfloat16 is worth computing in: many processors have no instructions for it."""

from __future__ import annotations

from typing import Literal

import torch


def has_bfloat16(device: torch.device) -> bool:
    """GPUs from Ampere on, and processors with AVX512_BF16 or AMX. With others, most laptops' among
    them, a training step took 11 times as long in bfloat16 as in float32 (docs/performance.md)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    known = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))


def precision(accelerator: object = "auto") -> Literal["bf16-mixed", "32-true"]:
    """Lightning's, for its `accelerator`: bf16-mixed where that is faster, else 32-true."""
    gpu = torch.cuda.is_available() and accelerator in ("auto", "gpu", "cuda")
    return "bf16-mixed" if has_bfloat16(torch.device("cuda" if gpu else "cpu")) else "32-true"
