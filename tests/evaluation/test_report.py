"""What people are shown: escaped, aligned, self-contained."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser

from rich.console import Console

from asr.evaluation.latency import Heard, ShownWord, Stream
from asr.evaluation.page import html_report
from asr.evaluation.report import people, print_comparison, print_results, text_report, verdict
from asr.evaluation.results import Results, compare, summarise
from asr.evaluation.wer import Utterance
from asr.transcript import Word
from tests.evaluation.test_results import RUN, UTTERANCES

NASTY = Utterance("<script>alert(1)</script>", 'a"b<i>', "tom & <jerry>", "[bold]tom[/bold] &amp; </div>")
VOID = {"meta", "input"}


class Checker(HTMLParser):
    """Collects elements and text, and sees that every element is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[str] = []
        self.attributes: list[str] = []
        self.said: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += [name for name, _ in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.said.append(data)


def checked(page: str) -> Checker:
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    return checker


def shown(utterances: list[Utterance]) -> str:
    stream = io.StringIO()
    print_results(summarise(utterances, RUN), people(stream))
    return stream.getvalue()


def measured() -> Results:
    """Two utterances with a stream, reference times and a list of hotwords."""
    word = ShownWord("cat", 1.25, 2.5, 0.5, 0.75, 0.9)
    heard = Heard(Stream((word,), 1.25, 0.125, 1, 1), (Word("cat", 0.5, 1.0, 1.0),), 3.0, 0.3)
    said = [Utterance("u1", "anna", "cat", "cat"), Utterance("u2", "bert", "cat", "cat")]
    return summarise(said, RUN, [heard, heard], {"u1": ["cat"]})


def test_every_kind_of_report_shows_latency_confidence_and_hotwords() -> None:
    stream = io.StringIO()
    print_results(measured(), people(stream))
    page = checked(html_report(measured(), "title"))
    for report in (stream.getvalue(), text_report(measured()), "\n".join(page.said)):
        assert "word shown after its end" in report and "0.25 (0.25 - 0.25)" in report
        assert "word committed after its end" in report and "1.50 (1.50 - 1.50)" in report
        assert "0.12 (0.12 - 0.12)" in report  # final
        assert "revisions a word 1.000 (1.000 - 1.000), of which 1.000 (1.000 - 1.000) only grew" in report
        assert "end 0.250 s (0.250 - 0.250)" in report
        assert "forced alignment with the same model (all)" in report
        assert "confidence: 0.900 on average where 1.000 of 2 words are right" in report
        assert "listed words (B-WER)" in report and "recall 100.00 %" in report


def test_html_escapes_every_text() -> None:
    page = checked(html_report(summarise([NASTY, *UTTERANCES], RUN), "A <b>title</b> & more"))
    assert page.elements.count("script") == 1
    for text in ("A <b>title</b> & more", "<jerry>", "[bold]tom[/bold]", "</div>", "&amp;", 'a"b<i>'):
        assert text in page.said, text
    assert any("<script>alert(1)</script>" in text for text in page.said)


def test_html_fetches_nothing() -> None:
    report = html_report(summarise(UTTERANCES, RUN), "title")
    assert not {"src", "href"} & set(checked(report).attributes)
    assert not re.search(r"https?:|@import|url\(|<link|<img", report)


def test_html_shows_every_utterance_and_failure() -> None:
    page = checked(html_report(summarise(UTTERANCES, RUN), "title"))
    assert page.elements.count("article") == len(UTTERANCES)
    assert [page.elements.count(kind) for kind in ("s", "del", "ins")] == [1, 1, 1]
    assert "gone.flac: no such file" in page.said


def test_html_of_a_corpus_without_errors_or_words() -> None:
    page = checked(html_report(summarise([Utterance("u", None, "", "")]), "title"))
    assert "nothing said, nothing recognised" in page.said


def test_text_report_aligns_words_in_columns() -> None:
    utterance = Utterance("u1", "anna", "mister quilter is here", "mister kilt is not")
    extra = Utterance("u2", None, "yes", "yes it is")
    report = text_report(summarise([utterance, extra], RUN))
    assert "u1  speaker anna  WER 50.00 %  (S 2 D 0 I 0 of 4)" in report
    assert (
        "REF: mister quilter is here\n"
        "HYP: mister kilt    is not\n"
        "            S          S\n"
    ) in report  # fmt: skip
    assert "REF: yes ** **\nHYP: yes it is\n         I  I\n" in report


def test_text_report_wraps_long_utterances_without_losing_words() -> None:
    words = [f"word{number}" for number in range(100)]
    report = text_report(summarise([Utterance("u", None, " ".join(words), " ".join(words[1:]))]))
    assert max(map(len, report.splitlines())) <= 120
    spoken = [word for line in report.splitlines() if line.startswith("REF: ") for word in line[5:].split()]
    assert spoken == words


def test_tables_show_rates_speakers_and_confusions() -> None:
    output = shown(UTTERANCES)
    for text in ("42.86 %", "anna", "(unknown)", "cat > cut", "120 ms", "320 ms chunks", "2.00 h", "0.0050"):
        assert text in output, text


def test_tables_show_markup_as_it_stands() -> None:
    assert "[bold]tom[/bold]" in shown([NASTY])


def test_many_speakers_are_cut_short_on_the_terminal() -> None:
    output = shown([Utterance(f"u{number}", f"s{number:03}", "a", "b") for number in range(100)])
    assert "the 10 worst of 100 speakers" in output
    assert "s009" in output and "s010" not in output


def test_comparison_concludes_only_what_the_interval_allows() -> None:
    utterances = [Utterance(f"u{number}", f"s{number % 9}", "a b c d", "a b c x") for number in range(90)]
    right = [Utterance(each.utt_id, each.speaker, each.reference, each.reference) for each in utterances]
    assert verdict(compare(utterances, right)[0]).startswith("B makes fewer")
    assert verdict(compare(right, utterances)[0]).startswith("B makes more")
    assert verdict(compare(right, right)[0]).startswith("No difference")
    console = Console(file=io.StringIO(), record=True, width=200)
    print_comparison(*compare(utterances, right), console)
    text = console.export_text()
    assert "-25.00" in text and "over 9 speakers" in text
