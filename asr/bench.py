"""`asr bench`: how fast it is, beside other libraries, in tables and as JSON.

The benchmarks are no part of the package. They are in a clone of the repository, as `benchmarks/`, and each
is also a module of its own: `asr bench step` is `python -m benchmarks.step`.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from asr.errors import UserError

BENCHMARKS = {
    "recurrence": "a recurrent layer against nn.GRU and nn.LSTM, forward and backward",
    "step": "a step of a stream against nn.GRU, torch and ONNX Runtime",
    "end-to-end": "the whole of `asr transcribe`, its stages, and the first words",
    "decoding": "the beam against flashlight-text and pyctcdecode",
    "streams": "many callers of `asr serve` at once",
    "training": "a training step by stages, padding and loading",
    "roofline": "how near recurrence and step are to what the machine can do",
    "gpu": "the recurrence, and a training, against cuDNN on a GPU",
}
CLONE = Path(__file__).resolve().parents[1]


def main(argv: list[str] | None = None) -> int:
    listed = "\n".join(f"  {name:<12}{help}" for name, help in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        prog="asr bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"benchmarks:\n{listed}\n\nasr bench NAME --help tells its options; all have --output FILE.",
    )
    parser.add_argument("name", choices=BENCHMARKS, metavar="NAME")
    parser.add_argument("options", nargs=argparse.REMAINDER, help="of the benchmark")
    args = parser.parse_args(argv)
    module = args.name.replace("-", "_")
    if not (CLONE / "benchmarks" / f"{module}.py").is_file():
        raise UserError(
            "asr bench needs a clone of the repository, since the benchmarks are no part of the package:"
            " pip install --editable CLONE, and run it again"
        )
    if str(CLONE) not in sys.path:
        sys.path.append(str(CLONE))
    return importlib.import_module(f"benchmarks.{module}").main(args.options)
