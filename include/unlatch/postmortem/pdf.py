"""The report as PDF, through fpdf2. Its built-in fonts know Western letters; others are written as `?`."""

from __future__ import annotations

from datetime import datetime
from io import BytesIO

from fpdf import FPDF, FontFace
from fpdf.enums import WrapMode
from fpdf.svg import SVGObject

from unlatch.postmortem.document import Bullets, Chart, Document, Grid, Heading, Paragraph
from unlatch.postmortem.picture import svg

_PLAIN = str.maketrans({"\u2192": "->", "\u2014": "-", "\u2013": "-", "\u2026": "...", "\u2018": "'", "\u2019": "'"})
_TEXT_PT, _SMALL_PT = 10, 8


def pdf(document: Document, made_at: datetime) -> bytes:
    """The document as a file; the same input gives the same bytes."""
    page = FPDF(format="A4")
    page.set_title(_plain(document.title))
    page.set_creator("Unlatch")
    page.set_creation_date(made_at)
    page.set_auto_page_break(auto=True, margin=18)
    page.add_page()
    _text(page, document.title, size=17, bold=True)
    for block in document.blocks:
        match block:
            case Heading(text):
                page.ln(3)
                _text(page, text, size=13, bold=True)
            case Paragraph(text):
                _text(page, text)
            case Bullets(items):
                for text, below in items:
                    _text(page, f"- {text}", indent=4)
                    for line in below:
                        _text(page, line, size=_SMALL_PT, indent=8, font="Courier")
            case Grid(head, rows):
                _table(page, (head, *rows))
            case Chart():
                _picture(page, block)
    return bytes(page.output())


def _plain(text: str) -> str:
    return text.translate(_PLAIN).encode("cp1252", "replace").decode("cp1252")


def _text(
    page: FPDF, text: str, *, size: int = _TEXT_PT, bold: bool = False, indent: int = 0, font: str = "Helvetica"
) -> None:
    page.set_font(font, "B" if bold else "", size)
    page.set_x(page.l_margin + indent)
    wrap = WrapMode.CHAR if font == "Courier" else WrapMode.WORD
    page.multi_cell(0, size * 0.5, _plain(text), align="L", new_x="LMARGIN", new_y="NEXT", wrapmode=wrap)
    page.ln(1)


def _table(page: FPDF, rows: tuple[tuple[str, ...], ...]) -> None:
    page.ln(1)
    page.set_font("Helvetica", "", _TEXT_PT - 1)
    with page.table(headings_style=FontFace(emphasis="BOLD"), line_height=5.5, text_align="LEFT") as table:
        for row in rows:
            cells = table.row()
            for cell in row:
                cells.cell(_plain(cell))
    page.ln(2)


def _picture(page: FPDF, chart: Chart) -> None:
    drawn = SVGObject(_plain(svg(chart)))
    height = page.epw * float(drawn.height or 0) / float(drawn.width or 1)
    if page.get_y() + height > page.page_break_trigger:
        page.add_page()
    page.image(BytesIO(_plain(svg(chart)).encode()), w=page.epw)
    page.ln(3)
