"""The post-mortem: the incident of 2014 from its events, and whatever the runbook leaves in an audit."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from datetime import UTC, timedelta
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.unit.fakes import World
from tests.unit.lanes import Run
from tests.unit.postmortem.incident_2014 import GENEVA, INCIDENT, INSTANCES, LOG, recorded
from tests.unit.world_parts import instance
from unlatch.errors import CheckFailedError
from unlatch.models import Answer
from unlatch.postmortem import markup
from unlatch.postmortem.account import Account, read
from unlatch.postmortem.document import Bullets, Document, Grid, Heading, Paragraph, duration
from unlatch.postmortem.durations import PHASES, of_lane, totals
from unlatch.postmortem.pdf import pdf
from unlatch.postmortem.picture import COLOURS, svg, text_bars
from unlatch.postmortem.report import Past, chart, write

HOUR = 3600


@pytest.fixture
def of_2014(tmp_path: Path) -> Account:
    return read(INCIDENT, recorded(tmp_path / "2014.db").audit_rows(incident=INCIDENT))


@pytest.fixture
def document(of_2014: Account) -> Document:
    return write(of_2014, GENEVA)


def section(document: Document, title: str) -> list[str]:
    """The texts of a section."""
    blocks = list(document.blocks[:-1])  # the last one says what it was written from
    start = blocks.index(Heading(title)) + 1
    inside = itertools.takewhile(lambda b: not isinstance(b, Heading), blocks[start:])
    texts: list[str] = []
    for block in inside:
        match block:
            case Paragraph(text):
                texts.append(text)
            case Bullets(items):
                texts += ["\n".join([text, *below]) for text, below in items]
            case Grid(head, rows):
                texts += [" | ".join(row) for row in (head, *rows)]
    return texts


def of_world(world: World, run: Run) -> Account:
    return read(run.incident, world.store.audit_rows(incident=run.incident, limit=10_000))


# --- 2014 ------------------------------------------------------------------------------------------------------------


def test_the_time_line_of_2014(document: Document) -> None:
    """It should give the time line of the report of 2014: the same moments, and the same things at each."""
    lines = section(document, "Time line of the incident")
    expected = [
        ("18-Oct-14 05:54", "Virtual machine dbvrtg4037 hosting 3 databases (VOMS, lxr, alvmysql) crashed"),
        ("18-Oct-14 05:54", "restarted it"),
        ("18-Oct-14 10:47", "DBoD team is notified"),
        ("18-Oct-14 10:47", "a person was asked to decide"),
        ("18-Oct-14 17:30", "Ignacio from the DBoD team starts investigating"),
        ("18-Oct-14 17:30", "VOMS, lxr, alvmysql: Ignacio approved the repair"),
        ("18-Oct-14 19:00", "the standard workaround did not work"),
        ("18-Oct-14 19:00", "1 locked file recreated as new files with new inodes and the same content"),
        ("18-Oct-14 19:06", "database restarted by Eva"),
        ("18-Oct-14 19:12", "asking someone to check"),
        ("18-Oct-14 19:25", "VOMS, lxr, alvmysql: accepts logins again"),
        ("18-Oct-14 20:36", "GGUS ticket is updated"),
        ("20-Oct-14 09:00", "Re-check of lock status"),
    ]
    found = [(line, moment, words) for line, (moment, words) in zip(lines, expected, strict=False)]
    assert all(line.startswith(f"{moment} - ") and words in line for line, moment, words in found), lines
    assert [m for m, _ in itertools.groupby(line[:15] for line in lines)] == [
        m for m, _ in itertools.groupby(m for m, _ in expected)
    ]


def test_where_the_time_of_2014_went(of_2014: Account) -> None:
    """It should say what took 13 hours: nobody knew, then nobody was there."""
    spent = totals(of_lane(of_2014, "VOMS"))
    assert {phase: round(seconds / HOUR, 2) for phase, seconds in spent.items()} == {
        "detection": 4.87, "person": 6.72, "locks": 1.5, "recovery": 0.32, "between": 0.1,
    }  # fmt: skip
    waiting = spent["detection"] + spent["person"]
    assert round(waiting / sum(spent.values()), 2) == 0.86
    assert of_2014.seconds_to_access == sum(spent.values()) == 13 * HOUR + 30 * 60 + 8


def test_the_report_of_2014(document: Document) -> None:
    """It should have the form and the words of the report."""
    headings = [block.text for block in document.blocks if isinstance(block, Heading)]
    assert headings == [
        "Description", "Impact", "Time line of the incident", "Where the time went", "Analysis", "Follow up",
    ]  # fmt: skip
    (description,) = section(document, "Description")
    assert "VOMS, lxr and alvmysql were unavailable on Saturday 18 October 2014 from 05:54 to 19:25" in description
    assert "CERN VOMS server not providing proxy anymore" in section(document, "Impact")[-1]
    analysis = "\n".join(section(document, "Analysis"))
    assert "\n".join(LOG) in analysis
    assert "clear: no privilege: the standard workaround did not work" in analysis
    todo = "\n".join(section(document, "Follow up"))
    assert "Grant what clear lacked on VOMS: the privileges for the procedures that remove locks" in todo
    assert "DBoD operations instructions updated" in todo
    assert "The objective was missed" in todo
    assert "objective 15 min 00 s: missed by 13 h 15 min. Most of it was waiting for a person (6 h 43 min)." in todo
    assert "quarantine" not in todo


# --- what the runbook leaves -----------------------------------------------------------------------------------------


@pytest.fixture
def repaired(new_world: Callable[..., World]) -> Account:
    """Three instances that were brought back."""
    world = new_world(instance("voms"), instance("lxr"), instance("alvmysql"))
    run = Run(world)
    run.all()
    return of_world(world, run)


def test_every_second_belongs_to_one_phase(repaired: Account) -> None:
    """It should leave no gap and no overlap between the crash and the access, for each instance."""
    for name in repaired.instances:
        stretches = of_lane(repaired, name)
        assert stretches[0].began == repaired.died_at
        assert stretches[-1].ended == repaired.accessible_at[name]
        assert all(a.ended == b.began for a, b in itertools.pairwise(stretches))
        assert {s.phase for s in stretches} <= set(PHASES)


def test_a_repair(repaired: Account) -> None:
    """It should tell of all instances, and what is still owed."""
    document = write(repaired, UTC)
    assert document.title == "dbvrtg4037: voms, lxr, alvmysql unavailable"
    lines = "\n".join(section(document, "Time line of the incident"))
    assert "voms, lxr, alvmysql: previous incarnation dead" in lines
    assert "2 locked files recreated" in lines
    assert "hv01 restarted it." in lines
    assert "Domain has crashed" in "\n".join(section(document, "Analysis"))
    assert section(document, "Follow up") == ["9 originals are in quarantine until the next working day's clean-up."]
    assert any("objective 15 min 00 s: met" in text for text in section(document, "Where the time went"))


def test_a_refusal(world: World) -> None:
    """It should say why nothing was done, that there is no access, and what a person was told to do."""
    world.answers["processes"] = Answer.ALIVE
    run = Run(world)
    run.attempt()
    document = write(of_world(world, run), UTC)
    assert "access was not proven" in section(document, "Description")[0]
    assert section(document, "Impact") == ["voms: no access proven"]
    assert any("verdict refused" in line for line in section(document, "Time line of the incident"))
    assert any("verdict was refused" in text for text in section(document, "Analysis"))
    assert any(text.startswith("verdict of voms refused: ") for text in section(document, "Follow up"))


def test_the_wait_for_a_person(world: World) -> None:
    """It should count the time until the answer as waiting for a person, and name who answered."""
    world.answers["hypervisor_log"] = Answer.NOT_OBSERVED
    run = Run(world)
    run.open()
    run.lane(end="verdict")
    assert run.question() is not None
    world.clock.pause(1200)
    world.answers.clear()
    run.lane(start="verdict", end="verdict")
    account = of_world(world, run)
    assert totals(of_lane(account, "voms")).get("person", 0) >= 1200 - 1e-6


def test_killed_attempts_and_failures_have_their_time(world: World) -> None:
    """It should count the time after a failure until the next attempt, and survive steps without an end."""
    run = Run(world)
    run.open()
    run.lane(end="verdict")
    world.copy_error = {"code": "no_space", "message": "the volume is full", "next": "make room", "exit_code": 3}
    with pytest.raises(Exception, match="full"):
        run.lane(start="clear_locks", end="recreate_files")
    world.clock.pause(600)
    world.copy_error = None
    run.lane(start="recreate_files")
    account = of_world(world, run)
    assert totals(of_lane(account, "voms"))["failure"] >= 600


def test_what_is_not_an_incident() -> None:
    """It should say that the audit tells nothing, not write an empty report."""
    with pytest.raises(CheckFailedError, match="no row that opens inc-1"):
        read("inc-1", [])


def test_past_incidents(of_2014: Account, repaired: Account) -> None:
    """It should stand beside the site's other incidents."""
    past = [
        Past(INCIDENT, "dbvrtg4037", of_2014.began_at, of_2014.seconds_to_access),
        Past("inc-x", "g", repaired.began_at, None),
    ]
    rows = section(write(repaired, GENEVA, past), "Where the time went")
    assert f"{INCIDENT} | dbvrtg4037 | 18-Oct-14 | 13 h 30 min" in rows
    assert any(row.startswith("inc-x | g |") and row.endswith("not reached") for row in rows)


# --- formats ---------------------------------------------------------------------------------------------------------

EVIL = '<script>alert(1)</script> | *bold* `code` %INCLUDE{"x"}% ``` </verbatim> [[link]] \N{SNOWMAN}'


@pytest.fixture
def evil(tmp_path: Path) -> Account:
    """Words of logs and people that try to be markup."""
    store = recorded(tmp_path / "2014.db")
    store.note(INCIDENT, "", "note", "noted", actor="eve", detail={"words": EVIL, "kind": "impact"})
    return read(INCIDENT, store.audit_rows(incident=INCIDENT))


def test_words_are_words(evil: Account) -> None:
    """It should never let them become a tag, a script, a variable or a link."""
    document = write(evil, GENEVA)
    page = markup.html(document)
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "\\<script\\>" in markup.markdown(document)
    wiki = markup.twiki(document)
    assert "%INCLUDE" not in wiki
    assert "<script" not in wiki
    assert "[[" not in wiki


def test_html_needs_nothing_else(document: Document) -> None:
    """It should load nothing, and have its picture inside."""
    page = markup.html(document)
    assert page.count("<svg") == 1
    for word in ("src=", "href=", "@import", "url("):
        assert word not in page


def test_pdf(document: Document, evil: Account, of_2014: Account) -> None:
    """It should be a PDF of some pages, the same for the same audit, and have room for any letter."""
    made = pdf(document, of_2014.last_at)
    assert made.startswith(b"%PDF-")
    assert made == pdf(document, of_2014.last_at)
    assert pdf(write(evil, GENEVA), of_2014.last_at).startswith(b"%PDF-")


def test_the_picture(of_2014: Account) -> None:
    """It should be valid SVG whose bars cover the whole time, with the objective's line and a legend."""
    drawn = chart(of_2014)
    root = ET.fromstring(svg(drawn))
    bars = [r for r in root.iter("{http://www.w3.org/2000/svg}rect") if list(r)]
    widths = sum(float(r.get("width", "0")) for r in bars)
    assert widths == pytest.approx(len(INSTANCES) * (920 - 130 - 30), abs=3)
    texts = [t.text for t in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "objective 15 min 00 s" in texts
    assert {*INSTANCES, "waiting for a person", "12 h"} <= set(texts)
    assert set(COLOURS) == set(PHASES)
    lines = text_bars(drawn)
    assert lines[0].strip().startswith("VOMS |DDDDD")
    assert "P waiting for a person" in "\n".join(lines)


def test_it_says_what_it_was_written_from(of_2014: Account, document: Document) -> None:
    """It should name the rows and the head, so that a reader can verify them."""
    last = document.blocks[-1]
    assert isinstance(last, Paragraph)
    assert of_2014.rows[-1].hash in last.text
    assert json.dumps(of_2014.rows[0].sequence) in last.text


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s"), (59.94, "59.9 s"), (60, "1 min 00 s"), (3599, "59 min 59 s"), (48608, "13 h 30 min"),
     (timedelta(days=2, hours=3).total_seconds(), "2 d 03 h")],
)  # fmt: skip
def test_durations_read_well(seconds: float, words: str) -> None:
    """It should use the units that people would."""
    assert duration(seconds) == words
