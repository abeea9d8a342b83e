"""The packed model against the one that it is made from: log-probabilities and states."""

import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from asr.encoder import EncoderConfig
from asr.errors import UserError
from asr.frontend import FrontEndConfig
from asr.model import CtcModel, ModelConfig
from asr.ops import cpu
from asr.packed import PACKINGS, Packed, Packing
from asr.state import map_state, pack

# Of log-probabilities and states of the random models below, whose weights are larger than trained ones.
TOLERANCE = {"f32": 1e-5, "f16": 1e-2, "int8": 0.1}
CONFIGS = {
    "as shipped": EncoderConfig((12, 18), width=40, hidden=40, lookahead=(0, 1, 2)),
    "odd sizes": EncoderConfig((7, 9, 5), 3, "gtu", width=33, hidden=17, lookahead=(3, 0), reset_gate=False),
    "no blocks": EncoderConfig((7,), 4, width=33, hidden=17, lookahead=()),
    "no context": EncoderConfig((16, 32), 2, width=64, hidden=96, lookahead=(0, 0)),
    "wider than a panel": EncoderConfig((16, 32), width=65, hidden=65, lookahead=(1,)),
}
FRONT_END = FrontEndConfig(mels=13)
FRONT_ENDS = {
    "as shipped": FrontEndConfig(),
    "odd": FrontEndConfig(8000, 7, 101, 33),
    "more filters than bins": FrontEndConfig(mels=40, window=64, hop=64),
    "longer than a chunk": FrontEndConfig(mels=23, window=1024, hop=10),
    "with a running mean": FrontEndConfig(mels=23, mean_frames=200),
}
pytestmark = pytest.mark.skipif(not cpu.is_available(), reason="no C library")


@pytest.fixture(autouse=True, params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    with torch.inference_mode():
        yield request.param
    torch.set_num_threads(before)


def random_model(encoder: EncoderConfig, outputs: int = 2, frontend: FrontEndConfig = FRONT_END) -> CtcModel:
    torch.manual_seed(0)
    model = CtcModel(ModelConfig(11, frontend, encoder, outputs)).eval()
    model.frontend.set_statistics(
        torch.linspace(1, 5, frontend.mels), torch.linspace(1.5, 0.7, frontend.mels)
    )
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter += 0.3 * torch.randn_like(parameter)
    for block in model.encoder.blocks:
        block.lookahead.weight.normal_(std=0.3)
    return model


def random_chunk(model: CtcModel, batch: int, steps: int) -> tuple[Tensor, Tensor]:
    """Audio and states, as rows."""
    audio = torch.randn(batch, steps * model.step_samples)
    first = model.initial_state(batch)
    state = map_state(torch.randn_like, first)
    frames = first.frontend.frames  # a mean is of no less
    return audio, pack(state._replace(frontend=state.frontend._replace(frames=frames)))


def assert_close(got: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor], tolerance: float) -> None:
    torch.testing.assert_close(got, expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("kind", [0, 1, 2])
@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("config", CONFIGS)
def test_a_packing_gives_the_log_probs_and_the_state_of_the_model(
    config: str, outputs: int, packing: Packing, kind: int
) -> None:
    if kind > cpu.loaded().step_best():
        pytest.skip("this processor has no such instructions")
    model = random_model(CONFIGS[config], outputs)
    packed = Packed(model, packing, kind)
    for batch, steps in itertools.product((1, 2, 5, 13), (1, 2, 5, 40)):
        audio, rows = random_chunk(model, batch, steps + 2)
        before = rows.clone()
        assert_close(packed(audio, rows), model.step(audio, rows), TOLERANCE[packing])
        assert torch.equal(rows, before)


@pytest.mark.parametrize("kind", [0, 1, 2])
@pytest.mark.parametrize("frontend", FRONT_ENDS)
def test_the_front_end_is_that_of_the_model(frontend: str, kind: int) -> None:
    if kind > cpu.loaded().step_best():
        pytest.skip("this processor has no such instructions")
    model = random_model(CONFIGS["as shipped"], frontend=FRONT_ENDS[frontend])
    packed = Packed(model, "f32", kind)
    for batch, steps in itertools.product((1, 3), (1, 9)):
        audio, rows = random_chunk(model, batch, steps)
        assert_close(packed(audio, rows), model.step(audio, rows), 1e-4)
        audio, rows = 0 * audio, pack(model.initial_state(batch))
        assert_close(packed(audio, rows), model.step(audio, rows), 1e-4)


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("config", CONFIGS)
def test_any_chunking_and_any_batch_give_the_same(config: str, packing: Packing) -> None:
    """int8 to the last bit: a row is scaled by itself, and its sums are exact."""
    model = random_model(CONFIGS[config])
    packed = Packed(model, packing)
    audio, first = random_chunk(model, 9, 130)
    whole, final = packed(audio, first)
    for sizes in ([1, 0, 4, 125], [100, 30], [1] * 130):
        rows, pieces = first, []
        for piece in audio.split([size * model.step_samples for size in sizes], 1):
            log_probs, rows = packed(piece, rows)
            pieces.append(log_probs)
        assert_close((torch.cat(pieces, 1), rows), (whole, final), 0 if packing == "int8" else 1e-4)
    alone = packed(audio[4:5], first[4:5])
    assert_close(alone, (whole[4:5], final[4:5]), 0 if packing == "int8" else 1e-4)


@pytest.mark.parametrize("packing", PACKINGS)
def test_an_empty_chunk_and_an_empty_batch_change_nothing(packing: Packing) -> None:
    model = random_model(CONFIGS["as shipped"])
    for batch, steps in ((3, 0), (0, 2), (0, 0)):
        audio, rows = random_chunk(model, batch, steps)
        log_probs, after = Packed(model, packing)(audio, rows)
        assert log_probs.shape == (batch, 2 * steps, 11)
        assert torch.equal(after, rows)


@pytest.mark.parametrize("packing", PACKINGS)
def test_a_nan_in_one_stream_stays_in_that_stream(packing: Packing) -> None:
    model = random_model(CONFIGS["as shipped"])
    audio, rows = random_chunk(model, 9, 6)
    audio[4, 2 * model.step_samples] = torch.nan
    log_probs, after = Packed(model, packing)(audio, rows)
    rest = [row for row in range(9) if row != 4]
    assert log_probs[4, -1].isnan().all() and log_probs[4, :2].isfinite().all()
    assert log_probs[rest].isfinite().all() and after[rest].isfinite().all()


@pytest.mark.parametrize("packing", PACKINGS)
def test_python_threads_do_not_disturb_each_other(packing: Packing) -> None:
    model = random_model(EncoderConfig((16, 32), width=96, hidden=96, lookahead=(1, 2)))
    packed = Packed(model, packing)
    jobs = [random_chunk(model, batch, 30) for batch in (1, 2, 9, 16)]
    expected = [packed(*job) for job in jobs]
    start = threading.Barrier(len(jobs))

    def repeat(job: tuple[Tensor, Tensor]) -> list[tuple[Tensor, Tensor]]:
        start.wait()
        with torch.inference_mode():
            return [packed(*job) for _ in range(5)]

    with ThreadPoolExecutor(len(jobs)) as pool:
        for found, wanted in zip(pool.map(repeat, jobs), expected, strict=True):
            for got in found:
                assert_close(got, wanted, 0)


def test_a_model_takes_its_packing_in_inference_alone() -> None:
    model = random_model(CONFIGS["as shipped"])
    audio, state = torch.randn(2, 4 * model.step_samples), model.initial_state(2)
    expected, _ = model(audio, state)
    model.packed = Packed(model, "int8")
    got, after = model(audio, state)
    assert not torch.equal(got, expected)
    torch.testing.assert_close(got, expected, atol=TOLERANCE["int8"], rtol=0)
    log_probs, rows = model.step(audio, pack(state))
    assert torch.equal(log_probs, got) and torch.equal(rows, pack(after))
    with torch.inference_mode(False), torch.no_grad():
        assert torch.equal(model(audio, state)[0], expected)
        assert torch.equal(model.step(audio, pack(state))[0], expected)
    assert not torch.equal(model.train()(audio, state)[0], got)


def test_what_does_not_fit_is_refused() -> None:
    model = random_model(CONFIGS["as shipped"])
    packed = Packed(model, "f32")
    audio, rows = random_chunk(model, 2, 3)
    for wrong in (audio[:, :-1], audio[:1], audio.double()):
        with pytest.raises(ValueError):
            packed(wrong, rows)
    with pytest.raises(UserError, match="int8"):
        Packed(model, "int4")  # type: ignore[arg-type]
