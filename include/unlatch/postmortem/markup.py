"""The report as Markdown, as TWiki's markup (the wiki of the report of 2014), and as a page of HTML."""

from __future__ import annotations

import re
from html import escape

from unlatch.postmortem.document import Bullets, Chart, Document, Grid, Heading, Paragraph
from unlatch.postmortem.picture import svg, text_bars

_MD = re.compile(r"([\\`*_\[\]<>|#])")
_STYLE = """body{font:15px/1.5 Helvetica,Arial,sans-serif;color:#222;max-width:960px;margin:2em auto;padding:0 1em}
h1{font-size:1.7em}h2{font-size:1.2em;border-bottom:1px solid #ccc;margin-top:1.6em}
table{border-collapse:collapse;margin:1em 0}td,th{border:1px solid #ccc;padding:.25em .7em;text-align:left}
th{background:#f3f3f3}pre{background:#f6f6f6;padding:.6em .8em;overflow-x:auto;font-size:13px;white-space:pre-wrap}
svg{max-width:100%;height:auto}p.source{color:#777;font-size:12px;word-break:break-all}"""


def markdown(document: Document) -> str:
    """Markdown as GitHub and GitLab show it. Words of logs cannot become markup."""
    parts = [f"# {_md(document.title)}"]
    for block in document.blocks:
        match block:
            case Heading(text):
                parts.append(f"## {text}")
            case Paragraph(text):
                parts.append(_md(text))
            case Bullets(items):
                lines = []
                for text, below in items:
                    lines.append(f"- {_md(text)}")
                    lines += ["", *_fenced(below, "  "), ""] if below else []
                parts.append("\n".join(lines).rstrip())
            case Grid(head, rows):
                table = [head, tuple("---" for _ in head), *rows]
                parts.append(
                    "\n".join(
                        "| " + " | ".join(_md(cell) if cell != "---" else cell for cell in row) + " |" for row in table
                    )
                )
            case Chart():
                parts.append("\n".join(_fenced(tuple(text_bars(block)), "")))
    return "\n\n".join(parts) + "\n"


def _md(text: str) -> str:
    return _MD.sub(r"\\\1", " ".join(text.split()))


def _fenced(lines: tuple[str, ...], indent: str) -> list[str]:
    fence = "```"
    while any(fence in line for line in lines):
        fence += "`"
    return [f"{indent}{fence}", *(f"{indent}{line}" for line in lines), f"{indent}{fence}"]


def twiki(document: Document) -> str:
    """TWiki's markup. Nothing in it becomes a link or a variable by itself."""
    parts = [f"---+!! {_tw(document.title)}"]
    for block in document.blocks:
        match block:
            case Heading(text):
                parts.append(f"---++ {text}")
            case Paragraph(text):
                parts.append(_tw(text))
            case Bullets(items):
                lines = []
                for text, below in items:
                    lines.append(f"   * {_tw(text)}")
                    lines += [_verbatim(below)] if below else []
                parts.append("\n".join(lines))
            case Grid(head, rows):
                table = [" | ".join(f"*{_tw(cell)}*" for cell in head), *(" | ".join(map(_tw, row)) for row in rows)]
                parts.append("\n".join(f"| {row} |" for row in table))
            case Chart():
                parts.append(_verbatim(tuple(text_bars(block))))
    return "<noautolink>\n" + "\n\n".join(parts) + "\n</noautolink>\n"


def _tw(text: str) -> str:
    safe = escape(" ".join(text.split()), quote=False)
    for char in "%*_=|![]":
        safe = safe.replace(char, f"&#{ord(char)};")
    return safe


def _verbatim(lines: tuple[str, ...]) -> str:
    text = "\n".join(lines).replace("</verbatim", "< /verbatim").replace("%", "%<nop>")
    return f"<verbatim>\n{text}\n</verbatim>"


def html(document: Document) -> str:
    """One page with its picture inside; nothing is loaded from elsewhere, and no script is in it."""
    parts = [f"<h1>{escape(document.title)}</h1>"]
    for block in document.blocks:
        match block:
            case Heading(text):
                parts.append(f"<h2>{escape(text)}</h2>")
            case Paragraph(text):
                kind = ' class="source"' if block is document.blocks[-1] else ""
                parts.append(f"<p{kind}>{escape(text)}</p>")
            case Bullets(items):
                listed = [
                    escape(text) + (f"<pre>{escape(chr(10).join(below))}</pre>" if below else "")
                    for text, below in items
                ]
                parts.append("<ul>" + "\n".join(f"<li>{item}</li>" for item in listed) + "</ul>")
            case Grid(head, rows):
                top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
                body = "\n".join("<tr>" + "".join(f"<td>{escape(c)}</td>" for c in row) + "</tr>" for row in rows)
                parts.append(f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>")
            case Chart():
                parts.append(f"<figure>{svg(block)}</figure>")
    page_head = f'<meta charset="utf-8"><title>{escape(document.title)}</title><style>{_STYLE}</style>'
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head>{page_head}</head>\n<body>\n' + "\n".join(parts) + "\n</body></html>\n"
    )
