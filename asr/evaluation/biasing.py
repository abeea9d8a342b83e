"""What hotwords do: errors among listed words and among all others, recall, and words claimed that were
not said.

B-WER and U-WER are those of Le et al. (arXiv 2104.02194): a word of the reference counts as listed where
it stands there as part of a listed phrase, an inserted word where it does so in the hypothesis. Knows
texts only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from asr.errors import UserError
from asr.evaluation.wer import Counts, Edit
from asr.text import normalise


@dataclass(frozen=True)
class Biasing:
    """Edits among listed and other words. `claimed`: listed words of the hypothesis, right or wrong."""

    listed: Counts
    others: Counts
    claimed: int

    def __add__(self, other: Biasing) -> Biasing:
        return Biasing(self.listed + other.listed, self.others + other.others, self.claimed + other.claimed)

    @property
    def recall(self) -> float | None:
        """Of the listed words that were said, those recognised."""
        return self.listed.hits / self.listed.length if self.listed.length else None

    @property
    def precision(self) -> float | None:
        """Of the listed words in the hypotheses, those that were said there."""
        return self.listed.hits / self.claimed if self.claimed else None


def score_biasing(alignment: Sequence[Edit], phrases: Iterable[str]) -> Biasing:
    """phrases: normalised, those listed for this utterance."""
    split = {tuple(phrase.split()) for phrase in phrases}
    said = iter(_covered([edit.reference for edit in alignment if edit.kind != "insert"], split))
    heard = iter(_covered([edit.hypothesis for edit in alignment if edit.kind != "delete"], split))
    kinds: dict[bool, list[str]] = {True: [], False: []}
    claimed = 0
    for edit in alignment:
        in_reference = edit.kind != "insert" and next(said)
        in_hypothesis = edit.kind != "delete" and next(heard)
        # a word that is right counts as claimed if it is listed as it was said
        claimed += in_reference if edit.kind == "equal" else in_hypothesis
        kinds[in_hypothesis if edit.kind == "insert" else in_reference].append(edit.kind)
    return Biasing(_counts(kinds[True]), _counts(kinds[False]), claimed)


def _covered(words: Sequence[str], phrases: set[tuple[str, ...]]) -> list[bool]:
    """For each word, whether it is part of an occurrence of a phrase."""
    covered = [False] * len(words)
    lengths = {len(phrase) for phrase in phrases}
    for length in lengths:
        for start in range(len(words) - length + 1):
            if tuple(words[start : start + length]) in phrases:
                covered[start : start + length] = [True] * length
    return covered


def _counts(kinds: Sequence[str]) -> Counts:
    return Counts(*(kinds.count(kind) for kind in ("equal", "substitute", "delete", "insert")))


def read_utterance_phrases(path: Path) -> dict[str, tuple[str, ...]]:
    """utt_id<TAB>phrase|phrase... a line -> normalised phrases of each utterance, perhaps none.

    UserError names file and line: no tab, an utterance twice, an empty phrase.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: cannot be read ({error}); give lines of utt_id<TAB>phrase|phrase"
        ) from error
    lists: dict[str, tuple[str, ...]] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        utt_id, tab, rest = line.partition("\t")
        if not tab:
            raise UserError(f"{path}: line {number} has no tab; write utt_id<TAB>phrase|phrase")
        if utt_id in lists:
            raise UserError(f"{path}: line {number} repeats the utterance {utt_id}; join the two lists")
        phrases = [normalise(phrase) for phrase in rest.split("|")] if rest.strip() else []
        if not all(phrases):
            raise UserError(f"{path}: line {number} ({utt_id}) has an empty phrase; remove it")
        lists[utt_id] = tuple(phrases)
    return lists
