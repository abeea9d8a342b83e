"""Praat's TextGrid: one tier of intervals that cover the recording without a gap, empty where none speaks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from asr.transcript import Word


def write_textgrid(words: Sequence[Word], duration: float) -> str:
    """Words in order, seconds -> the long text form. Where two words overlap, one ends as the next begins."""
    intervals = list(_covering(words, duration))
    end = intervals[-1][1]
    lines = [
        'File type = "ooTextFile"',
        'Object class = "TextGrid"',
        "",
        "xmin = 0",
        f"xmax = {end:.3f}",
        "tiers? <exists>",
        "size = 1",
        "item []:",
        "    item [1]:",
        '        class = "IntervalTier"',
        '        name = "words"',
        "        xmin = 0",
        f"        xmax = {end:.3f}",
        f"        intervals: size = {len(intervals)}",
    ]
    for number, (start, stop, text) in enumerate(intervals, start=1):
        lines += [
            f"        intervals [{number}]:",
            f"            xmin = {start:.3f}",
            f"            xmax = {stop:.3f}",
            '            text = "{}"'.format(text.replace('"', '""')),
        ]
    return "\n".join(lines) + "\n"


def _covering(words: Sequence[Word], duration: float) -> Iterator[tuple[float, float, str]]:
    """In whole milliseconds, since those are written: Praat refuses an interval without length."""
    position = 0
    for index, word in enumerate(words):
        start = max(position, round(1000 * word.start))
        following = round(1000 * words[index + 1].start) if index + 1 < len(words) else round(1000 * word.end)
        stop = max(start + 1, min(round(1000 * word.end), following))
        if start > position:
            yield position / 1000, start / 1000, ""
        yield start / 1000, stop / 1000, word.text
        position = stop
    end = max(1, round(1000 * duration))
    if position < end:
        yield position / 1000, end / 1000, ""
