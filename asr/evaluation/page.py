"""The aligned report as one HTML file: nothing is fetched from elsewhere, it prints, and reads light or dark.

Every text is escaped. Errors are marked by a letter and a line, not by colour alone. The few lines of script filter
and sort; without script everything is there, in the order of the corpus.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape

from asr.evaluation.report import (
    frequent_rows,
    percent,
    rate_cells,
    resampled_text,
    run_lines,
    speaker_cells,
    utterance_title,
)
from asr.evaluation.results import Results
from asr.evaluation.wer import Edit, Score

_STYLE = """
:root { color-scheme: light dark; --text: #1d2126; --dim: #68707a; --back: #fcfcfa; --box: #f1f1ec; --rule: #d9d9d2;
  --sub: #8a4b00; --del: #b3202c; --ins: #1a5fb4; }
@media (prefers-color-scheme: dark) { :root { --text: #e4e6e8; --dim: #9aa3ad; --back: #16181b; --box: #202429;
  --rule: #363c43; --sub: #f0b35f; --del: #ff8a8f; --ins: #8ab8ff; } }
body { font: 16px/1.45 system-ui, sans-serif; color: var(--text); background: var(--back); max-width: 70rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
p { margin: .3rem 0; } .dim, .legend { color: var(--dim); }
.scroll { overflow: auto; max-height: 26rem; border-bottom: 1px solid var(--rule); }
table { border-collapse: collapse; margin: .6rem 0; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .2rem .8rem .2rem 0; border-bottom: 1px solid var(--rule); white-space: nowrap; }
th { color: var(--dim); font-weight: 600; font-size: .85rem; vertical-align: bottom;
  position: sticky; top: 0; background: var(--back); }
.left th:nth-child(odd), .left td:nth-child(odd), .first th:first-child, .first td:first-child { text-align: left; }
.left td:nth-child(even) { padding-right: 2.5rem; }
form { position: sticky; top: 0; z-index: 1; background: var(--back); padding: .6rem 0; display: flex; gap: .6rem 1.2rem;
  flex-wrap: wrap; align-items: center; border-bottom: 1px solid var(--rule); }
input, select { font: inherit; color: inherit; background: var(--box); border: 1px solid var(--rule); padding: .15rem .4rem; }
article { padding: .7rem 0; border-bottom: 1px solid var(--rule); content-visibility: auto;
  contain-intrinsic-size: auto 6rem; }
article h3 { font: 600 .85rem/1.4 ui-monospace, monospace; color: var(--dim); margin: 0 0 .2rem; overflow-wrap: anywhere; }
.words { display: flex; flex-wrap: wrap; gap: .15rem .45rem; }
.words > * { font-style: normal; text-decoration: none; display: inline-flex; flex-direction: column; align-items: center;
  line-height: 1.3; overflow-wrap: anywhere; }
.words u + br { display: none; }
.words span { align-items: flex-start; }
.words span::after { content: attr(title); }
.words s::after, .words del::after, .words ins::after { font: 700 .7rem/1.2 ui-monospace, monospace; }
.words s, .words del, .words ins { padding: 0 .25rem; background: var(--box); border-bottom: 3px solid; }
.words s { color: var(--sub); border-bottom-style: double; } .words s::after { content: "S"; }
.words del { color: var(--del); border-bottom-style: dashed; } .words del::after { content: "D"; }
.words ins { color: var(--ins); border-bottom-style: solid; } .words ins::after { content: "I"; }
.words b { font-weight: 600; min-height: 1.3em; } .words i { font-style: normal; min-height: 1.3em; }
.words span i { color: var(--dim); }
@media print { form { display: none; } .scroll { max-height: none; } article { content-visibility: visible; } }
"""
_SCRIPT = """
const form = document.forms[0], list = document.getElementById("list"), all = [...list.children];
form.hidden = false;
form.addEventListener("submit", event => event.preventDefault());
form.addEventListener("input", () => {
  const sought = form.sought.value.toLowerCase(), key = form.order.value;
  const shown = all.filter(each => (!form.wrong.checked || +each.dataset.errors)
    && each.textContent.replace(/\\s+/g, " ").toLowerCase().includes(sought));
  if (key) shown.sort((a, b) => b.dataset[key] - a.dataset[key]);
  list.replaceChildren(...shown);
  form.number.value = shown.length + " of " + all.length;
});
"""


def html_report(results: Results, title: str, most: int = 30) -> str:
    """The whole page: rates, speakers, `most` frequent errors of each kind, and every utterance aligned."""
    return "".join(_page(results, title, most))


def _page(results: Results, title: str, most: int) -> Iterator[str]:
    yield f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    yield f"<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n"
    yield from (f"<p>{escape(line)}</p>\n" for line in (run_lines(results.run) if results.run else []))
    heads = ["", "rate", "95 % interval", "substituted", "deleted", "inserted", "errors", "reference"]
    rates = [["WER", *rate_cells(results.words, results.word_interval)]]
    rates.append(["CER", *rate_cells(results.characters, results.character_interval)])
    yield _table("first", heads, rates)
    yield f'<p class="dim">{len(results.scores)} utterances; {escape(resampled_text(results.groups))}</p>\n'
    yield from _failed(results)
    if len(results.speakers) > 1:
        heads = ["speaker", "WER", "CER", "substituted", "deleted", "inserted", "words", "utterances"]
        yield "<h2>Speakers, worst first</h2>\n" + _table("first", heads, map(speaker_cells, results.speakers))
    if results.words.errors:
        heads = ["confused (said &gt; recognised)", "", "deleted", "", "inserted", ""]
        yield "<h2>Most frequent errors</h2>\n" + _table("left", heads, frequent_rows(results.scores, most))
    yield "<h2>Utterances</h2>\n" + _FORM
    yield '<div id="list">\n'
    yield from map(_article, results.scores)
    yield f"</div>\n<script>{_SCRIPT}</script>\n</body>\n</html>\n"


_FORM = """<p class="legend">Above what was said, below what was recognised: S substituted, D deleted, I inserted.</p>
<form hidden><label>find <input name="sought" type="search" size="18"></label>
<label><input name="wrong" type="checkbox"> only those with errors</label>
<label>order <select name="order"><option value="">of the corpus</option>
<option value="errors">most errors</option><option value="rate">highest WER</option></select></label>
<output name="number" class="dim"></output></form>
"""


def _table(kind: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{name}</th>" for name in heads)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>\n" for row in rows)
    return f'<div class="scroll"><table class="{kind}">\n<thead><tr>{head}</tr></thead>\n{body}</table></div>\n'


def _failed(results: Results) -> Iterator[str]:
    if results.run and results.run.failed:
        yield f"<h2>{len(results.run.failed)} utterances failed and are not counted</h2>\n"
        yield _table("left", ["utterance", "", "reason"], ([name, "", why] for name, why in results.run.failed))


def _article(score: Score) -> str:
    rate = score.words.rate if score.words.length else float(score.words.errors)
    words = " ".join(map(_word, score.alignment)) or '<span class="dim">nothing said, nothing recognised</span>'
    return (
        f'<article data-errors="{score.words.errors}" data-rate="{rate:.4f}"><h3>{escape(utterance_title(score))}</h3>'
        f'<div class="words">{words}</div></article>\n'
    )


def _word(edit: Edit) -> str:
    """One column: what was said above what was recognised; the element names the kind of edit."""
    name = {"equal": "span", "substitute": "s", "delete": "del", "insert": "ins"}[edit.kind]
    return f"<{name}><b>{escape(edit.reference)}</b> <i>{escape(edit.hypothesis)}</i></{name}>"
