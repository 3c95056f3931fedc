"""Parts of an HTML page that loads nothing: the document, tables, escaped text."""

import html
import re
from base64 import b64encode
from collections.abc import Sequence

from gpu_offload.orchestrator.output.markdown import is_numeric

STYLE = """
:root{--ink:#111827;--soft:#4b5563;--line:#e5e7eb;--paper:#fff;--tile:#f3f4f6}
@media(prefers-color-scheme:dark){:root{--ink:#e5e7eb;--soft:#9ca3af;--line:#374151;--paper:#111827;--tile:#1f2937}}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:60rem;margin:1rem auto;
padding:0 1rem}
h1{font-size:1.25rem;line-height:1.3;overflow-wrap:anywhere}h2{font-size:1.05rem;margin:1.75rem 0 .5rem}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr));gap:.75rem;margin:1rem 0}
.tile{background:var(--tile);border-radius:.5rem;padding:.6rem .8rem}
.tile span{display:block;color:var(--soft);font-size:.8rem;overflow-wrap:anywhere}
.tile b{font-size:1.3rem;overflow-wrap:anywhere}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:.85rem;margin:.5rem 0;min-width:min(100%,24rem)}
th,td{text-align:left;padding:.25rem .6rem .25rem 0;border-bottom:1px solid var(--line);vertical-align:top}
th{white-space:nowrap;color:var(--soft);font-weight:500}td.n,th.n{text-align:right;white-space:nowrap}
pre{overflow-x:auto;background:var(--tile);border-radius:.5rem;padding:.6rem .8rem}a{color:inherit}
p code{overflow-wrap:anywhere}td.long{overflow-wrap:anywhere}code{font-size:.9em}tr.total td{font-weight:600}
figure{margin:.5rem 0 1rem}img{max-width:100%}figcaption{font-size:.85rem;color:var(--soft)}
svg{width:100%;max-width:36rem;height:auto}svg text{font:13px system-ui,sans-serif;fill:var(--soft)}
@media(max-width:30rem){table.rows,.rows tbody,.rows tr,.rows td{display:block;text-align:left}.rows tr.head,.rows td:empty
{display:none}.rows tr{border-bottom:1px solid var(--line);padding:.4rem 0}.rows td,.rows td.n{border:0;padding:0 0 0 8rem;
text-align:left;white-space:normal}.rows td::before{content:attr(data-h);float:left;margin-left:-8rem;width:7.5rem;
color:var(--soft)}}
.grid{stroke:var(--line);stroke-width:1}summary{cursor:pointer;margin:1.75rem 0 .5rem;font-weight:600}
"""

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""Should something get past the escaping, it may neither run nor load nor send anything."""

WIDEST = 5
"""Columns that fit a phone; of a wider table each row becomes a list there."""
LONG_WORD = 20
"""Letters; an instance's id has 19."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def document(title: str, body: str, *, head: str = "") -> str:
    """Return a whole page; `body` and `head` are markup, `title` any text."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{safe(title)}</title>{head}<style>{STYLE}</style></head>"
        f"<body><h1>{safe(title)}</h1>{body}</body></html>\n"
    )


def tiles_html(tiles: Sequence[tuple[str, str, str]]) -> str:
    """Return boxes with a name, a value and a note each."""
    boxes = "".join(
        f'<div class="tile"><span>{safe(name)}</span><b>{safe(value)}</b><span>{safe(note)}</span></div>'
        for name, value, note in tiles
    )
    return f'<div class="tiles">{boxes}</div>'


def picture_html(png: bytes | None) -> str:
    """Return a PNG of predictions with its caption; empty for none."""
    if png is None:
        return ""
    return (
        "<figure><figcaption>On pictures that it was not trained on: as labelled, and as the model sees them."
        f'</figcaption><img alt="labels and predictions" src="data:image/png;base64,{b64encode(png).decode()}">'
        "</figure>"
    )


def without_controls(text: str) -> str:
    """Replace control and direction characters."""
    return _CONTROL.sub(" ", text)


def safe(text: str) -> str:
    """Escape a text."""
    return html.escape(without_controls(text), quote=True)


def prose(text: str) -> str:
    """Escape a sentence, and show as code what it has between backticks."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", safe(text))


def html_table(rows: Sequence[Sequence[str]], *, total: bool = False) -> str:
    """Render a table without its empty columns; on a narrow screen it scrolls, or is a list where it has many columns."""
    if len(rows) < 2:
        return ""
    head, *body = rows
    kept = [i for i in range(len(head)) if any(row[i] for row in body)]
    numeric = {i for i in kept if is_numeric([row[i] for row in body])}
    listed = len(kept) > WIDEST
    lines = []
    if any(head):
        right = ' class="n"'
        cells = (f"<th{right if i in numeric else ''}>{safe(head[i])}</th>" for i in kept)
        lines.append(f'<tr class="head">{"".join(cells)}</tr>')
    for number, row in enumerate(body):
        kind = ' class="total"' if total and number == len(body) - 1 else ""
        cells = (_cell(row[i], head[i] if listed else "", numeric=i in numeric) for i in kept)
        lines.append(f"<tr{kind}>{''.join(cells)}</tr>")
    listing = ' class="rows"' if listed else ""
    return f'<div class="wide"><table{listing}>{"".join(lines)}</table></div>'


def _cell(text: str, name: str, *, numeric: bool) -> str:
    """Return a cell; only a word that would widen the whole table may be broken."""
    long = max(map(len, text.split()), default=0) > LONG_WORD
    kind = ' class="n"' if numeric else ' class="long"' if long else ""
    data = f' data-h="{safe(name)}"' if name else ""
    return f"<td{kind}{data}>{safe(text)}</td>"
