from __future__ import annotations

from pathlib import Path

import pytest
from lhotse import CutSet

from asr.data.manifest import write_cuts
from asr.errors import UserError
from data_prep import texts
from data_prep.common import utterance


def test_a_line_an_utterance(tmp_path: Path, write_sound, capsys: pytest.CaptureFixture[str]) -> None:
    sound = write_sound(tmp_path / "a.wav")
    said = {"one.jsonl.gz": ["so it is", "è così"], "two.jsonl.gz": ["no"]}
    for name, lines in said.items():
        cuts = [utterance(f"{name}-{line}", sound, line, speaker="s") for line in lines]
        write_cuts(CutSet.from_cuts(cuts), tmp_path / name)
    assert texts.main([str(tmp_path / name) for name in said]) == 0
    assert capsys.readouterr().out == "so it is\nè così\nno\n"
    with pytest.raises(UserError, match=r"none\.jsonl\.gz"):
        texts.main([str(tmp_path / "none.jsonl.gz")])
