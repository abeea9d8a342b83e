"""What an evaluation found, and its files: hypotheses.tsv, a line an utterance, and results.json."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from asr.errors import UserError
from asr.evaluation import bootstrap, latency
from asr.evaluation.biasing import Biasing, score_biasing
from asr.evaluation.bootstrap import PERCENTILES, Comparison, Groups, Interval, Percentiles
from asr.evaluation.confidence import Calibration, calibration, judged
from asr.evaluation.latency import Heard, Latency, Rate, rate
from asr.evaluation.wer import Counts, Score, Utterance, frequent, score, total

HYPOTHESES = "hypotheses.tsv"
_HEADER = ("utt_id", "speaker", "reference", "hypothesis")


@dataclass(frozen=True)
class Run:
    """How the hypotheses came about. Times in seconds, latency and chunk in milliseconds."""

    model: str
    cuts: tuple[str, ...]
    latency_ms: float  # algorithmic: what the model waits for, without the chunk
    chunk_ms: float  # 0: each file at once
    audio_seconds: float
    decode_seconds: float  # summed over the workers; reading audio and waiting for it are not counted
    failed: tuple[tuple[str, str], ...]  # (utt_id, reason)
    decoding: Mapping[str, Any] = field(default_factory=dict)  # the settings of decoder, endpoints and VAD
    paced: bool = False  # the audio came at the speed of speech
    alignments: str | None = None  # the CTM file with the times of the words; None: forced alignment

    @property
    def real_time_factor(self) -> float:
        return self.decode_seconds / self.audio_seconds if self.audio_seconds else 0.0


@dataclass(frozen=True)
class ListedWords:
    """What hotwords did, with intervals over what is resampled."""

    counts: Biasing
    listed_interval: Interval | None
    others_interval: Interval | None
    recall_interval: Interval | None


@dataclass(frozen=True)
class SpeakerScore:
    speaker: str | None
    utterances: int
    words: Counts
    characters: Counts


@dataclass(frozen=True)
class Results:
    """Scores of a corpus with their intervals; what follows `groups` is None for hypotheses from a file.

    `listed` is None too where there were no hotwords.
    """

    scores: tuple[Score, ...]
    words: Counts
    characters: Counts
    word_interval: Interval | None
    character_interval: Interval | None
    groups: Groups
    run: Run | None = None
    real_time_factor: Rate | None = None
    latency: Latency | None = None
    confidence: Calibration | None = None
    listed: ListedWords | None = None

    @property
    def speakers(self) -> list[SpeakerScore]:
        """Worst first."""
        by_speaker: dict[str | None, list[Score]] = {}
        for each in self.scores:
            by_speaker.setdefault(each.utterance.speaker, []).append(each)
        table = [
            SpeakerScore(
                speaker, len(own), total(each.words for each in own), total(each.characters for each in own)
            )
            for speaker, own in by_speaker.items()
        ]
        return sorted(table, key=lambda row: (-row.words.rate, row.speaker or ""))


def summarise(
    utterances: Sequence[Utterance],
    run: Run | None = None,
    heard: Sequence[Heard] = (),
    phrases: Mapping[str, Sequence[str]] | None = None,
) -> Results:
    """Score utterances and resample them for the intervals.

    heard: what was shown when, in the order of the utterances, if they were decoded here. phrases: the
    hotwords of each utterance, normalised; an utterance that is not there has none.
    """
    scores = score(utterances)
    groups = bootstrap.groups([utterance.speaker for utterance in utterances])
    alignments = [each.alignment for each in scores]
    confidences = [word.confidence for each in heard for word in each.stream.words]
    right = [own for alignment in alignments for own in judged(alignment)] if heard else []
    seconds = [each.seconds for each in heard], [each.audio_seconds for each in heard]
    return Results(
        scores,
        total(each.words for each in scores),
        total(each.characters for each in scores),
        _interval([each.words for each in scores], groups),
        _interval([each.characters for each in scores], groups),
        groups,
        run,
        rate(*seconds, groups) if heard else None,
        latency.summarise(alignments, heard, groups, live=bool(run and run.chunk_ms)) if heard else None,
        calibration(confidences, right),
        _listed(scores, phrases, groups) if phrases is not None else None,
    )


def _listed(scores: Sequence[Score], phrases: Mapping[str, Sequence[str]], groups: Groups) -> ListedWords:
    found = [score_biasing(each.alignment, phrases.get(each.utterance.utt_id, ())) for each in scores]
    listed = [each.listed for each in found]
    return ListedWords(
        sum(found, Biasing(Counts(), Counts(), 0)),
        _interval(listed, groups),
        _interval([each.others for each in found], groups),
        bootstrap.confidence_interval(
            [each.hits for each in listed], [each.length for each in listed], groups
        ),
    )


def compare(a: Sequence[Utterance], b: Sequence[Utterance]) -> tuple[Comparison, Comparison, Groups]:
    """Words, characters, and what was resampled; UserError unless utterances and references are the same."""
    others = {utterance.utt_id: utterance for utterance in b}
    _check_same(a, others)
    groups = bootstrap.groups([utterance.speaker for utterance in a])
    scores_a, scores_b = score(a), score([others[utterance.utt_id] for utterance in a])
    words = _compare([each.words for each in scores_a], [each.words for each in scores_b], groups)
    characters = _compare(
        [each.characters for each in scores_a], [each.characters for each in scores_b], groups
    )
    return words, characters, groups


def _check_same(a: Sequence[Utterance], others: dict[str, Utterance]) -> None:
    ids = {utterance.utt_id for utterance in a}
    if ids != set(others):
        lacking = [("A", sorted(set(others) - ids)), ("B", sorted(ids - set(others)))]
        message = "; ".join(f"{name} lacks {_some(missing)}" for name, missing in lacking if missing)
        raise UserError(
            f"the two systems were not given the same utterances: {message}; evaluate both on the same cuts"
        )
    changed = sorted(each.utt_id for each in a if each.reference != others[each.utt_id].reference)
    if changed:
        raise UserError(
            f"references differ between A and B: {_some(changed)}; evaluate both on the same cuts"
        )
    if not any(utterance.reference for utterance in a):
        raise UserError("nothing to compare: every reference is empty")


def _some(names: Sequence[str], shown: int = 5) -> str:
    listed = ", ".join(names[:shown])
    return f"{listed} and {len(names) - shown} more" if len(names) > shown else listed


def _interval(counts: Sequence[Counts], groups: Groups) -> Interval | None:
    return bootstrap.confidence_interval(
        [each.errors for each in counts], [each.length for each in counts], groups
    )


def _compare(a: Sequence[Counts], b: Sequence[Counts], groups: Groups) -> Comparison:
    errors_a, errors_b = [each.errors for each in a], [each.errors for each in b]
    return bootstrap.compare(errors_a, errors_b, [each.length for each in a], groups)


def write_hypotheses(path: Path, utterances: Sequence[Utterance]) -> None:
    """Tab-separated with a header line; an unknown speaker is an empty field."""
    rows = [_HEADER, *((u.utt_id, u.speaker or "", u.reference, u.hypothesis) for u in utterances)]
    write_text(path, "".join("\t".join(" ".join(field.split()) for field in row) + "\n" for row in rows))


def read_hypotheses(path: Path) -> list[Utterance]:
    """From hypotheses.tsv, or from the directory that holds it. UserError if missing or malformed."""
    path = path / HYPOTHESES if path.is_dir() else path
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: cannot be read ({error}); give an output directory of `asr evaluate`"
        ) from error
    rows = [line.rstrip("\r").split("\t") for line in lines if line.strip()]
    if not rows or tuple(rows[0]) != _HEADER:
        raise UserError(f"{path}: the first line must be the tab-separated names {' '.join(_HEADER)}")
    seen: set[str] = set()
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(_HEADER):
            raise UserError(
                f"{path}: line {number} has {len(row)} tab-separated fields instead of {len(_HEADER)}"
            )
        if row[0] in seen:
            raise UserError(f"{path}: line {number} repeats the utterance {row[0]}; remove one of the two")
        seen.add(row[0])
    return [Utterance(utt_id, speaker or None, said, heard) for utt_id, speaker, said, heard in rows[1:]]


def write_text(path: Path, text: str) -> None:
    """Write beside and rename, so that an interruption or a full disk leaves the former file whole."""
    beside = path.with_name(path.name + ".partial")
    try:
        beside.write_text(text, encoding="utf-8", newline="\n")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def results_json(results: Results, frequent_edits: int = 50) -> str:
    """For machines. Rates are fractions, null where undefined (errors against an empty reference)."""
    document: dict[str, Any] = {
        "utterances": len(results.scores),
        "wer": _rate_json(results.words, results.word_interval),
        "cer": _rate_json(results.characters, results.character_interval),
        "bootstrap": {
            "resampled": results.groups.unit,
            "groups": results.groups.number,
            "level": bootstrap.LEVEL,
            "resamples": bootstrap.RESAMPLES,
        },
        "speakers": [
            {
                "speaker": row.speaker,
                "utterances": row.utterances,
                "wer": _rate_json(row.words),
                "cer": _rate_json(row.characters),
            }
            for row in results.speakers
        ],
        "substitutions": [
            {"reference": edit.reference, "hypothesis": edit.hypothesis, "count": count}
            for edit, count in frequent(results.scores, "substitute")[:frequent_edits]
        ],
        "deletions": [
            {"reference": edit.reference, "count": count}
            for edit, count in frequent(results.scores, "delete")[:frequent_edits]
        ],
        "insertions": [
            {"hypothesis": edit.hypothesis, "count": count}
            for edit, count in frequent(results.scores, "insert")[:frequent_edits]
        ],
    }
    if results.latency:
        document["latency"] = _latency_json(results.latency)
    if results.confidence:
        document["confidence"] = asdict(results.confidence)
    if results.listed:
        document["listed_words"] = _listed_json(results.listed)
    return _dumps(document | (_run_json(results.run, results.real_time_factor) if results.run else {}))


def _latency_json(found: Latency) -> dict[str, Any]:
    """Seconds."""
    delays = {
        "first_partial": found.first_partial,
        "emission_delay": found.emission,
        "commit_delay": found.commit,
        "final_latency": found.final,
    }
    rates = {
        "revisions_per_word": found.revisions,
        "grown_per_word": found.grown,
        "start_error": found.start_error,
        "end_error": found.end_error,
    }
    return {
        **{name: _percentiles_json(value) for name, value in delays.items()},
        **{name: _ratio_json(value) for name, value in rates.items()},
        "aligned_utterances": found.aligned,
    }


def _percentiles_json(found: Percentiles | None) -> dict[str, Any] | None:
    if found is None:
        return None
    levels = zip(PERCENTILES, found.values, found.intervals, strict=True)
    return {
        "count": found.count,
        "mean": found.mean,
        **{f"p{100 * level:.0f}": {"value": value, "interval": _pair(own)} for level, value, own in levels},
    }


def _ratio_json(found: Rate | None) -> dict[str, Any] | None:
    return {"value": found.value, "interval": _pair(found.interval)} if found else None


def _listed_json(listed: ListedWords) -> dict[str, Any]:
    return {
        "b_wer": _rate_json(listed.counts.listed, listed.listed_interval),
        "u_wer": _rate_json(listed.counts.others, listed.others_interval),
        "recall": {"value": listed.counts.recall, "interval": _pair(listed.recall_interval)},
        "precision": listed.counts.precision,
        "false_alarms": listed.counts.claimed - listed.counts.listed.hits,
    }


def _pair(interval: Interval | None) -> list[float] | None:
    return [interval.low, interval.high] if interval else None


def comparison_json(words: Comparison, characters: Comparison, groups: Groups) -> str:
    document = {
        name: {
            "a": comparison.rate_a,
            "b": comparison.rate_b,
            "difference": comparison.difference,
            "interval": _pair(comparison.interval),
            "probability_of_improvement": comparison.probability_of_improvement,
        }
        for name, comparison in (("wer", words), ("cer", characters))
    }
    return _dumps(document | {"bootstrap": {"resampled": groups.unit, "groups": groups.number}})


def _dumps(document: dict[str, Any]) -> str:
    return json.dumps(document, ensure_ascii=False, indent=2, allow_nan=False) + "\n"


def _run_json(run: Run, real_time_factor: Rate | None) -> dict[str, Any]:
    return {
        "model": run.model,
        "cuts": run.cuts,
        "latency_ms": run.latency_ms,
        "chunk_ms": run.chunk_ms,
        "paced": run.paced,
        "alignments": run.alignments,
        "decoding": dict(run.decoding),
        "audio_seconds": run.audio_seconds,
        "decode_seconds": run.decode_seconds,
        "real_time_factor": run.real_time_factor,
        "real_time_factor_interval": _pair(real_time_factor.interval) if real_time_factor else None,
        "failed": [{"utt_id": utt_id, "reason": reason} for utt_id, reason in run.failed],
    }


def _rate_json(counts: Counts, interval: Interval | None = None) -> dict[str, Any]:
    return {
        "rate": counts.rate if math.isfinite(counts.rate) else None,
        "interval": _pair(interval),
        "length": counts.length,
        "substitutions": counts.substitutions,
        "deletions": counts.deletions,
        "insertions": counts.insertions,
    }
