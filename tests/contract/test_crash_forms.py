"""Every kind of line that was met in the wild, judged as a whole, as `unlatch parse-log --format auto` does.

`crash_forms.txt` has one entry for each: `=== crash DOMAIN | form`, `=== none | form`, `=== sign DOMAIN | form: why it
is no more`, `=== left out | form: why`, and the lines below it. docs/crash-sources.md gives the reasons to users.
"""

from __future__ import annotations

import io
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.contract.test_crash_sources import SOURCES
from unlatch.crash_logs import parse_log
from unlatch.models import Certainty, CrashEvent

READ_AT = datetime(2026, 4, 1, tzinfo=UTC)


class Entry(NamedTuple):
    """One entry of the file."""

    judged: str
    domain: str
    form: str
    lines: str


def _entries() -> list[Entry]:
    text = (Path(__file__).parent / "crash_forms.txt").read_text()
    heads = r"^=== (crash|none|sign|left out)(?: ([^|\n]+))? \| (.+)\n"
    _, *parts = re.split(heads, text, flags=re.MULTILINE)
    return [Entry(parts[n], parts[n + 1] or "", parts[n + 2], parts[n + 3]) for n in range(0, len(parts), 4)]


ENTRIES = _entries()


def _told(lines: str) -> list[CrashEvent]:
    stream = io.BytesIO(lines.encode())
    return list(parse_log(stream, "auto", "UTC", "hv01", SOURCES, undated_at=READ_AT, ambiguous=True))


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda e: f"{e.judged}-{e.form.split(':')[0]}")
def test_each_form_is_judged_right(entry: Entry) -> None:
    """It should find every crash of a format that is read, once and with its domain, and no crash in anything else."""
    events = _told(entry.lines)
    certain = [e.domain for e in events if e.certainty is Certainty.CERTAIN]
    signs = [e.domain for e in events if e.certainty is Certainty.AMBIGUOUS]
    assert certain == ([entry.domain] if entry.judged == "crash" else [])
    if entry.judged == "sign":
        assert signs == [entry.domain]
    if entry.judged == "left out":
        assert signs == []


def test_what_is_no_crash_says_why() -> None:
    """It should not leave a line aside without a reason."""
    assert len(ENTRIES) == (Path(__file__).parent / "crash_forms.txt").read_text().count("=== ")
    assert all(": " in e.form for e in ENTRIES if e.judged in {"sign", "left out"})
    assert {e.judged for e in ENTRIES} == {"crash", "none", "sign", "left out"}


def test_all_that_is_no_crash_together_is_none() -> None:
    """It should raise no false alarm either when everything harmless stands in one log, in any of two orders."""
    harmless = [e.lines for e in ENTRIES if e.judged != "crash"]
    for lines in (harmless, harmless[::-1]):
        assert [e.domain for e in _told("".join(lines)) if e.certainty is Certainty.CERTAIN] == []
