"""The report as one HTML file: pictures inside it, no scripts, nothing fetched."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mtl_jax.reporting.figures import Section


class Table(NamedTuple):
    """A table of the report: `head` and `rows` hold plain text; column 0 names the row."""

    title: str
    text: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


STYLE = """
:root { color-scheme: light; }
body {
  font: 16px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  color: #1b1b1b; background: #fff; max-width: 56rem; margin: 0 auto; padding: 1.5rem 1.25rem 4rem;
}
h1 { font-size: 1.8rem; line-height: 1.2; margin: 0.5rem 0 0.25rem; }
h2 {
  font-size: 1.2rem; margin: 2.4rem 0 0.5rem; padding-bottom: 0.2rem;
  border-bottom: 1px solid #d8d8d8;
}
p { margin: 0.5rem 0; max-width: 48rem; }
.lead { color: #444; margin-bottom: 1rem; }
.note { border-left: 4px solid #D55E00; background: #fdf3ec; padding: 0.5rem 0.8rem; }
nav { font-size: 0.9rem; margin: 1rem 0; line-height: 1.7; }
nav a { color: #0072B2; text-decoration: none; margin-right: 0.9rem; white-space: nowrap; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.15rem 1.2rem; margin: 1rem 0; }
dt { color: #555; }
dd { margin: 0; overflow-wrap: anywhere; }
code {
  font: 0.86em ui-monospace, Menlo, Consolas, monospace; background: #f4f4f4;
  padding: 0.1em 0.3em;
}
code span { display: inline-block; max-width: 100%; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.92rem; }
th, td {
  padding: 0.22rem 0.75rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid #e6e6e6;
}
th:first-child, td:first-child { text-align: left; padding-left: 0; }
thead th { border-bottom: 2px solid #888; font-weight: 600; }
tr.mean td { font-weight: 600; border-bottom: 1px solid #888; }
table.wide th, table.wide td { white-space: normal; overflow-wrap: anywhere; text-align: left; }
img { max-width: 100%; height: auto; display: block; margin: 0.6rem 0; }
footer { margin-top: 3rem; color: #666; font-size: 0.85rem; }
@media print {
  @page { margin: 16mm; }
  body { font-size: 10pt; max-width: none; padding: 0; }
  nav { display: none; }
  section { break-inside: avoid; }
  h2 { break-after: avoid; margin-top: 1.2rem; }
  table.wide { font-size: 8pt; }
  table.wide th, table.wide td { padding-top: 0; padding-bottom: 0; }
}
"""


def render(
    title: str,
    lead: str,
    facts: Mapping[str, str],
    notes: Sequence[str],
    parts: Sequence[Section | Table],
    footer: str,
) -> str:
    """Returns the page.

    Args:
      title: heading and name of the page.
      lead: one sentence below it.
      facts: name to value, both plain text; a value in `backquotes` is set as code.
      notes: warnings, shown before everything else.
      parts: what follows, in order.
      footer: last line.
    """
    links = " ".join(f'<a href="#{_anchor(p.title)}">{_text(p.title)}</a>' for p in parts)
    rows = "".join(
        f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>" for name, value in facts.items()
    )
    body = [
        f'<header><h1>{_text(title)}</h1><p class="lead">{_text(lead)}</p>',
        *(f'<p class="note">{_text(note)}</p>' for note in notes),
        f"<dl>{rows}</dl></header><nav>{links}</nav><main>",
        *(_part(part) for part in parts),
        f"</main><footer>{_text(footer)}</footer>",
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(title)}</title>\n<style>{STYLE}</style></head>\n<body>"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _part(part: Section | Table) -> str:
    out = [f'<section id="{_anchor(part.title)}"><h2>{_text(part.title)}</h2>']
    out += [f"<p>{_text(text)}</p>" for text in part.text.split("\n\n") if text]
    out += (
        [_table(part)]
        if isinstance(part, Table)
        else [_image(path, part.title) for path in part.figures]
    )
    return "".join([*out, "</section>"])


def _table(table: Table) -> str:
    head = "".join(f"<th>{_text(cell)}</th>" for cell in table.head)
    rows = []
    for row in table.rows:
        mean = ' class="mean"' if row[0].endswith(", mean") else ""
        rows.append(f"<tr{mean}>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>")
    wide = ' class="wide"' if len(table.head) == 2 else ""  # options and their values
    return (
        f'<div class="scroll"><table{wide}><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _image(path: Path, title: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{_text(title)}: {_text(path.stem)}" src="data:image/png;base64,{data}">'


def _anchor(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def _text(text: str) -> str:
    """Escapes plain text; `x` becomes code, broken over lines between its words only."""

    def code(match: re.Match[str]) -> str:
        return f"<code>{' '.join(f'<span>{word}</span>' for word in match[1].split())}</code>"

    return re.sub(r"`([^`]+)`", code, html.escape(text))
