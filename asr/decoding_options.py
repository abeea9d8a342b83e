"""Options of decoding that commands share: what a bundle says, the command line can overrule."""

from __future__ import annotations

import argparse
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from asr.bundle import Bundle, open_language_model
from asr.cli import at_least
from asr.decoding.config import DecodingConfig
from asr.decoding.hotwords import Hotword, check_hotwords, read_hotwords
from asr.endpoint import EndpointConfig
from asr.errors import UserError
from asr.ops import cpu
from asr.packed import PACKINGS, Packed, Packing, can_pack
from asr.text import normalise
from asr.vad import VadConfig

if TYPE_CHECKING:
    from asr.decoding.language_model import LanguageModel


class RecogniserOptions(NamedTuple):
    """The arguments of StreamingRecognizer: `StreamingRecognizer(*recogniser_options(args, bundle))`."""

    bundle: Bundle
    chunk_ms: float
    hotwords: tuple[Hotword, ...]
    endpointing: EndpointConfig | None
    vad: VadConfig | None


def add_options(parser: argparse.ArgumentParser) -> None:
    decoding = parser.add_argument_group("decoding", "what is not given is as the bundle has it")
    number, count = at_least(0, float), at_least(1, int)
    decoding.add_argument(
        "--beam", type=count, metavar="N", help="hypotheses kept; 1: the best path, without model or hotwords"
    )
    decoding.add_argument(
        "--lm",
        metavar="FILE",
        help="language model: of `asr lm`, ARPA or KenLM; none: not the bundle's",
    )
    decoding.add_argument(
        "--neural-lm",
        metavar="FILE",
        help="of `asr neural-lm`, mixed with the language model; none: not the bundle's",
    )
    decoding.add_argument("--lm-weight", type=number, metavar="W", help="of the language model's scores")
    decoding.add_argument("--word-bonus", type=float, metavar="NATS", help="for every word")
    decoding.add_argument(
        "--hotwords", type=Path, metavar="FILE", help="a phrase a line, a boost after a tab"
    )
    decoding.add_argument(
        "--hotword", action="append", default=[], metavar="PHRASE", help="one phrase; can be given repeatedly"
    )
    decoding.add_argument("--hotword-boost", type=number, metavar="NATS", help="for each of its letters")
    decoding.add_argument(
        "--stable-frames",
        type=at_least(0, int),
        metavar="N",
        help="show a partial word once it stood for N frames",
    )
    decoding.add_argument(
        "--packing",
        choices=("torch", *PACKINGS),
        help="weights in C, or layers in torch (f32, of a server int8)",
    )
    segments = parser.add_argument_group("segments", "in seconds; 0 turns a rule off")
    for rule, text in (
        ("silence", "so much silence after words ends a segment"),
        ("no_speech", "so much silence without words is an endpoint"),
        ("max_length", "the longest segment; it ends between words"),
    ):
        default = getattr(EndpointConfig(), rule)
        option = f"--endpoint-{rule.replace('_', '-')}"
        segments.add_argument(
            option, type=number, default=default, metavar="SECONDS", help=f"{text} ({default:g})"
        )
    segments.add_argument(
        "--vad", choices=("on", "off"), default="on", help="on: words only where there is speech (on)"
    )


def recogniser_options(
    args: argparse.Namespace, bundle: Bundle, packing: Packing = "f32"
) -> RecogniserOptions:
    """Of the options of `add_options`, and `--chunk`. Raises UserError for what does not go together.

    packing: of the bundle's model, where the options say nothing, there is a C library, and it can be packed.
    """
    given = {field.name: getattr(args, field.name, None) for field in fields(DecodingConfig)}
    decoding = replace(bundle.decoding, **{name: value for name, value in given.items() if value is not None})
    bundle = replace(bundle, decoding=decoding)
    language_model = choose_language_model(bundle, args.lm, args.neural_lm)
    hotwords = tuple(Hotword(normalise(phrase)) for phrase in args.hotword)
    pieces, lexicon = bundle.tokenizer.pieces, bundle.tokenizer.lexicon
    check_hotwords(hotwords, pieces, lexicon)
    if args.hotwords:
        hotwords += read_hotwords(args.hotwords, pieces, lexicon)
    rules = [args.endpoint_silence, args.endpoint_no_speech, args.endpoint_max_length]
    endpointing = EndpointConfig(*(seconds or None for seconds in rules)) if any(rules) else None
    vad = VadConfig() if args.vad == "on" else None
    usual = cpu.is_available() and can_pack(bundle.model.config.encoder)
    if args.packing != "torch" and (args.packing or usual):
        bundle.model.packed = Packed(bundle.model, args.packing or packing)
    return RecogniserOptions(
        replace(bundle, language_model=language_model), args.chunk, hotwords, endpointing, vad
    )


def choose_language_model(bundle: Bundle, lm: str | None, neural_lm: str | None) -> LanguageModel | None:
    """The bundle's, or that of the options --lm and --neural-lm. Another one of n-grams is not mixed with the
    bundle's neural one. Raises UserError."""
    own = bundle.language_model
    if bundle.decoding.beam == 1 and lm not in (None, "none"):
        raise UserError("--lm needs alternatives to choose from: give --beam 8 too")
    if lm is None and neural_lm is None:
        return own
    if lm == "none" or (lm is None and own is None):
        if neural_lm not in (None, "none"):
            raise UserError("--neural-lm needs a language model to be mixed with: give --lm FILE too")
        return None
    path = lm if lm is not None else own.path  # type: ignore[union-attr]
    model = open_language_model(path, None if neural_lm == "none" else neural_lm)
    if bundle.tokenizer.lexicon is None:
        model.check_alphabet(bundle.tokenizer.pieces)
    return model
