"""The packed model on the CPU against torch and ONNX Runtime: `python -m benchmarks.step [--output FILE]`.

    pip install onnx onnxruntime  # or leave that column away

Two tables. The first is one frame of B streams through five MGU layers of 512 units, and through a
five-layer nn.GRU of as many: with 16 mel bands and 8 tokens, what else the model computes is next to
nothing, and counts against us. The second is a chunk of one stream through the whole encoder of a bundle:
torch's path, and that path exported to ONNX for just this length, its matrix products in int8 (dynamic
quantisation). These two begin with features, ours with the audio.

A figure is a ratio of medians of interleaved runs, so that above 1 is faster than the first column. At its
turn each is called a few times; the first call, which brings its weights back into the cache, is not counted.
With one thread it is CPU time; with more a quiet machine is needed.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from asr.bundle import load_bundle
from asr.cli import run
from asr.encoder import EncoderConfig, EncoderState
from asr.frontend import FrontEndConfig
from asr.model import CtcModel, ModelConfig
from asr.models import add_model
from asr.packed import PACKINGS, Packed
from asr.state import leaves, pack, with_leaves
from benchmarks.common import add_output, check_output, clock, markdown, ratios, where, write_json

LAYERS, SIZE = 5, 512
BATCHES = [1, 8, 32, 64]
CHUNKS_MS = [40, 160, 320]
ONNX = "ONNX int8"
CALLS = 4  # at a turn

Times = dict[str, float]  # contender -> median seconds


def measure(contenders: dict[str, Callable[[], object]], runs: int) -> Times:
    """Medians of `runs` rounds, in which the contenders take turns."""
    now = clock(torch.get_num_threads())
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(runs):
        for name, contender in contenders.items():
            contender()
            start = now()
            for _ in range(CALLS):
                contender()
            times[name].append((now() - start) / CALLS)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def frames(batch: int, runs: int) -> Times:
    """One frame of `batch` streams, nn.GRU first."""
    gru = nn.GRU(SIZE, SIZE, LAYERS, batch_first=True).eval()
    inputs, hidden = torch.randn(batch, 1, SIZE), torch.zeros(LAYERS, batch, SIZE)
    encoder = EncoderConfig((8,), width=SIZE, hidden=SIZE, lookahead=(0,) * LAYERS)
    model = CtcModel(ModelConfig(8, FrontEndConfig(mels=16, window=160), encoder)).eval()
    audio, states = torch.randn(batch, model.step_samples), pack(model.initial_state(batch))
    contenders: dict[str, Callable[[], object]] = {"nn.GRU": partial(gru, inputs, hidden)}
    for packing in PACKINGS:
        contenders[packing] = partial(Packed(model, packing), audio, states)
    return measure(contenders, runs)


class Flat(nn.Module):
    """The encoder and head as torch computes them, with the state as a flat list, which ONNX wants."""

    def __init__(self, model: CtcModel) -> None:
        super().__init__()
        self.model, self.like = model, model.encoder.initial_state(1)

    def forward(self, features: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        log_probs, after = run_torch(self.model, features, with_leaves(self.like, state))
        return log_probs, *leaves(after)


def run_torch(model: CtcModel, features: Tensor, state: EncoderState) -> tuple[Tensor, EncoderState]:
    encoded, state = model.encoder(features, state)
    return model.logits(encoded).log_softmax(-1), state


def rms_norm(graph: Any, x: Any, _: Any, weight: Any, __: Any) -> Any:
    """nn.RMSNorm, which the exporter does not know."""
    epsilon = graph.op("Constant", value_t=torch.tensor(torch.finfo(torch.float32).eps))
    mean = graph.op("ReduceMean", graph.op("Mul", x, x), axes_i=[-1], keepdims_i=1)
    return graph.op("Mul", graph.op("Div", x, graph.op("Sqrt", graph.op("Add", mean, epsilon))), weight)


def onnx_session(bundle: str, features: Tensor) -> Callable[[], object]:
    """ONNX Runtime's int8 for chunks as long as `features`: the loop over time is unrolled."""
    import onnxruntime
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = load_bundle(bundle, backend="reference").model  # of operations that ONNX has
    state = leaves(model.encoder.initial_state(1))
    torch.onnx.register_custom_op_symbolic("aten::rms_norm", rms_norm, 17)
    with tempfile.TemporaryDirectory() as directory, torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an exporter that is old, and of sizes that are constants here
        exact, rounded = f"{directory}/exact.onnx", f"{directory}/int8.onnx"
        torch.onnx.export(Flat(model), (features, *state), exact, dynamo=False, opset_version=17)
        # with the convolutions in int8 too it is slower
        quantize_dynamic(exact, rounded, op_types_to_quantize=["MatMul"], weight_type=QuantType.QInt8)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(rounded, options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    feed = {name: tensor.numpy() for name, tensor in zip(names, (features, *state), strict=True)}
    return partial(session.run, None, feed)


def chunk(bundle: str, milliseconds: float, runs: int) -> Times:
    """A chunk of one stream, torch's path first."""
    model = load_bundle(bundle).model
    frontend = model.config.frontend
    length = round(milliseconds * frontend.rate / 1000 / model.step_samples) * model.encoder.subsampling
    features, state = torch.randn(1, length, frontend.mels), model.encoder.initial_state(1)
    contenders: dict[str, Callable[[], object]] = {"torch": partial(run_torch, model, features, state)}
    if find_spec("onnx") and find_spec("onnxruntime"):
        contenders[ONNX] = onnx_session(bundle, features.clone())
    audio = torch.randn(1, length // model.encoder.subsampling * model.step_samples)
    for packing in PACKINGS:
        contenders[packing] = partial(Packed(model, packing), audio, pack(model.initial_state(1)))
    return measure(contenders, runs)


def table(first: str, rows: dict[str, Times]) -> None:
    names = list(next(iter(rows.values())))
    print(
        f"\n{markdown([first, *names], [[label, *ratios(times)] for label, times in rows.items()])}",
        flush=True,
    )


def main(argv: list[str] | None = None) -> int:
    what = "a step of the packed model against torch and ONNX Runtime, on the CPU"
    parser = argparse.ArgumentParser(prog="benchmarks.step", description=what)
    add_model(parser)
    parser.add_argument("--runs", type=int, default=51, help="rounds of which the median is taken")
    parser.add_argument("--threads", type=int, nargs="+", default=[1], help="of a batch; one stream has one")
    add_output(parser)
    arguments = parser.parse_args(argv)
    check_output(arguments.output)
    rows: list[dict[str, object]] = []
    with torch.no_grad():
        for threads in arguments.threads:
            torch.set_num_threads(threads)
            one_frame = {str(batch): frames(batch, arguments.runs) for batch in BATCHES}
            table(f"streams, {threads} threads" if threads > 1 else "streams", one_frame)
            rows += [
                {"frames": 1, "streams": int(batch), "threads": threads, "seconds": times}
                for batch, times in one_frame.items()
            ]
        torch.set_num_threads(1)
        chunks = {f"{ms} ms": chunk(arguments.model, ms, arguments.runs) for ms in CHUNKS_MS}
    table("chunk", chunks)
    rows += [
        {"chunk": label, "streams": 1, "threads": 1, "seconds": times} for label, times in chunks.items()
    ]
    print(where())
    write_json(arguments.output, "step", what, argv, rows)
    return 0


if __name__ == "__main__":
    run(main)
