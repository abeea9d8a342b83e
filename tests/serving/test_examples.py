"""The examples of docs/serving.md run as they stand, but for the ports."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from asr.audio import Resampler
from tests.serving.conftest import Running, speaking_wyoming

PAGE = Path(__file__).parents[2] / "docs" / "serving.md"
SHOWN = {
    "Vosk": "result",
    "OpenAI: recordings": "TranscriptionTextDoneEvent",
    "OpenAI: Realtime": "input_audio_transcription.completed",
    "Wyoming (Home Assistant)": "'transcript'",
}


def example(heading: str) -> str:
    section = PAGE.read_text(encoding="utf-8").split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    return code


@pytest.mark.parametrize("heading", SHOWN)
def test_the_examples_run(
    server: Running,
    speech: NDArray[np.float32],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    heading: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    up = Resampler(16000, 24000)
    soundfile.write("speech.wav", speech, 16000)
    soundfile.write("speech24k.wav", np.concatenate([up.accept(speech), up.finish()]), 24000)
    code = example(heading)
    if heading == "OpenAI: Realtime":  # goes on with the client of the section before
        code = "\n".join(example("OpenAI: recordings").splitlines()[:3]) + "\n" + code
    with speaking_wyoming(server) as port, contextlib.redirect_stdout(io.StringIO()) as shown:
        for ours, theirs in (("localhost:8000", server.host), ('"localhost", 10300', f'"127.0.0.1", {port}')):
            code = code.replace(ours, theirs)
        exec(compile(code, heading, "exec"), {})
    assert SHOWN[heading] in shown.getvalue()
