"""The aligned report as one HTML file: nothing is fetched from elsewhere, it prints, and reads light or dark.

Every text is escaped. Errors are marked by a letter and a line, not by colour alone. The few lines of script
filter and sort; without script everything is there, in the order of the corpus.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape

from asr.evaluation.report import (
    LATENCY_HEADS,
    LISTED_HEADS,
    detail_lines,
    frequent_rows,
    latency_rows,
    listed_rows,
    rate_cells,
    resampled_text,
    run_lines,
    speaker_cells,
    utterance_title,
)
from asr.evaluation.results import Results
from asr.evaluation.wer import Edit, Score

_STYLE = """
:root { color-scheme: light dark; --text: #1d2126; --dim: #646b75; --back: #fcfcfa; --box: #f1f1ec;
  --rule: #d9d9d2; --sub: #8a4b00; --del: #b3202c; --ins: #1a5fb4; }
@media (prefers-color-scheme: dark) { :root { --text: #e4e6e8; --dim: #9aa3ad; --back: #16181b;
  --box: #202429; --rule: #363c43; --sub: #f0b35f; --del: #ff8a8f; --ins: #8ab8ff; } }
body { font: 16px/1.45 system-ui, sans-serif; color: var(--text); background: var(--back);
  max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; overflow-wrap: anywhere; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
p { margin: .3rem 0; overflow-wrap: anywhere; } .dim { color: var(--dim); }
.scroll { overflow: auto; max-height: 26rem; }
table { border-collapse: collapse; margin: .6rem 0; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .2rem 1.2rem .2rem 0; border-bottom: 1px solid var(--rule);
  white-space: nowrap; }
th { color: var(--dim); font-weight: 600; font-size: .85rem; position: sticky; top: 0;
  background: var(--back); }
.pairs :nth-child(odd):is(th, td), .rates :first-child:is(th, td) { text-align: left; }
.pairs td:nth-child(even) { padding-right: 2.5rem; }
form:not([hidden]) { position: sticky; top: 0; z-index: 1; background: var(--back); padding: .6rem 0;
  display: flex; flex-wrap: wrap; gap: .6rem 1.2rem; align-items: center;
  border-bottom: 1px solid var(--rule); }
input, select { font: inherit; color: inherit; background: var(--box); border: 1px solid var(--rule);
  padding: .15rem .4rem; }
article { padding: .7rem 0; border-bottom: 1px solid var(--rule); content-visibility: auto;
  contain-intrinsic-size: auto 6rem; }
article h3 { font: 600 .85rem/1.4 ui-monospace, monospace; color: var(--dim); margin: 0 0 .2rem;
  overflow-wrap: anywhere; }
.words { display: flex; flex-wrap: wrap; gap: .15rem .45rem; line-height: 1.3; }
.words > * { display: inline-flex; flex-direction: column; align-items: center; text-decoration: none;
  overflow-wrap: anywhere; }
.words b, .words i { font-weight: inherit; font-style: normal; min-height: 1.3em; }
.words span i { color: var(--dim); }
.words :is(s, del, ins) { padding: 0 .25rem; background: var(--box); font-weight: 600;
  border-bottom: 3px solid; }
.words :is(s, del, ins)::after { font: 700 .7rem/1.2 ui-monospace, monospace; }
.words s { color: var(--sub); border-bottom-style: double; } .words s::after { content: "S"; }
.words del { color: var(--del); border-bottom-style: dashed; } .words del::after { content: "D"; }
.words ins { color: var(--ins); } .words ins::after { content: "I"; }
@media print { form:not([hidden]) { display: none; } .scroll { max-height: none; }
  article { content-visibility: visible; } }
"""
_SCRIPT = """
const form = document.forms[0], list = document.getElementById("list"), all = [...list.children];
const row = (each, kind) =>
  [...each.querySelectorAll(kind)].map(word => word.textContent).filter(Boolean).join(" ");
const texts = new Map();
const text = each => texts.get(each) || texts.set(each,
  ["h3", "b", "i"].map(kind => row(each, kind)).join("\\n").toLowerCase()).get(each);
const show = () => {
  const sought = form.sought.value.trim().toLowerCase(), key = form.order.value;
  const shown = all.filter(each => (!form.wrong.checked || +each.dataset.errors)
    && text(each).includes(sought));
  if (key) shown.sort((a, b) => b.dataset[key] - a.dataset[key]);
  list.replaceChildren(...shown);
  form.number.value = shown.length + " of " + all.length;
};
form.addEventListener("submit", event => event.preventDefault());
form.addEventListener("input", show);
form.hidden = false;
show();
"""
_FORM = """<p class="dim">Above what was said, below what was recognised: S substituted, D deleted,
  I inserted.</p>
<form hidden><label>find <input name="sought" type="search" size="18"></label>
<label><input name="wrong" type="checkbox"> only those with errors</label>
<label>order <select name="order"><option value="">of the corpus</option>
<option value="errors">most errors</option><option value="rate">highest WER</option></select></label>
<output name="number" class="dim"></output></form>
"""


def html_report(results: Results, title: str, most: int = 30) -> str:
    """The whole page: rates, speakers, `most` frequent errors of each kind, and every utterance aligned."""
    return "".join(_page(results, title, most))


def _page(results: Results, title: str, most: int) -> Iterator[str]:
    yield '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    yield f"<title>{escape(title)}</title>\n"
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    yield f"<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n"
    yield from (f"<p>{escape(line)}</p>\n" for line in (run_lines(results.run) if results.run else []))
    heads = ["", "rate", "95 % interval", "substituted", "deleted", "inserted", "errors", "reference"]
    rates = [["WER", *rate_cells(results.words, results.word_interval)]]
    rates.append(["CER", *rate_cells(results.characters, results.character_interval)])
    yield _table("rates", heads, rates)
    yield f'<p class="dim">{len(results.scores)} utterances; {escape(resampled_text(results.groups))}</p>\n'
    yield from _failed(results)
    if results.latency:
        yield "<h2>Latency</h2>\n" + _table("rates", LATENCY_HEADS, latency_rows(results.latency))
    if results.listed:
        yield "<h2>Hotwords</h2>\n" + _table("rates", LISTED_HEADS, listed_rows(results.listed))
    yield from (f"<p>{escape(line)}</p>\n" for line in detail_lines(results))
    if len(results.speakers) > 1:
        heads = ["speaker", "WER", "CER", "substituted", "deleted", "inserted", "words", "utterances"]
        yield "<h2>Speakers, worst first</h2>\n" + _table(
            "rates", heads, map(speaker_cells, results.speakers)
        )
    if results.words.errors:
        heads = ["confused (said &gt; recognised)", "", "deleted", "", "inserted", ""]
        yield "<h2>Most frequent errors</h2>\n" + _table("pairs", heads, frequent_rows(results.scores, most))
    yield "<h2>Utterances</h2>\n" + _FORM
    yield '<div id="list">\n'
    yield from map(_article, results.scores)
    yield f"</div>\n<script>{_SCRIPT}</script>\n</body>\n</html>\n"


def _table(kind: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{name}</th>" for name in heads)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>\n" for row in rows)
    return (
        f'<div class="scroll"><table class="{kind}">\n<thead><tr>{head}</tr></thead>\n{body}</table></div>\n'
    )


def _failed(results: Results) -> Iterator[str]:
    if results.run and results.run.failed:
        yield f"<h2>Failed and not counted: {len(results.run.failed)}</h2>\n"
        yield _table(
            "pairs", ["utterance", "", "reason"], ([name, "", why] for name, why in results.run.failed)
        )


def _article(score: Score) -> str:
    # the worst come first where nothing was said, too
    rate = score.words.errors / max(1, score.words.length)
    words = " ".join(map(_word, score.alignment)) or "<span>nothing said, nothing recognised</span>"
    return (
        f'<article data-errors="{score.words.errors}" data-rate="{rate:.4f}">'
        f'<h3>{escape(utterance_title(score))}</h3><div class="words">{words}</div></article>\n'
    )


def _word(edit: Edit) -> str:
    """One column: what was said above what was recognised; the element names the kind of edit."""
    name = {"equal": "span", "substitute": "s", "delete": "del", "insert": "ins"}[edit.kind]
    return f"<{name}><b>{escape(edit.reference)}</b> <i>{escape(edit.hypothesis)}</i></{name}>"
