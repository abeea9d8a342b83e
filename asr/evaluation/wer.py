"""Word and character error counts of utterances, from jiwer's alignments.

Knows texts only: nothing of audio, models or speakers. Texts are compared as they come; normalise them first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal, cast

import jiwer

Kind = Literal["equal", "substitute", "delete", "insert"]


@dataclass(frozen=True)
class Utterance:
    """What was said and what was recognised; one line of hypotheses.tsv."""

    utt_id: str
    speaker: str | None
    reference: str
    hypothesis: str


@dataclass(frozen=True)
class Counts:
    """Edits of one utterance or of a corpus, in words or in characters."""

    hits: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def length(self) -> int:
        """Length of the reference."""
        return self.hits + self.substitutions + self.deletions

    @property
    def rate(self) -> float:
        """Errors over reference length, a fraction. May exceed 1; infinite for errors against nothing."""
        if self.length == 0:
            return 0.0 if self.errors == 0 else float("inf")
        return self.errors / self.length

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.hits + other.hits,
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
        )


@dataclass(frozen=True)
class Edit:
    """One column of an alignment; `reference` is empty in an insertion, `hypothesis` in a deletion."""

    kind: Kind
    reference: str
    hypothesis: str


@dataclass(frozen=True)
class Score:
    """An utterance with its counts and its word alignment."""

    utterance: Utterance
    words: Counts
    characters: Counts
    alignment: tuple[Edit, ...]


def score(utterances: Sequence[Utterance]) -> tuple[Score, ...]:
    """Align each hypothesis with its reference. Texts may be empty; spaces count as characters."""
    references = [utterance.reference for utterance in utterances]
    hypotheses = [utterance.hypothesis for utterance in utterances]
    words = jiwer.process_words(references, hypotheses)
    characters = jiwer.process_characters(references, hypotheses)
    alignments = [_edits(words, index) for index in range(len(utterances))]
    return tuple(
        Score(utterance, _count(word_edits), _count(_edits(characters, index)), word_edits)
        for index, (utterance, word_edits) in enumerate(zip(utterances, alignments, strict=True))
    )


def total(counts: Iterable[Counts]) -> Counts:
    """Sum of counts; its `rate` is the corpus error rate, in which long utterances weigh more."""
    return sum(counts, Counts())


def frequent(scores: Iterable[Score], kind: Kind) -> list[tuple[Edit, int]]:
    """Edits of one kind with their number, most frequent first, ties in alphabetical order."""
    counts = Counter(edit for score in scores for edit in score.alignment if edit.kind == kind)
    return sorted(counts.items(), key=lambda item: (-item[1], item[0].reference, item[0].hypothesis))


def _edits(output: jiwer.WordOutput | jiwer.CharacterOutput, index: int) -> tuple[Edit, ...]:
    """Columns of utterance `index`: jiwer gives runs (chunks) of one kind, we want one column a token."""
    reference, hypothesis = output.references[index], output.hypotheses[index]
    edits = []
    for chunk in output.alignments[index]:
        said = reference[chunk.ref_start_idx : chunk.ref_end_idx]
        heard = hypothesis[chunk.hyp_start_idx : chunk.hyp_end_idx]
        kind = cast(Kind, chunk.type)
        edits += [Edit(kind, *pair) for pair in zip_longest(said, heard, fillvalue="")]
    return tuple(edits)


def _count(edits: Iterable[Edit]) -> Counts:
    kinds = Counter(edit.kind for edit in edits)
    return Counts(kinds["equal"], kinds["substitute"], kinds["delete"], kinds["insert"])
