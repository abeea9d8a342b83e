"""`asr evaluate`: how many words a model gets wrong and how late it is, with intervals, as its users would
meet it.

    asr evaluate --model exp/demo/bundle --cuts data/demo/dev.jsonl.gz --output-dir exp/demo/dev
    asr evaluate --compare exp/first/dev exp/second/dev

Writes to --output-dir: hypotheses.tsv, hypotheses.ctm, results.json, and report.html or report.txt with every
alignment.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from asr.align.ctm import write_ctm
from asr.cli import at_least
from asr.decoding.hotwords import Hotword, check, spellable
from asr.decoding_options import RecogniserOptions, add_options, recogniser_options
from asr.errors import UserError
from asr.evaluation.biasing import read_utterance_phrases
from asr.evaluation.bootstrap import Comparison, Groups
from asr.evaluation.decode import Decoded, Failed, decode, decode_in_processes
from asr.evaluation.page import html_report
from asr.evaluation.recogniser import Alignments, bundle_recogniser
from asr.evaluation.report import people, print_comparison, print_results, text_report
from asr.evaluation.results import (
    HYPOTHESES,
    Results,
    Run,
    compare,
    comparison_json,
    read_hypotheses,
    results_json,
    summarise,
    write_hypotheses,
    write_text,
)
from asr.models import add_model

if TYPE_CHECKING:
    from asr.bundle import Bundle


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    if args.compare:
        a, b = args.compare
        return _compare(a, b, args.output_dir)
    if args.output_dir:
        _make_directory(args.output_dir)  # before the work, not after it
    results, decoded = evaluate(args)
    print_results(results, people(sys.stdout))
    if args.output_dir:
        timed = (write_ctm(each.utterance.utt_id, each.heard.stream.words) for each in decoded)
        write_text(args.output_dir / "hypotheses.ctm", "".join(timed))
        write_results(results, args.output_dir, args.report)
    return _say_failures(results)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="asr evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_model(parser)
    parser.add_argument("--cuts", type=Path, nargs="+", metavar="MANIFEST", help="one or more .jsonl.gz")
    parser.add_argument(
        "--compare",
        type=Path,
        nargs=2,
        metavar=("A", "B"),
        help="two output directories (or hypotheses.tsv) of the same utterances: paired bootstrap test",
    )
    parser.add_argument(
        "--chunk",
        type=at_least(0, float),
        default=320,
        metavar="MS",
        help="milliseconds at a time (320); 0: all at once",
    )
    parser.add_argument(
        "--output-dir", type=Path, metavar="DIR", help="where to write; without it only the tables"
    )
    parser.add_argument("--report", choices=("html", "text"), default="html", help="kind of aligned report")
    parser.add_argument("--limit", type=at_least(1, int), metavar="N", help="only the first N utterances")
    parser.add_argument("--pace", action="store_true", help="hear the audio at the speed of speech")
    parser.add_argument(
        "--alignments", type=Path, metavar="CTM", help="when the words were said (by forced alignment)"
    )
    parser.add_argument(
        "--hotwords-per-utterance", type=Path, metavar="TSV", help="lines of utt_id<TAB>phrase|phrase..."
    )
    parser.add_argument(
        "--unbiased", action="store_true", help="score the hotwords, but do not tell them to the recogniser"
    )
    parser.add_argument("--jobs", type=at_least(1, int), default=1, metavar="N", help="processes (1)")
    add_options(parser)
    args = parser.parse_args(argv)
    if not args.compare and not args.cuts:
        parser.error("give --cuts MANIFEST, or --compare A B")
    if args.pace and not args.chunk:
        parser.error("--pace needs chunks: give --chunk 320")
    return args


def evaluate(args: argparse.Namespace) -> tuple[Results, list[Decoded]]:
    """What `parse` gave -> results and what was heard; progress goes to standard error.

    Raises UserError for wrong options, before the work, and where no utterance can be read.
    """
    from asr.bundle import load_bundle
    from asr.data.manifest import load_cuts

    cuts = load_cuts(args.cuts)
    bundle = load_bundle(args.model)
    options = recogniser_options(args, bundle)
    own = read_utterance_phrases(args.hotwords_per_utterance) if args.hotwords_per_utterance else {}
    _check_phrases(own, args.hotwords_per_utterance, bundle)
    listed = {cut.id: (*own.get(cut.id, ()), *(each.phrase for each in options.hotwords)) for cut in cuts}
    if args.unbiased:
        args.hotwords, args.hotword, own = None, [], {}
    alignments = Alignments(args.alignments) if args.alignments else None
    note = Console(stderr=True, highlight=False, markup=False)
    note.print(f"{args.model}: {bundle.model.describe()}", style="dim", soft_wrap=True)
    number = min(len(cuts), args.limit or len(cuts))
    load = partial(bundle_recogniser, args, own)
    chosen = islice(cuts, number)
    outcomes = decode(chosen, load()) if args.jobs == 1 else decode_in_processes(chosen, load, args.jobs)
    decoded, failed = _collect(_with_progress(outcomes, number, note))
    if not decoded:
        raise UserError(f"none of {number} utterances could be read, the first because: {failed[0].reason}")
    if alignments:
        decoded = [_timed(each, alignments) for each in decoded]
        if all(each.heard.reference is None for each in decoded):
            raise UserError(f"{args.alignments}: has no utterance with its id and words as in the manifests")
    heard = [each.heard for each in decoded]
    run = Run(
        model=str(args.model),
        cuts=tuple(map(str, args.cuts)),
        latency_ms=bundle.model.latency_ms,
        chunk_ms=args.chunk,
        audio_seconds=sum(each.audio_seconds for each in heard),
        decode_seconds=sum(each.seconds for each in heard),
        failed=tuple((each.utt_id, each.reason) for each in failed),
        decoding=_settings(args, options),
        paced=args.pace,
        alignments=str(args.alignments) if args.alignments else None,
    )
    phrases = listed if any(listed.values()) else None
    return summarise([each.utterance for each in decoded], run, heard, phrases), decoded


def _check_phrases(phrases: Mapping[str, Sequence[str]], path: Path, bundle: Bundle) -> None:
    letters, lexicon = spellable(bundle.tokenizer.pieces), bundle.tokenizer.lexicon
    for utt_id, own in phrases.items():
        for phrase in own:
            try:
                check(Hotword(phrase), letters, lexicon)
            except ValueError as error:
                raise UserError(f"{path}: {utt_id}: {error}") from error


def _timed(decoded: Decoded, alignments: Alignments) -> Decoded:
    utterance = decoded.utterance
    reference = alignments.words(utterance.utt_id, utterance.reference)
    return replace(decoded, heard=decoded.heard._replace(reference=reference))


def _settings(args: argparse.Namespace, options: RecogniserOptions) -> dict[str, Any]:
    """All that decides which words come out, as it was after the command line had its say."""
    bundle = options.bundle
    language_model = bundle.language_model
    return {
        **asdict(bundle.decoding),
        "language_model": str(language_model.path) if language_model else None,
        "neural_lm": str(language_model.neural) if language_model and language_model.neural else None,
        "hotwords": 0 if args.unbiased else len(options.hotwords),
        "hotwords_per_utterance": str(args.hotwords_per_utterance) if args.hotwords_per_utterance else None,
        "unbiased": args.unbiased,
        "endpointing": asdict(options.endpointing) if options.endpointing else None,
        "vad": asdict(options.vad) if options.vad else None,
    }


def _with_progress(
    outcomes: Iterable[Decoded | Failed], number: int, console: Console
) -> Iterator[Decoded | Failed]:
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(
        TextColumn("decoding"), *columns, console=console, disable=not console.is_terminal
    ) as progress:
        yield from progress.track(outcomes, total=number)


def _collect(outcomes: Iterable[Decoded | Failed]) -> tuple[list[Decoded], list[Failed]]:
    decoded: list[Decoded] = []
    failed: list[Failed] = []
    for outcome in outcomes:
        if isinstance(outcome, Decoded):
            decoded.append(outcome)
        else:
            failed.append(outcome)
    return decoded, failed


def write_results(results: Results, directory: Path, report: str) -> None:
    """hypotheses.tsv, results.json, and report.html or report.txt, each whole or not at all."""
    write_hypotheses(directory / HYPOTHESES, [score.utterance for score in results.scores])
    write_text(directory / "results.json", results_json(results))
    if report == "html":
        name, content = "report.html", html_report(results, f"Word errors in {directory.name or directory}")
    else:
        name, content = "report.txt", text_report(results)
    write_text(directory / name, content)
    print(f"wrote {HYPOTHESES}, results.json and {name} in {directory}")


def _make_directory(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise UserError(
            f"{directory}: cannot be made a directory ({error.strerror}); give another --output-dir"
        ) from error


def _say_failures(results: Results) -> int:
    failed = results.run.failed if results.run else ()
    for utt_id, reason in failed:
        print(f"asr: error: {utt_id}: {reason}", file=sys.stderr)
    if failed:
        number = len(results.scores) + len(failed)
        print(f"asr: {len(failed)} of {number} utterances failed and are not counted", file=sys.stderr)
    return 1 if failed else 0


def _compare(a: Path, b: Path, output_dir: Path | None) -> int:
    found: tuple[Comparison, Comparison, Groups] = compare(read_hypotheses(a), read_hypotheses(b))
    print(f"A = {a}\nB = {b}")
    print_comparison(*found, people(sys.stdout))
    if output_dir:
        _make_directory(output_dir)
        write_text(output_dir / "comparison.json", comparison_json(*found))
    return 0
