"""Decoders beside each other on the same log-probabilities: ours, flashlight-text's, pyctcdecode's.

    python -m benchmarks.emissions --model BUNDLE --cuts data/dev-clean.jsonl.gz --output exp/dev.npz
    python -m benchmarks.decoding --emissions exp/dev.npz [--lm exp/lm.arpa] [--output FILE]

A peer that cannot be imported is left out with a line that says so. pyctcdecode needs numpy 1, so the peers
live in an environment of their own, in which ours runs too, since it needs neither torch nor the installed
package:

    python3.11 -m venv peers
    peers/bin/pip install 'numpy<2' sentencepiece jiwer rich pyctcdecode flashlight-text kenlm
    PYTHONPATH=. peers/bin/python -m benchmarks.decoding --emissions exp/dev.npz --lm exp/lm.arpa

Time is CPU time of the process, in milliseconds for a second of audio; every utterance is decoded by all
decoders in turn, and the median of the rounds is taken. All have the same beam, tokens a frame, thresholds,
and weights of the language model (natural logarithms) where they have such a setting. What cannot be made
equal: flashlight's lexicon decoder knows one spelling of each word and no other word, and a word's last
token cannot be repeated in it; its lexicon-free decoder knows no words, and so no language model of words;
pyctcdecode scores a word by the language model when it has ended, and adds the scores of equal texts only
between words that have ended.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import math
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from asr.cli import at_least, run
from asr.decoding.beam import BeamDecoder
from asr.decoding.config import DecodingConfig
from asr.decoding.greedy import GreedyDecoder
from asr.decoding.hotwords import Hotword
from asr.decoding.language_model import LanguageModel
from asr.decoding.spelling import Spelling
from asr.decoding.types import Decoder
from asr.evaluation import bootstrap
from asr.evaluation.wer import Utterance, score
from asr.text import BLANK, WORD_START, Tokenizer
from benchmarks.common import add_output, check_output, where, write_json
from benchmarks.emissions import Emissions, Spoken, add_settings, chosen_settings, read_emissions

LIVE = 0.32  # seconds of audio a chunk
HOTWORDS = 100
Decode = Callable[[Spoken], str]
Contenders = dict[str, Decode]


@dataclass(frozen=True)
class Figures:
    """Milliseconds of CPU for a second of audio: the median round, and all of them; WER is a fraction."""

    milliseconds: float
    rounds: tuple[float, ...]
    wer: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Setting:
    """What all decoders are given."""

    emissions: Emissions
    config: DecodingConfig
    lm: Path | None  # ARPA
    hotwords: tuple[str, ...]

    @property
    def pieces(self) -> tuple[str, ...]:
        return self.emissions.pieces


# Ours


def ours(setting: Setting) -> Contenders:
    pieces, config = setting.pieces, setting.config
    hotwords = [Hotword(word) for word in setting.hotwords]
    frames = max(1, round(LIVE / setting.emissions.frame_seconds))
    found: Contenders = {"asr, greedy": whole(GreedyDecoder(pieces))}
    found["asr, beam"] = whole(BeamDecoder(pieces, config))
    listed = f"{len(hotwords)} hotwords"
    if setting.lm is None:
        found[f"asr, beam, {listed}"] = whole(BeamDecoder(pieces, config, None, hotwords))
        return found
    model = LanguageModel.open(setting.lm)
    found["asr, beam, LM"] = whole(BeamDecoder(pieces, config, model))
    found[f"asr, beam, LM, {listed}"] = whole(BeamDecoder(pieces, config, model, hotwords))
    found[f"asr, beam, LM, {listed}, live"] = live(BeamDecoder(pieces, config, model, hotwords), frames)
    return found


def whole(decoder: Decoder) -> Decode:
    """An utterance at once."""

    def decode(spoken: Spoken) -> str:
        decoder.reset()
        decoder.accept(spoken.log_probs)
        decoder.flush()
        return " ".join(word.text for word in decoder.take())

    return decode


def live(decoder: Decoder, frames: int) -> Decode:
    """In chunks, with what a caption shows after each."""

    def decode(spoken: Spoken) -> str:
        decoder.reset()
        words = []
        for start in range(0, len(spoken.log_probs), frames):
            decoder.accept(spoken.log_probs[start : start + frames])
            words += decoder.take()
            decoder.tentative()
        decoder.flush()
        return " ".join(word.text for word in words + decoder.take())

    return decode


# Peers


def flashlight(setting: Setting) -> Contenders:
    from flashlight.lib.text.decoder import (
        CriterionType,
        LexiconFreeDecoder,
        LexiconFreeDecoderOptions,
        ZeroLM,
    )

    config, spelling = setting.config, Spelling(setting.pieces)
    options = LexiconFreeDecoderOptions(
        config.beam, config.tokens, config.threshold, 0.0, 0.0, True, CriterionType.CTC
    )
    zero = ZeroLM()  # the decoder keeps no reference of its own
    decoder = LexiconFreeDecoder(options, zero, silence(setting.pieces), BLANK, [])

    def decode(spoken: Spoken, _kept: Any = zero) -> str:
        best = decoder.decode(spoken.log_probs.ctypes.data, *spoken.log_probs.shape)[0]
        tokens = [token for token, _ in groupby(best.tokens) if token not in (BLANK, -1)]
        return spelling.text(tokens)

    found: Contenders = {"flashlight, lexicon-free": decode}
    if setting.lm is not None:
        found["flashlight, lexicon, LM"] = flashlight_lexicon(setting, setting.lm)
    return found


def flashlight_lexicon(setting: Setting, arpa: Path) -> Decode:
    from flashlight.lib.text.decoder import (
        CriterionType,
        LexiconDecoder,
        LexiconDecoderOptions,
        SmearingMode,
        Trie,
    )
    from flashlight.lib.text.decoder.kenlm import KenLM
    from flashlight.lib.text.dictionary import Dictionary

    config, tokenizer = setting.config, Tokenizer(setting.emissions.tokenizer)
    dictionary = Dictionary()
    words = arpa_words(arpa)
    for word in [*words, "<unk>"]:
        dictionary.add_entry(word)
    dictionary.set_default_index(dictionary.get_index("<unk>"))
    model = KenLM(str(arpa), dictionary)
    quiet = silence(setting.pieces)
    trie = Trie(len(setting.pieces), quiet)
    start = model.start(False)
    for word in words:
        tokens = tokenizer.encode(word)
        if 1 not in tokens:  # else there is a letter that the tokenizer does not have
            index = dictionary.get_index(word)
            trie.insert(tokens, index, model.score(start, index)[1])
    trie.smear(SmearingMode.MAX)
    options = LexiconDecoderOptions(
        config.beam,
        config.tokens,
        config.threshold,
        config.lm_weight * math.log(10),  # KenLM's scores are decimal logarithms
        config.word_bonus,
        -math.inf,
        0.0,
        True,
        CriterionType.CTC,
    )
    unknown = dictionary.get_index("<unk>")
    decoder = LexiconDecoder(options, trie, model, quiet, BLANK, unknown, [], False)

    def decode(spoken: Spoken, _kept: Any = (trie, model, dictionary)) -> str:
        best = decoder.decode(spoken.log_probs.ctypes.data, *spoken.log_probs.shape)[0]
        return " ".join(dictionary.get_entry(word) for word in best.words if word >= 0)

    return decode


def silence(pieces: Sequence[str]) -> int:
    """flashlight's token between words: the bare mark of a word's start, where the tokenizer has it."""
    return pieces.index(WORD_START) if WORD_START in pieces else BLANK


def pyctcdecode(setting: Setting) -> Contenders:
    from pyctcdecode import build_ctcdecoder

    config = setting.config
    labels = ["", *setting.pieces[1:]]

    def decode_with(decoder: Any, **more: Any) -> Decode:
        return lambda spoken: decoder.decode(
            spoken.log_probs,
            beam_width=config.beam,
            beam_prune_logp=-config.threshold,
            token_min_logp=-config.token_threshold,
            **more,
        )

    found = {"pyctcdecode": decode_with(build_ctcdecoder(labels))}
    if setting.lm is not None:
        decoder = build_ctcdecoder(
            labels,
            str(setting.lm),
            unigrams=arpa_words(setting.lm),
            alpha=config.lm_weight,
            beta=config.word_bonus,
            unk_score_offset=config.unknown_penalty / (config.lm_weight * math.log(10)),  # it is weighed too
        )
        found["pyctcdecode, LM"] = decode_with(decoder)
        listed = f"{len(setting.hotwords)} hotwords"
        found[f"pyctcdecode, LM, {listed}"] = decode_with(decoder, hotwords=list(setting.hotwords))
    return found


PEERS = {  # module to import -> contenders
    "flashlight.lib.text.decoder": (flashlight, "flashlight-text"),
    "pyctcdecode": (pyctcdecode, "pyctcdecode kenlm 'numpy<2'"),
}


def arpa_words(path: Path) -> list[str]:
    """The words of an ARPA file's unigrams, without <s>, </s> and <unk>."""
    opener: Any = gzip.open if path.suffix == ".gz" else open
    words = []
    with opener(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            if line.strip() == "\\1-grams:":
                break
        for line in lines:
            fields = line.split()
            if not fields or fields[0].startswith("\\"):
                break
            words.append(fields[1])
    return [word for word in words if word not in ("<s>", "</s>", "<unk>", "<UNK>")]


# Measuring


def contenders(setting: Setting) -> Iterator[tuple[str, Decode]]:
    yield from ours(setting).items()
    for module, (make, packages) in PEERS.items():
        if importlib.util.find_spec(module.split(".")[0]) is None:
            print(f"{module.split('.')[0]} is left out: pip install {packages}")
        else:
            yield from make(setting).items()


def measure(decoders: Contenders, utterances: Sequence[Spoken], rounds: int) -> dict[str, Figures]:
    """Every utterance through all decoders in turn, `rounds` times, after a short one to warm up."""
    for decode in decoders.values():
        decode(utterances[0])
    times = {name: [0.0] * rounds for name in decoders}
    texts: dict[str, list[str]] = {name: [] for name in decoders}
    for number in range(rounds):
        for spoken in utterances:
            for name, decode in decoders.items():
                start = time.process_time()
                text = decode(spoken)
                times[name][number] += time.process_time() - start
                if number == 0:
                    texts[name].append(text)
    seconds = sum(spoken.seconds for spoken in utterances)
    return {
        name: figures([1000 * each / seconds for each in times[name]], utterances, texts[name])
        for name in decoders
    }


def figures(milliseconds: Sequence[float], utterances: Sequence[Spoken], texts: Sequence[str]) -> Figures:
    scores = score(
        [
            Utterance(spoken.utt_id, spoken.speaker, spoken.reference, text)
            for spoken, text in zip(utterances, texts, strict=True)
        ]
    )
    errors, lengths = [each.words.errors for each in scores], [each.words.length for each in scores]
    groups = bootstrap.groups([spoken.speaker for spoken in utterances])
    interval = bootstrap.confidence_interval(errors, lengths, groups)
    low, high = (interval.low, interval.high) if interval else (math.nan, math.nan)
    return Figures(
        statistics.median(milliseconds), tuple(milliseconds), sum(errors) / sum(lengths), (low, high)
    )


def choose_hotwords(utterances: Sequence[Spoken], count: int) -> tuple[str, ...]:
    """Words of at least six letters that the references hold once: what somebody might list."""
    counts = Counter(word for spoken in utterances for word in spoken.reference.split())
    once = sorted(word for word, number in counts.items() if number == 1 and len(word) >= 6)
    return tuple(sorted(random.Random(0).sample(once, min(count, len(once)))))


def table(results: dict[str, Figures], against: str) -> str:
    unit = results[against].milliseconds
    lines = [
        f"| decoder | ms a second of audio | as times `{against}` | WER | 95 % interval |",
        "|---|---|---|---|---|",
    ]
    for name, each in results.items():
        low, high = each.interval
        lines.append(
            f"| {name} | {each.milliseconds:.2f} | {each.milliseconds / unit:.1f}"
            f" | {100 * each.wer:.1f} % | {100 * low:.1f} - {100 * high:.1f} |"
        )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="benchmarks.decoding", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_settings(parser)
    parser.add_argument("--lm", type=Path, metavar="ARPA", help="of words; asr lm --arpa writes one")
    parser.add_argument("--utterances", type=at_least(1, int), default=100, help="spread evenly over the set")
    parser.add_argument("--rounds", type=at_least(1, int), default=3, help="of which the median is taken")
    add_output(parser)
    args = parser.parse_args(argv)
    check_output(args.output)
    emissions = read_emissions(args.emissions, args.utterances)
    config = chosen_settings(args, emissions.decoding)
    setting = Setting(emissions, config, args.lm, choose_hotwords(emissions.utterances, HOTWORDS))
    results = measure(dict(contenders(setting)), emissions.utterances, args.rounds)
    print(
        f"{len(emissions.utterances)} utterances, {emissions.seconds:.0f} s in frames of"
        f" {1000 * emissions.frame_seconds:.0f} ms, {len(emissions.pieces)} tokens; beam {config.beam};"
        f" {args.rounds} rounds; {where()}\n"
    )
    print(table(results, "asr, beam, LM" if args.lm else "asr, beam"))
    rows = [{"decoder": name, **asdict(each)} for name, each in results.items()]
    what = "decoders on the same log-probabilities"
    more = {"origin": emissions.origin, "config": asdict(config), "lm": str(args.lm)}
    write_json(args.output, "decoding", what, argv, rows, **more)
    return 0


if __name__ == "__main__":
    run(main)
