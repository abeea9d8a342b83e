"""The packed encoder on the CPU against torch and ONNX Runtime: `python -m benchmarks.step [--json FILE]`.

    pip install onnx onnxruntime  # or leave that column away

Two tables. The first is one frame of B streams through five MGU layers of 512 units, and through a
five-layer nn.GRU of as many: with 16 mel bands and 8 tokens, what else the encoder computes is next to
nothing, and counts against us. The second is a chunk of one stream through the whole encoder of a bundle:
torch's path, and that path exported to ONNX for just this length, its matrix products in int8 (dynamic
quantisation).

A figure is a ratio of medians of interleaved runs, so that above 1 is faster than the first column. At its
turn each is called a few times; the first call, which brings its weights back into the cache, is not counted.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from asr.bundle import load_bundle
from asr.encoder import EncoderConfig, EncoderState
from asr.frontend import FrontEndConfig
from asr.model import CtcModel, ModelConfig
from asr.models import add_model
from asr.packed import PACKINGS, Packed
from asr.state import leaves, with_leaves

LAYERS, SIZE = 5, 512
BATCHES = [1, 8, 32, 64]
CHUNKS_MS = [40, 160, 320]
ONNX = "ONNX int8"
CALLS = 4  # at a turn

Times = dict[str, float]  # contender -> median seconds


def measure(contenders: dict[str, Callable[[], object]], runs: int) -> Times:
    """Medians of `runs` rounds, in which the contenders take turns."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(runs):
        for name, contender in contenders.items():
            contender()
            start = time.perf_counter()
            for _ in range(CALLS):
                contender()
            times[name].append((time.perf_counter() - start) / CALLS)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def frames(batch: int, runs: int) -> Times:
    """One frame of `batch` streams, nn.GRU first."""
    gru = nn.GRU(SIZE, SIZE, LAYERS, batch_first=True).eval()
    inputs, hidden = torch.randn(batch, 1, SIZE), torch.zeros(LAYERS, batch, SIZE)
    encoder = EncoderConfig((8,), width=SIZE, hidden=SIZE, lookahead=(0,) * LAYERS)
    model = CtcModel(ModelConfig(8, FrontEndConfig(mels=16), encoder)).eval()
    features, state = torch.randn(batch, 2, 16), model.encoder.initial_state(batch)
    contenders: dict[str, Callable[[], object]] = {"nn.GRU": partial(gru, inputs, hidden)}
    for packing in PACKINGS:
        contenders[packing] = partial(Packed(model, packing), features, state)
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


def onnx_session(bundle: str, features: Tensor, threads: int) -> Callable[[], object]:
    """ONNX Runtime's int8 for chunks as long as `features`: the loop over time is unrolled."""
    import onnxruntime
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = load_bundle(bundle, backend="reference").model  # of operations that ONNX has
    state = leaves(model.encoder.initial_state(1))
    torch.onnx.register_custom_op_symbolic("aten::rms_norm", rms_norm, 17)
    with tempfile.TemporaryDirectory() as directory, torch.no_grad():
        exact, rounded = f"{directory}/exact.onnx", f"{directory}/int8.onnx"
        torch.onnx.export(Flat(model), (features, *state), exact, dynamo=False, opset_version=17)
        # with the convolutions in int8 too it is slower
        quantize_dynamic(exact, rounded, op_types_to_quantize=["MatMul"], weight_type=QuantType.QInt8)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(rounded, options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    feed = {name: tensor.numpy() for name, tensor in zip(names, (features, *state), strict=True)}
    return partial(session.run, None, feed)


def chunk(bundle: str, milliseconds: float, threads: int, runs: int) -> Times:
    """A chunk of one stream, torch's path first."""
    model = load_bundle(bundle).model
    frontend = model.config.frontend
    length = round(milliseconds * frontend.rate / 1000 / model.step_samples) * model.encoder.subsampling
    features, state = torch.randn(1, length, frontend.mels), model.encoder.initial_state(1)
    contenders: dict[str, Callable[[], object]] = {"torch": partial(run_torch, model, features, state)}
    if find_spec("onnx") and find_spec("onnxruntime"):
        contenders[ONNX] = onnx_session(bundle, features.clone(), threads)
    for packing in PACKINGS:
        contenders[packing] = partial(Packed(model, packing), features, state)
    return measure(contenders, runs)


def row(label: object, times: Times) -> str:
    peer, *others = times
    cells = [f"{times[peer] / times[name]:.1f} ({1e3 * times[name]:.2f} ms)" for name in others]
    return f"| {label} | {1e3 * times[peer]:.2f} ms | {' | '.join(cells)} |"


def table(first: str, rows: dict[str, Times]) -> None:
    names = list(next(iter(rows.values())))
    print(f"\n| {first} | {' | '.join(names)} |\n{'|---' * (len(names) + 1)}|")
    for label, times in rows.items():
        print(row(label, times), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="the packed encoder against torch and ONNX Runtime, on the CPU"
    )
    add_model(parser)
    parser.add_argument("--runs", type=int, default=51, help="rounds of which the median is taken")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="file for the seconds")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with torch.no_grad():
        one_frame = {str(batch): frames(batch, arguments.runs) for batch in BATCHES}
        table("streams", one_frame)
        chunks = {
            f"{ms} ms": chunk(arguments.model, ms, arguments.threads, arguments.runs) for ms in CHUNKS_MS
        }
        table("chunk", chunks)
    if arguments.json:
        about = {"machine": platform.processor() or platform.machine(), "torch": torch.__version__}
        results = {"threads": arguments.threads, "streams": one_frame, "chunks": chunks}
        arguments.json.write_text(json.dumps({**about, **results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
