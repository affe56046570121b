"""A document without a format: what a report is made of, for the modules that print it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Heading:
    """A section's title."""

    text: str


@dataclass(frozen=True)
class Paragraph:
    """Running text."""

    text: str


@dataclass(frozen=True)
class Bullets:
    """A list; each item has its text, and may have lines (of a log) below it."""

    items: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True)
class Grid:
    """A table."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Bar:
    """A piece of a chart's row: seconds from the beginning, phase."""

    phase: str
    began_s: float
    ended_s: float


@dataclass(frozen=True)
class Chart:
    """Where the time went: one row of bars per instance; `objective_s` is where the promise ends."""

    rows: tuple[tuple[str, tuple[Bar, ...]], ...]
    objective_s: float | None
    summary: str

    @property
    def length_s(self) -> float:
        """What the longest row takes."""
        return max([1.0, *(bar.ended_s for _, bars in self.rows for bar in bars)])


Block = Heading | Paragraph | Bullets | Grid | Chart


@dataclass(frozen=True)
class Document:
    """A titled sequence of blocks."""

    title: str
    blocks: tuple[Block, ...]


def bullets(texts: Sequence[str]) -> Bullets:
    """A list of plain items."""
    return Bullets(tuple((text, ()) for text in texts))


def duration(seconds: float) -> str:
    """A time as people say it: `4.2 s`, `3 min 05 s`, `13 h 31 min`, `2 d 03 h`."""
    if seconds < 60:  # noqa: PLR2004  # units of time
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:  # noqa: PLR2004
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 48 else f"{hours // 24} d {hours % 24:02d} h"  # noqa: PLR2004
