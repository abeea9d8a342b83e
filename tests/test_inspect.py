"""`asr inspect`: what is drawn is what was computed, at the time of its sound; what is wrong is one line."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn.functional import pad

pytest.importorskip("matplotlib")

from asr import audio as sound
from asr.align.emissions import emissions
from asr.bundle import Bundle, load_bundle
from asr.cells import make
from asr.data.phones import phone_log_probs
from asr.errors import UserError
from asr.inspect.command import main
from asr.inspect.gates import gates, recorded
from asr.inspect.listen import Inspection, listen
from asr.inspect.plot import draw, posteriors
from asr.lexicon import Lexicon, PhoneTokenizer
from asr.model import CtcModel
from asr.models import READING
from asr.phones import PHONES, SILENCE
from asr.streaming import StreamingRecognizer
from asr.text import Tokenizer
from asr.transcript import Word
from tests.conftest import signal


@pytest.fixture
def recording(tmp_path: Path) -> str:
    sound.write(tmp_path / "talk.wav", signal(4.03, seed=1))
    return str(tmp_path / "talk.wav")


@pytest.fixture
def found(bundle: Path, recording: str) -> Inspection:
    return listen(recording, load_bundle(bundle), start=0.0, seconds=1.0)


@pytest.fixture(scope="module")
def shipped() -> Bundle:
    return load_bundle("en-small")


@pytest.fixture(scope="module")
def reading(shipped: Bundle) -> Inspection:
    return listen(str(READING), shipped, start=2.0, seconds=1.5)


def inspect(bundle: Path, *arguments: object) -> int:
    return main(["--model", str(bundle), *map(str, arguments)])


# What is computed


def test_the_gates_and_the_cells_equation_give_the_outputs_of_every_layer(
    model: CtcModel, audio: NDArray[np.float32]
) -> None:
    layers = [block.mgu for block in model.encoder.blocks]
    with torch.inference_mode(), recorded(layers) as calls:
        model.offline(torch.from_numpy(audio)[None], torch.tensor([len(audio)]))
        for layer in layers:
            ((inputs, outputs),) = calls[layer]
            before = pad(outputs[:, :-1], (0, 0, 1, 0))
            f = gates(layer, inputs, before)["f"]
            recurrent = before @ layer.weight_hh[layer.hidden :].T
            if layer.bias_hn is not None:
                recurrent = f * (recurrent + layer.bias_hn)
            input_n = inputs @ layer.weight_ih[layer.hidden :].T + layer.bias[layer.hidden :]
            n = torch.tanh(input_n + recurrent)
            torch.testing.assert_close((1 - f) * n + f * before, outputs, atol=1e-5, rtol=0)


def test_the_gates_and_the_equation_of_the_gru_give_its_outputs() -> None:
    torch.manual_seed(0)
    layer, inputs = make("gru", 8, 8), torch.randn(1, 9, 8)
    with torch.inference_mode():
        outputs, _ = layer(inputs, layer.initial_state(1))
        before = pad(outputs[:, :-1], (0, 0, 1, 0))
        named = gates(layer, inputs, before)
        weight_ih, weight_hh, bias_ih, bias_hh = (each[-8:] for each in layer.rnn.all_weights[0])
        n = torch.tanh(inputs @ weight_ih.T + bias_ih + named["r"] * (before @ weight_hh.T + bias_hh))
        torch.testing.assert_close((1 - named["z"]) * n + named["z"] * before, outputs)


def test_what_wraps_a_layer_has_its_gates_and_what_is_not_known_has_none() -> None:
    layer, inputs, before = make("zoneout_mgu", 8, 8), torch.randn(5, 8), torch.randn(5, 8)
    assert torch.equal(gates(layer, inputs, before)["f"], gates(layer.layer, inputs, before)["f"])
    assert gates(make("lstm", 8, 8), inputs, before) == {}


def test_nothing_is_recorded_outside_of_the_context(model: CtcModel, audio: NDArray[np.float32]) -> None:
    with recorded([model]) as calls:
        pass
    model.offline(torch.from_numpy(audio)[None], torch.tensor([len(audio)]))
    assert not calls


def test_posteriors_stand_where_emissions_have_them(
    model: CtcModel, tokenizer: Tokenizer, recording: str
) -> None:
    found = listen(recording, Bundle(model, tokenizer), start=1.3, seconds=1.0)
    first = round(found.start / found.frame)
    assert 1.3 - found.step < found.start <= 1.3
    whole = emissions(model, [sound.read(recording)])
    assert found.frame * len(found.log_probs) == pytest.approx(1.0, abs=2 * found.step)
    np.testing.assert_allclose(found.log_probs, whole[first : first + len(found.log_probs)], atol=1e-4)


def test_a_part_is_what_the_whole_has_there(model: CtcModel, tokenizer: Tokenizer, recording: str) -> None:
    # it begins with a chunk, so that what was put out before it comes from another call
    whole, part = (listen(recording, Bundle(model, tokenizer), *at) for at in ((0.0, 60.0), (2.56, 1.0)))
    first = round(part.start / part.step)
    each = model.encoder.subsampling
    np.testing.assert_allclose(
        part.log_mel, whole.log_mel[each * first : each * first + len(part.log_mel)], atol=1e-4
    )
    for own, other in zip(part.layers, whole.layers, strict=True):
        rows = slice(first, first + len(own.outputs))
        np.testing.assert_allclose(own.outputs, other.outputs[rows], atol=1e-4)
        np.testing.assert_allclose(own.gates["f"], other.gates["f"][rows], atol=1e-4)


def test_every_layer_stands_at_its_sound(
    model: CtcModel, tokenizer: Tokenizer, recording: str, tmp_path: Path
) -> None:
    """Two recordings part at step 20, and so do all layers, if lookahead only delays."""
    for block in model.encoder.blocks:
        torch.nn.init.zeros_(block.lookahead.weight)
    samples = sound.read(recording)
    samples[20 * model.step_samples :] *= 0.1
    sound.write(tmp_path / "other.wav", samples)
    one, two = (
        listen(path, Bundle(model, tokenizer), 0.0, 3.0) for path in (recording, str(tmp_path / "other.wav"))
    )
    for own, other in zip(one.layers, two.layers, strict=True):
        assert first_difference(own.outputs, other.outputs) == 20
        assert first_difference(own.gates["f"], other.gates["f"]) == 20
    assert first_difference(one.log_mel, two.log_mel) == 20 * model.encoder.subsampling


def first_difference(one: NDArray[np.float32], two: NDArray[np.float32]) -> int:
    return int(np.argmax(np.abs(one - two).max(1) > 1e-3))


def test_the_words_are_those_of_the_whole_recording(shipped: Bundle, reading: Inspection) -> None:
    recognizer = StreamingRecognizer(shipped)
    recognizer.accept(sound.read(READING))
    words = [word for word in recognizer.finish().words if word.end > 2.0 and word.start < 3.5]
    assert [word.text for word in reading.words] == [word.text for word in words] != []
    assert [word.start for word in reading.words] == pytest.approx([word.start for word in words])


# The picture


def test_words_and_phones_are_named(shipped: Bundle, reading: Inspection, tmp_path: Path) -> None:
    drawn = texts(reading, shipped.tokenizer, [1], tmp_path)
    assert {word.text for word in reading.words} <= set(drawn)
    heard = phone_log_probs(torch.from_numpy(reading.log_probs)).argmax(-1)
    best = {PHONES[phone] for phone in heard} - {PHONES[SILENCE]}
    assert {f" {phone}" for phone in best} <= set(drawn) and best


def test_by_default_it_has_the_name_of_the_recording_and_lies_here(
    bundle: Path,
    recording: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert inspect(bundle, recording, "--start", 3, "--layers", 2) == 0
    assert [path.name for path in Path().iterdir()] == ["talk.png"]
    assert capsys.readouterr().out == "talk.png: talk.wav, 3.00 - 4.03 of 4.03 s\n"
    assert Path("talk.png").read_bytes().startswith(b"\x89PNG")


def test_confidences_and_layers_are_named(found: Inspection, tokenizer: Tokenizer, tmp_path: Path) -> None:
    said = replace(found, words=[Word("vexingly", 0.2, 0.7, 0.51)])
    drawn = texts(said, tokenizer, [1, 3], tmp_path)
    assert {"vexingly", "0.51", "a title"} <= set(drawn)
    assert [text for text in drawn if text.startswith("layer")] == ["layer 3", "layer 1"]  # from above


def test_a_cell_of_unknown_gates_is_shown_by_its_hidden_state(
    found: Inspection, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    layers = [replace(layer, cell="Other", gates={}) for layer in found.layers]
    drawn = texts(replace(found, layers=layers), tokenizer, [1, 2, 3], tmp_path)
    assert any("hidden state" in text and "Other" in text for text in drawn)


def test_both_tokens_of_a_phone_are_one_row() -> None:
    tokenizer = PhoneTokenizer(Lexicon({"cat": ["k@t"]}))
    probabilities = np.full((2, tokenizer.vocabulary), 1e-6, np.float32)
    probabilities[0, tokenizer.encode("cat")] = 0.25, 0.5, 0.2
    probabilities[1, tokenizer.spell("tt")] = 0.3, 0.4  # T where a word begins, and where none does
    shown = posteriors(np.log(probabilities), tokenizer)
    assert shown.names == ["AE", "T", "K"]
    np.testing.assert_allclose(shown.rows, [[0.5, 0], [0.2, 0.7], [0.25, 0]], atol=1e-5)


def test_tokens_of_text_come_in_the_order_in_which_they_appear(tokenizer: Tokenizer) -> None:
    probabilities = np.full((4, tokenizer.vocabulary), 1e-6, np.float32)
    for frame, token in enumerate((7, 3, 7, 5)):
        probabilities[frame, token] = 0.9
    assert posteriors(np.log(probabilities), tokenizer).names == [
        tokenizer.pieces[token] for token in (7, 3, 5)
    ]


def texts(
    inspection: Inspection, tokenizer: Tokenizer | PhoneTokenizer, layers: list[int], tmp_path: Path
) -> list[str]:
    """All texts of a picture: matplotlib writes each above its glyphs, as a comment."""
    draw(tmp_path / "picture.svg", inspection, tokenizer, layers, "a title")
    return re.findall(r"<!-- (.*?) -->", (tmp_path / "picture.svg").read_text(), re.DOTALL)


# What is wrong


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["gone.wav"], "gone.wav: no such file"),
        (["empty.wav"], "empty.wav: is empty"),
        (["silent.wav"], "silent.wav: every sample is zero"),
        (["talk.wav", "--start", "4.03"], "talk.wav: ends at 4.03 s; --start has to be before"),
        (["talk.wav", "--layers", "1", "4"], "--layers 4: the model has 3"),
        (["talk.wav", "--output", "talk.gif"], "talk.gif: a picture is one of .png"),
        (["talk.wav", "--output", "nowhere/talk.png"], "nowhere/talk.png: its folder does not exist"),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_is_written(
    bundle: Path, recording: str, monkeypatch: pytest.MonkeyPatch, arguments: list[str], line: str
) -> None:
    monkeypatch.chdir(Path(recording).parent)
    Path("empty.wav").touch()
    sound.write("silent.wav", np.zeros(16000, np.float32))
    with pytest.raises(UserError, match=re.escape(line)) as error:
        inspect(bundle, *arguments)
    assert "\n" not in str(error.value)
    assert not [*Path().glob("*.png"), *Path().glob("*.gif")]


@pytest.mark.parametrize("seconds", ["0", "nan", "61"])
def test_a_length_that_cannot_be_read_is_refused(bundle: Path, recording: str, seconds: str) -> None:
    with pytest.raises(SystemExit) as caught:
        inspect(bundle, recording, "--seconds", seconds)
    assert caught.value.code == 2


def test_without_matplotlib_it_says_how_to_get_it(
    bundle: Path, recording: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match=r"pip install 'asr\[plot\]'"):
        inspect(bundle, recording)
