"""bfloat16 where the machine has it, and nowhere else."""

from __future__ import annotations

import pytest
import torch

from asr.training.muon import orthogonal
from asr.training.precision import has_bfloat16, precision


@pytest.fixture(params=[True, False], ids=["bfloat16", "none"])
def there(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether this machine's processor seems to have it; no GPU."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_bf16": request.param})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return request.param


@pytest.mark.parametrize("accelerator", ["auto", "cpu"])
def test_a_training_is_mixed_where_the_processor_has_bfloat16(there: bool, accelerator: str) -> None:
    assert precision(accelerator) == ("bf16-mixed" if there else "32-true")


def test_on_a_gpu_the_gpu_counts(there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for new in (True, False):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, new=new: new)
        assert precision() == precision("gpu") == ("bf16-mixed" if new else "32-true")
        assert precision("cpu") == ("bf16-mixed" if there else "32-true")


def test_processors_of_which_nothing_is_known_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    assert not has_bfloat16(torch.device("cpu"))
    assert not has_bfloat16(torch.device("mps"))


def test_muon_turns_matrices_in_what_the_processor_has(there: bool) -> None:
    torch.manual_seed(0)
    matrices = torch.randn(2, 32, 48)
    made = orthogonal(matrices)
    assert made.dtype == (torch.bfloat16 if there else torch.float32)
    values = torch.linalg.svdvals(made.float())
    assert 0.3 < values.min() <= values.max() < 1.3
