"""`asr serve`: one model for many callers, on one port: the page at /, websockets, and an HTTP interface.

Native, Vosk's, OpenAI's and Wyoming's protocols are shown in docs/serving.md. Logs are JSON lines on standard
error. It listens to this computer alone, until --host says otherwise; then it wants a --token.

SIGTERM or Ctrl-C ends it: new clients are turned away, the others get what they have said as text.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import re
from pathlib import Path

import torch

from asr.bundle import load_bundle
from asr.cli import at_least
from asr.decoding_options import add_options, recogniser_options
from asr.errors import UserError
from asr.models import add_model
from asr.packed import Packing
from asr.serving import logs
from asr.serving.config import BatcherConfig, ServeConfig

PACKING: Packing = "int8"  # its sums are exact: in a batch with others a stream says the same as alone


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    token = read_token(args)
    for host in (args.host, args.wyoming_host):
        guarded = token is not None and host == args.host  # Wyoming knows no tokens
        if not (guarded or args.no_token or is_loopback(host)):
            raise UserError(
                f"{host}: other computers reach it, and anybody could use this server: "
                + ("give --token" if host == args.host else "it takes no token; put it behind a firewall")
                + ", or say --no-token"
            )
    if (args.tls_cert is None) != (args.tls_key is None):
        raise UserError("TLS needs both: --tls-cert FILE and --tls-key FILE")
    try:
        from asr.serving import run
    except ModuleNotFoundError as error:
        raise UserError(f"the server needs {error.name}: pip install 'asr[serve]'") from None
    logs.set_up(args.log_level)
    torch.set_num_threads(args.threads)
    bundle, chunk_ms, hotwords, endpointing, vad = recogniser_options(args, load_bundle(args.model), PACKING)
    config = ServeConfig(
        model=args.name or Path(args.model).resolve().name,
        language=args.language,
        token=token,
        max_message=args.max_message << 10,
        max_upload=args.max_upload << 20,
        session=60 * args.max_minutes,
        idle=args.idle,
        streams_per_client=args.streams_per_client,
        grace=args.grace,
        endpointing=endpointing,
        vad=vad,
        batcher=BatcherConfig(chunk_ms, hotwords=hotwords, max_streams=args.max_streams),
    )
    tls = run.Tls(args.tls_cert, args.tls_key) if args.tls_cert else None
    home = run.Address(args.wyoming_host, args.wyoming_port) if args.wyoming_port else None
    asyncio.run(run.serve(bundle, config, run.Address(args.host, args.port), tls, home))
    return 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="asr serve", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    count, number, batching, serving = at_least(1, int), at_least(0, float), BatcherConfig(), ServeConfig()
    add_model(parser)
    parser.add_argument("--name", help="of the model, for its clients (the folder's)")
    parser.add_argument("--language", default=serving.language, metavar="CODE", help="of the model (en)")
    parser.add_argument(
        "--threads", type=count, default=1, help="for the model (1; one core is left for the connections)"
    )
    parser.add_argument(
        "--chunk",
        type=number,
        default=batching.chunk_ms,
        metavar="MS",
        help=f"audio of a stream that is computed at once ({batching.chunk_ms:g})",
    )
    parser.add_argument("--log-level", choices=("debug", "info", "warning"), default="info")
    network = parser.add_argument_group("network")
    network.add_argument("--host", default="127.0.0.1", help="the address to listen to (127.0.0.1)")
    network.add_argument("--port", type=at_least(0, int), default=8000, help="(8000)")
    secrets = network.add_mutually_exclusive_group()
    secrets.add_argument("--token", help="what clients have to show; programs beside this one can see it, so")
    secrets.add_argument("--token-file", type=Path, metavar="FILE", help="rather its first line")
    secrets.add_argument("--no-token", action="store_true", help="let anybody in, from other computers too")
    network.add_argument("--tls-cert", type=Path, metavar="FILE", help="PEM, with the whole chain")
    network.add_argument("--tls-key", type=Path, metavar="FILE", help="PEM")
    network.add_argument("--wyoming-port", type=count, metavar="PORT", help="for Home Assistant (off)")
    network.add_argument("--wyoming-host", default="127.0.0.1", metavar="HOST", help="(127.0.0.1)")
    limits = parser.add_argument_group("limits")
    for option, kind, default, text in (
        ("--max-streams", count, batching.max_streams, "at once; fewer, if the machine cannot carry so many"),
        ("--streams-per-client", count, serving.streams_per_client, "at once, from one address"),
        ("--max-message", count, serving.max_message >> 10, "KiB of a websocket's message"),
        ("--max-upload", count, serving.max_upload >> 20, "MiB of a recording that is sent at once"),
        ("--max-minutes", number, serving.session / 60, "of a session"),
        ("--idle", number, serving.idle, "seconds without a message after which a client has left"),
        ("--grace", number, serving.grace, "seconds that clients have left when the server ends"),
    ):
        limits.add_argument(option, type=kind, default=default, metavar="N", help=f"{text} ({default:g})")
    add_options(parser)
    return parser.parse_args(argv)


def read_token(args: argparse.Namespace) -> str | None:
    """Raises UserError for one that no header and no subprotocol can hold."""
    token = args.token
    if args.token_file:
        try:
            token = args.token_file.read_text(encoding="utf-8").partition("\n")[0].strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"{args.token_file}: cannot be read ({error}): write the token into it"
            ) from error
    if token is not None and not re.fullmatch(r"[A-Za-z0-9._~-]{8,}", token):
        raise UserError(
            "the token has to be 8 or more of A-Z, a-z, 0-9, . _ ~ and -: make one with openssl rand -hex 16"
        )
    return token


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
