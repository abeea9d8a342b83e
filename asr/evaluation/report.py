"""Results for people: tables on the terminal, and a plain-text report of every alignment."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TextIO

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from asr.evaluation.bootstrap import RESAMPLES, Comparison, Groups, Interval, Percentiles
from asr.evaluation.confidence import Calibration
from asr.evaluation.latency import Latency, Rate
from asr.evaluation.results import ListedWords, Results, Run, SpeakerScore
from asr.evaluation.wer import Counts, Edit, Score, frequent

_LETTER = {"equal": "", "substitute": "S", "delete": "D", "insert": "I"}
_WIDTH = 110


def people(stream: TextIO) -> Console:
    """A console that shows texts as they are: no markup, no colours for numbers; wide when piped."""
    width = None if stream.isatty() else 200
    return Console(file=stream, markup=False, highlight=False, emoji=False, width=width)


def percent(rate: float) -> str:
    return f"{100 * rate:.2f} %" if math.isfinite(rate) else "-"


def interval_text(interval: Interval | None) -> str:
    return f"{100 * interval.low:.2f} - {100 * interval.high:.2f} %" if interval else "-"


def resampled_text(groups: Groups) -> str:
    return f"95 % intervals: bootstrap over {groups.number} {groups.unit}, {RESAMPLES} resamples"


def run_lines(run: Run) -> list[str]:
    """What was run, on how much audio, how fast and with what latency."""
    chunk = f"{run.chunk_ms:g} ms chunks" if run.chunk_ms else "whole files at once"
    hours = run.audio_seconds / 3600
    amount = f"{hours:.2f} h" if hours >= 0.1 else f"{run.audio_seconds:.1f} s"
    return [
        f"model {run.model}: algorithmic latency {run.latency_ms:g} ms, decoded in {chunk}"
        + (", in real time" if run.paced else ""),
        *([f"decoding: {_settings(run.decoding)}"] if run.decoding else []),
        f"{amount} of audio, real-time factor {run.real_time_factor:.4f} "
        f"({run.decode_seconds:.1f} s of decoding, one thread a stream)",
    ]


def _settings(decoding: Mapping[str, Any]) -> str:
    """The ones that matter most; results.json has all."""
    names = ["beam"]
    if decoding["language_model"]:
        names += ["language_model", "neural_lm", "lm_weight"]
    if decoding["hotwords"] or decoding["hotwords_per_utterance"]:
        names += ["hotwords", "hotwords_per_utterance", "hotword_boost", "unbiased"]
    names += ["stable_frames"]
    shown = [
        (name.replace("_", " "), decoding[name]) for name in names if decoding.get(name) or name == "beam"
    ]
    return ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else name if value is True else f"{name} {value}"
        for name, value in shown
    )


LATENCY_HEADS = ("seconds", "p50", "p90", "p99", "measured")


def latency_rows(found: Latency) -> list[list[str]]:
    """Name, percentiles with their intervals, and of how many utterances or words."""
    rows = [
        ("first partial after the first word begins", found.first_partial, "utterances"),
        ("word shown after its end", found.emission, "words"),
        ("word committed after its end", found.commit, "words"),
        ("final text after the last sample", found.final, "utterances"),
    ]
    return [[name, *_percentile_cells(value, unit)] for name, value, unit in rows]


def _percentile_cells(found: Percentiles | None, unit: str) -> list[str]:
    if found is None:
        return ["-", "-", "-", f"0 {unit}"]
    pairs = zip(found.values, found.intervals, strict=True)
    return [f"{value:.2f} ({own.low:.2f} - {own.high:.2f})" for value, own in pairs] + [
        f"{found.count} {unit}"
    ]


def latency_lines(found: Latency, run: Run) -> list[str]:
    """Stability and times of words, and what all of it was measured against."""
    source = run.alignments or "forced alignment with the same model"
    aligned = (
        f"{found.aligned} of {found.utterances} utterances" if found.aligned < found.utterances else "all"
    )
    return [
        f"revisions a word {_rate_text(found.revisions)}, of which {_rate_text(found.grown)} only grew",
        f"word times, mean absolute error: start {_rate_text(found.start_error, ' s')},"
        f" end {_rate_text(found.end_error, ' s')}",
        f"reference times: {source} ({aligned})",
    ]


def _rate_text(found: Rate | None, unit: str = "") -> str:
    if found is None:
        return "-"
    interval = f" ({found.interval.low:.3f} - {found.interval.high:.3f})" if found.interval else ""
    return f"{found.value:.3f}{unit}{interval}"


def confidence_line(found: Calibration) -> str:
    ranking = f"{found.ranking:.3f}" if found.ranking is not None else "-"
    return (
        f"confidence: {found.confidence:.3f} on average where {found.correct:.3f} of {found.words} words are"
        f" right; calibration error {found.error:.3f}, likelihood {found.likelihood:.3f} nats, AUC {ranking}"
    )


LISTED_HEADS = (
    "hotwords",
    "rate",
    "95 % interval",
    "substituted",
    "deleted",
    "inserted",
    "errors",
    "reference",
)


def listed_rows(listed: ListedWords) -> list[list[str]]:
    return [
        ["listed words (B-WER)", *rate_cells(listed.counts.listed, listed.listed_interval)],
        ["other words (U-WER)", *rate_cells(listed.counts.others, listed.others_interval)],
    ]


def listed_line(listed: ListedWords) -> str:
    recall, precision = (
        percent(value) if value is not None else "-"
        for value in (listed.counts.recall, listed.counts.precision)
    )
    wrong = listed.counts.claimed - listed.counts.listed.hits
    return (
        f"listed words: recall {recall} ({interval_text(listed.recall_interval)}), precision {precision},"
        f" recognised where they were not said: {wrong}"
    )


def detail_lines(results: Results) -> list[str]:
    """What stands below the tables of rates and delays."""
    return [
        *(latency_lines(results.latency, results.run) if results.latency and results.run else []),
        *([confidence_line(results.confidence)] if results.confidence else []),
        *([listed_line(results.listed)] if results.listed else []),
    ]


def print_results(results: Results, console: Console, most: int = 10) -> None:
    """Tables of at most `most` speakers and confusions; everything is in the report and in results.json."""
    for line in run_lines(results.run) if results.run else []:
        console.print(line)
    console.print(_rate_table(results))
    console.print(f"{len(results.scores)} utterances; {resampled_text(results.groups)}")
    if results.latency:
        print_rows(LATENCY_HEADS, latency_rows(results.latency), console)
    if results.listed:
        print_rows(LISTED_HEADS, listed_rows(results.listed), console)
    for line in detail_lines(results):
        console.print(line)
    speakers = results.speakers
    if len(speakers) > 1:
        console.print(_speaker_table(speakers[:most]))
        if len(speakers) > most:
            console.print(f"... the {most} worst of {len(speakers)} speakers")
    if results.words.errors:
        console.print(_frequent_table(results.scores, most))


def print_comparison(words: Comparison, characters: Comparison, groups: Groups, console: Console) -> None:
    """A against B, and in a sentence what may be concluded."""
    table = _table("", "A", "B", "B - A", "95 % interval", "B is better with probability")
    for name, each in (("WER", words), ("CER", characters)):
        interval = f"{100 * each.interval.low:+.2f} to {100 * each.interval.high:+.2f}"
        better = percent(each.probability_of_improvement)
        table.add_row(
            name,
            percent(each.rate_a),
            percent(each.rate_b),
            f"{100 * each.difference:+.2f}",
            interval,
            better,
        )
    console.print(table)
    console.print(verdict(words))
    console.print(f"paired; {resampled_text(groups)}")


def verdict(words: Comparison) -> str:
    if words.interval.high < 0:
        return "B makes fewer word errors than A: the interval excludes zero."
    if words.interval.low > 0:
        return "B makes more word errors than A: the interval excludes zero."
    return "No difference in word errors is shown: the interval includes zero."


def _table(first: str, *columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column(first)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def print_rows(heads: Sequence[str], rows: Sequence[Sequence[str]], console: Console) -> None:
    table = _table(*heads)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _rate_table(results: Results) -> Table:
    table = _table("", "rate", "95 % interval", "substituted", "deleted", "inserted", "errors", "reference")
    table.add_row("WER", *rate_cells(results.words, results.word_interval))
    table.add_row("CER", *rate_cells(results.characters, results.character_interval))
    return table


def rate_cells(counts: Counts, interval: Interval | None) -> list[str]:
    edits = (counts.substitutions, counts.deletions, counts.insertions, counts.errors, counts.length)
    return [percent(counts.rate), interval_text(interval), *map(str, edits)]


def _speaker_table(speakers: Sequence[SpeakerScore]) -> Table:
    table = _table("speaker", "WER", "CER", "substituted", "deleted", "inserted", "words", "utterances")
    for row in speakers:
        table.add_row(*speaker_cells(row))
    return table


def speaker_cells(row: SpeakerScore) -> list[str]:
    words = row.words
    edits = (words.substitutions, words.deletions, words.insertions, words.length, row.utterances)
    return [row.speaker or "(unknown)", percent(words.rate), percent(row.characters.rate), *map(str, edits)]


def _frequent_table(scores: Sequence[Score], most: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("confused (said > recognised)", "deleted", "inserted"):
        table.add_column(column)
        table.add_column("", justify="right")
    for row in frequent_rows(scores, most):
        table.add_row(*row)
    return table


def frequent_rows(scores: Sequence[Score], most: int) -> list[list[str]]:
    """Rows of six cells: the most frequent confusions, deletions and insertions, each with its number."""
    columns = [
        [
            (f"{edit.reference} > {edit.hypothesis}", str(count))
            for edit, count in frequent(scores, "substitute")[:most]
        ],
        [(edit.reference, str(count)) for edit, count in frequent(scores, "delete")[:most]],
        [(edit.hypothesis, str(count)) for edit, count in frequent(scores, "insert")[:most]],
    ]
    height = max(map(len, columns))
    padded = [column + [("", "")] * (height - len(column)) for column in columns]
    return [[cell for pair in row for cell in pair] for row in zip(*padded, strict=True)]


def text_report(results: Results) -> str:
    """Every utterance with reference and hypothesis in columns, in the order of the corpus."""
    lines = [*(run_lines(results.run) if results.run else [])]
    lines.append(f"WER {percent(results.words.rate)}  95 % interval {interval_text(results.word_interval)}")
    lines.append(
        f"CER {percent(results.characters.rate)}  95 % interval {interval_text(results.character_interval)}"
    )
    lines.append(f"{len(results.scores)} utterances; {resampled_text(results.groups)}")
    tables = [
        (LATENCY_HEADS, latency_rows(results.latency) if results.latency else []),
        (LISTED_HEADS, listed_rows(results.listed) if results.listed else []),
    ]
    for heads, rows in tables:
        lines += ["  ".join(f"{head} {cell}" for head, cell in zip(heads, row, strict=True)) for row in rows]
    lines += detail_lines(results)
    for score in results.scores:
        lines += ["", utterance_title(score), *_aligned(score.alignment)]
    return "\n".join(lines) + "\n"


def utterance_title(score: Score) -> str:
    words = score.words
    speaker = f"  speaker {score.utterance.speaker}" if score.utterance.speaker else ""
    edits = f"S {words.substitutions} D {words.deletions} I {words.insertions} of {words.length}"
    return f"{score.utterance.utt_id}{speaker}  WER {percent(words.rate)}  ({edits})"


def _aligned(alignment: Sequence[Edit]) -> Iterator[str]:
    """Reference, hypothesis and edits below each other, wrapped together; stars stand for no word."""
    for start, end in _wrap(alignment):
        rows = ["REF: ", "HYP: ", "     "]
        for edit in alignment[start:end]:
            cells = (edit.reference, edit.hypothesis, _LETTER[edit.kind])
            width = _cell_width(edit)
            texts = [cell or "*" * width for cell in cells[:2]] + [cells[2]]
            rows = [
                row + text + " " * (width - cell_len(text) + 1) for row, text in zip(rows, texts, strict=True)
            ]
        yield from (row.rstrip() for row in rows if row.strip())
    if not alignment:
        yield "(nothing said, nothing recognised)"


def _wrap(alignment: Sequence[Edit]) -> Iterator[tuple[int, int]]:
    start = used = 0
    for index, edit in enumerate(alignment):
        width = _cell_width(edit) + 1
        if used and used + width > _WIDTH:
            yield start, index
            start, used = index, 0
        used += width
    if alignment:
        yield start, len(alignment)


def _cell_width(edit: Edit) -> int:
    return max(cell_len(edit.reference), cell_len(edit.hypothesis))
