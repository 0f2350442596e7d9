"""Drift as one self-contained page: a table by evidence, and below it each feature's histogram with its cells' names.

It asks the network for nothing, as its own policy says, and its few lines of script only sort. It follows the reader's
light or dark setting, prints, and escapes everything: names are whatever was published.
"""

from datetime import UTC, datetime
from html import escape
from typing import Final

from penstock_server.drift.report import ColumnDrift, VersionDrift
from penstock_tools.drift import format as words
from penstock_tools.drift import histogram

_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
_STYLE: Final = """
:root{color-scheme:light dark;--ink:#212529;--soft:#5c636a;--line:#dee2e6;--paper:#fff;--known:#1864ab;--now:#74c0a5;
--bad:#c92a2a;--hit:#ffa8a8}
@media(prefers-color-scheme:dark){:root{--ink:#e9ecef;--soft:#a5acb3;--line:#3a4046;--paper:#15181b;--known:#74b9f0;
--now:#2f7d62;--bad:#ff8787;--hit:#9c3b3b}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:70rem;margin:2rem auto;
padding:0 1rem}
h1{font-size:1.5rem;margin:0 0 .3rem}p{margin:.2rem 0}.soft,caption{color:var(--soft)}.bad{color:var(--bad);font-weight:600}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;margin-top:1.2rem}caption{text-align:left;padding:.3rem 0}
th,td{text-align:right;padding:.3rem .6rem;border-bottom:1px solid var(--line);vertical-align:middle;white-space:nowrap}
th:first-child,td:first-child{text-align:left;white-space:normal;overflow-wrap:anywhere;min-width:9rem}
th button{font:inherit;font-weight:600;color:inherit;background:none;border:0;padding:0;cursor:pointer}
th[aria-sort=ascending] button::after{content:" \\2191"}th[aria-sort=descending] button::after{content:" \\2193"}
svg{display:block;max-width:100%;height:auto}.now{fill:var(--now)}.drifted .now{fill:var(--hit)}
.known{stroke:var(--known);stroke-width:1.2}svg text{font:10px system-ui,sans-serif;fill:var(--soft)}
section{break-inside:avoid;margin:1.4rem 0}h2{font-size:1.05rem;margin:0 0 .3rem}
a{color:inherit}@media print{body{margin:0;max-width:none;font-size:11px}th,td{padding:.2rem .35rem}td svg{width:100px}}
"""
_SCRIPT: Final = """
for(const button of document.querySelectorAll("th button"))button.addEventListener("click",()=>{
const head=button.parentElement,at=[...head.parentElement.children].indexOf(head),body=document.querySelector("tbody");
const down=head.getAttribute("aria-sort")==="ascending",value=row=>row.children[at].dataset.value;
for(const other of head.parentElement.children)other.removeAttribute("aria-sort");
head.setAttribute("aria-sort",down?"descending":"ascending");
const order=(a,b)=>a===""?1:b===""?-1:(isNaN(a)||isNaN(b)?a.localeCompare(b):a-b)*(down?-1:1);
body.append(...[...body.children].sort((a,b)=>order(value(a),value(b))))});
"""
MOST_SECTIONS: Final = 200
"""Features that are drawn large; those with less evidence have their line in the table."""
_HEADINGS: Final = ("feature", "p", "JS", "PSI", "missing", "unseen", "outside", "rows")
_SORTED: Final = ' aria-sort="ascending"'
_CAPTION: Final = "Features by evidence. Outlines are shares of the rows trained on, bars of those now."
_LEGEND: Final = (
    "JS is the Jensen-Shannon distance, 0 as in training to 1 nothing alike. PSI is the population stability index less "
    "what chance adds. p is how likely so large an index is if the true one were the tolerated one; features are judged "
    "together by Benjamini and Hochberg. Missing, unseen and outside the range trained on are shares of the rows now."
)


def page(version: VersionDrift, made: datetime | None = None) -> str:
    """The page of a version.

    Args:
        version: what the server says of it.
        made: the time to tell; now, unless given.
    """
    when = (made or datetime.now(UTC)).strftime("%Y-%m-%d %H:%M UTC")
    columns = words.ranked(version.columns)
    answers = [] if version.predictions is None else [version.predictions]
    title = escape(f"Drift of {words.title(version)}")
    return "".join(
        (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width,initial-scale=1">',
            f"<title>{title}</title><style>{_STYLE}</style></head><body><main>",
            f"<h1>{title}</h1>{_summary(version, when)}{_table(columns)}",
            "".join(_section(column, at, column.name) for at, column in enumerate(columns[:MOST_SECTIONS])),
            "".join(_section(column, len(columns), words.PREDICTIONS) for column in answers),
            f"</main><script>{_SCRIPT}</script></body></html>\n",
        )
    )


def _summary(version: VersionDrift, when: str) -> str:
    alarms = words.alarms_line(version)
    return "".join(
        (
            f"<p{_class('bad' if version.drifted else '')}>{escape(words.verdict(version))}</p>",
            f"<p>{escape(words.predictions_line(version))}</p>",
            f'<p class="bad">{escape(alarms)}</p>' if alarms else "",
            f'<p class="soft">{escape(words.rows_line(version))}; {when}</p>',
        )
    )


def _table(columns: list[ColumnDrift]) -> str:
    heads = "".join(
        f'<th scope="col"{_SORTED if name == "p" else ""}><button type="button">{name}</button></th>'
        for name in _HEADINGS
    )
    rows = "".join(_row(column, at) for at, column in enumerate(columns))
    return (
        f'<div class="scroll"><table><caption>{_CAPTION}</caption><thead><tr>{heads}<th scope="col">trained on and now'
        f'</th></tr></thead><tbody>{rows}</tbody></table></div><p class="soft">{escape(_LEGEND)}</p>'
    )


def _row(column: ColumnDrift, at: int) -> str:
    name = escape(words.safe(column.name))
    if not column.enough_rows:
        blank = '<td data-value=""></td>' * 6
        return (
            f'<tr class="soft"><td data-value="{name}"><a href="#f{at}">{name}</a></td>{blank}'
            f'<td data-value="{column.rows}">{column.rows:,} of {column.rows_needed:,}</td>'
            f"<td>{histogram.small(column)}</td></tr>"
        )
    figures = (
        (column.p_value, words.probability(column.p_value)),
        (column.jensen_shannon, words.decimals(column.jensen_shannon)),
        (column.psi_unbiased, words.decimals(column.psi_unbiased)),
        (column.missing_ratio, words.percent(column.missing_ratio)),
        (column.unseen_ratio, words.percent(column.unseen_ratio)),
        (column.out_of_range_ratio, words.percent(column.out_of_range_ratio)),
        (float(column.rows), f"{column.rows:,}"),
    )
    cells = "".join(
        f'<td data-value="{"" if value is None else repr(value)}">{escape(shown)}</td>' for value, shown in figures
    )
    mark = ' <span class="bad">drifted</span>' if column.drifted else ""
    return (
        f'<tr{_class("drifted" if column.drifted else "")}><td data-value="{name}"><a href="#f{at}">{name}</a>{mark}</td>'
        f"{cells}<td>{histogram.small(column)}</td></tr>"
    )


def _section(column: ColumnDrift, at: int, name: str) -> str:
    state = "drifted" if column.drifted else "as in training" if column.enough_rows else words.too_few(column)
    figures = {
        "PSI as Evidently computes it": words.decimals(column.psi),
        "Kolmogorov-Smirnov distance at least": words.decimals(column.ks),
        "Wasserstein distance in deviations": words.decimals(column.wasserstein),
        "infinite": words.percent(column.infinite_ratio),
    }
    said = ", ".join(f"{label} {value}" for label, value in figures.items() if value)
    return (
        f'<section id="f{at}"{_class("drifted" if column.drifted else "")}><h2>{escape(words.safe(name))}: '
        f'{escape(state)}</h2>{histogram.large(column)}<p class="soft">{escape(said)}</p></section>'
    )


def _class(name: str) -> str:
    return f' class="{name}"' if name else ""
