"""What every log format owes: its name, samples with the deaths they tell, and calm in the face of junk.

Samples: `crash_sources/<format>/<case>.log`, beside it `<case>.json` with `timezone`, `facts` (time in UTC, change,
domain, its number, signal) and `events` (the certain deaths, with the number of their lines). Where they matter also
`path` (the log's), `undated_at` (the moment of lines without a stamp) and `signs` (the ambiguous events).
"""

from __future__ import annotations

import importlib
import io
import json
import pkgutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import unlatch.crash_sources
from unlatch.crash_logs import parse_log
from unlatch.errors import ConfigError
from unlatch.models import Certainty, CrashEvent, DomainFact

SAMPLES = Path(__file__).parent / "crash_sources"
NAMES = sorted(m.name for m in pkgutil.iter_modules(unlatch.crash_sources.__path__) if not m.name.startswith("_"))
CASES = sorted(SAMPLES.glob("*/*.log"))
SOURCES = {name: importlib.import_module(f"unlatch.crash_sources.{name}").PLUGIN for name in NAMES}


READ_AT = datetime(2026, 4, 1, tzinfo=UTC)
ALONE = [
    SAMPLES / log
    for log in (
        "audit/gone_without_a_shutdown.log",
        "hyperv/fatal_error_and_triple_fault.log",
        "kernel/out_of_memory.log",
    )
] + [SAMPLES / log for log in ("nova_compute/crashed.log", "pacemaker/fenced.log", "xl/crash_and_restart.log")]
"""Samples that are about different domains."""


def _plain_event(event: CrashEvent) -> dict[str, Any]:
    return {
        "domain": event.domain,
        "at": event.at.isoformat(),
        "signal": event.signal,
        "cause": event.cause,
        "lines": len(event.lines),
        "restarted_at": event.restarted_at.isoformat() if event.restarted_at else None,
    }


def _told(log: bytes, log_format: str, expected: dict[str, Any]) -> list[CrashEvent]:
    """All events, ambiguous ones too."""
    undated = expected.get("undated_at")
    return list(
        parse_log(
            io.BytesIO(log),
            log_format,
            expected["timezone"],
            "hv01",
            SOURCES,
            path=expected.get("path", ""),
            undated_at=datetime.fromisoformat(undated) if undated else None,
            ambiguous=True,
        )
    )


def _plain(fact: DomainFact) -> list[Any]:
    return [fact.at.isoformat(), fact.change.value, fact.domain, fact.domain_id, fact.signal]


@pytest.mark.parametrize("name", NAMES)
def test_name_is_the_modules(name: str) -> None:
    """It should be found under the name that inventories write."""
    assert SOURCES[name].name == name


@pytest.mark.parametrize("name", NAMES)
def test_has_samples_of_crashes_and_of_none(name: str) -> None:
    """It should come with at least one log that tells a crash, or a sign of one, and one that tells none."""
    expected = [json.loads(path.read_text()) for path in (SAMPLES / name).glob("*.json")]
    assert any(e["events"] or e.get("signs") for e in expected), f"put a log with a crash into {SAMPLES / name}"
    assert any(not e["events"] for e in expected), f"put a log without any crash and its .json into {SAMPLES / name}"


def test_every_sample_says_what_is_expected() -> None:
    """It should not carry a log that nothing compares."""
    assert CASES
    assert [p.with_suffix(".json") for p in CASES] == sorted(SAMPLES.glob("*/*.json"))


@pytest.mark.parametrize("log", CASES, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_moments_of_lines_are_those_of_their_facts(log: Path) -> None:
    """It should say of each line when it was written, as the facts that it tells do, and nothing of junk."""
    source, expected = SOURCES[log.parent.name], json.loads(log.with_suffix(".json").read_text())
    zone = expected["timezone"]
    parse, moment_of = source.line_parser(zone, path=expected.get("path", "")), source.line_clock(zone)
    for line in log.read_text().split("\n"):
        moment = moment_of(line)
        assert all(fact.at == moment for fact in parse(line)), line
    assert moment_of("no line of a log") is None


@pytest.mark.parametrize("log", CASES, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_facts_of_the_samples(log: Path) -> None:
    """It should read from each line what the sample's JSON says, and nothing from the others."""
    expected = json.loads(log.with_suffix(".json").read_text())
    lines, path = log.read_text().split("\n"), expected.get("path", "")
    facts = list(SOURCES[log.parent.name].facts(lines, expected["timezone"], path))
    assert all(fact.dated for fact in facts)
    assert [_plain(fact) for fact in facts] == expected["facts"]


@pytest.mark.parametrize("log_format", ["its own", "auto"])
@pytest.mark.parametrize("log", CASES, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_deaths_of_the_samples(log: Path, log_format: str) -> None:
    """It should tell the same deaths whether the format is named or found out."""
    expected = json.loads(log.with_suffix(".json").read_text())
    events = _told(log.read_bytes(), log.parent.name if log_format == "its own" else "auto", expected)
    assert all(e.hypervisor == "hv01" and e.guest is None for e in events)
    certain = [e for e in events if e.certainty is Certainty.CERTAIN]
    assert [_plain_event(e) for e in certain] == expected["events"]
    if "signs" in expected:
        assert [_plain_event(e) for e in events if e not in certain] == expected["signs"]


@pytest.mark.parametrize(
    "log", [log for log in CASES if log.parent.name != "xend"], ids=lambda p: f"{p.parent.name}-{p.stem}"
)
def test_deaths_are_the_same_wherever_the_reading_is_interrupted(log: Path) -> None:
    """It should go on from its kept state after each line as if it had never stopped, as the watch does.

    xend learns again from its log which number is whose; what it does not know it leaves out.
    """
    expected, source = json.loads(log.with_suffix(".json").read_text()), SOURCES[log.parent.name]
    path, zone = expected.get("path", ""), expected["timezone"]
    lines, state, found = log.read_text().split("\n"), None, []
    for line in lines:
        parse = source.line_parser(zone, path=path, state=json.loads(json.dumps(state)))
        found += parse(line)
        state = parse.state()
    assert found == list(source.facts(lines, zone, path))


@pytest.mark.parametrize("log", CASES, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_every_line_that_says_something_has_a_hint(log: Path) -> None:
    """It should be enough to read the lines that contain one of the format's hints."""
    expected, source = json.loads(log.with_suffix(".json").read_text()), SOURCES[log.parent.name]
    path, zone, lines = expected.get("path", ""), expected["timezone"], log.read_text().split("\n")
    hinted = [line for line in lines if any(hint in line for hint in source.hints)]
    assert list(source.facts(hinted, zone, path)) == list(source.facts(lines, zone, path))


@pytest.mark.parametrize("log", CASES, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_deaths_in_the_middle_of_anything_else(log: Path) -> None:
    """It should tell the same deaths from a log that begins torn and has junk, huge lines and other text in it."""
    expected = json.loads(log.with_suffix(".json").read_text())
    noise = [b"\x00\xff\xfe half a line", b"z" * 70_000, '\ufeff{"MESSAGE":'.encode(), b"{" * 3000, b"[1,", b"\r"]
    lines = [part for n, line in enumerate(log.read_bytes().split(b"\n")) for part in (noise[n % len(noise)], line)]
    events = _told(b"\n".join(lines), "auto", expected)
    assert [_plain_event(e) for e in events if e.certainty is Certainty.CERTAIN] == expected["events"]


@pytest.mark.parametrize("name", NAMES)
@given(junk=st.binary(max_size=4000))
def test_junk_is_skipped(name: str, junk: bytes) -> None:
    """It should read any bytes without raising, and find no death in them."""
    assert list(parse_log(io.BytesIO(junk), name, "Europe/Zurich", "hv01", SOURCES, undated_at=READ_AT)) == []


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_damaged_samples_never_raise(name: str, data: st.DataObject) -> None:
    """It should survive real logs with bytes overwritten, removed and put in anywhere."""
    log = data.draw(st.sampled_from([p for p in CASES if p.parent.name == name])).read_bytes()
    at = data.draw(st.integers(0, len(log)))
    until = data.draw(st.integers(at, min(len(log), at + 200)))
    damaged = log[:at] + data.draw(st.binary(max_size=50)) + log[until:]
    list(parse_log(io.BytesIO(damaged), name, "Europe/Zurich", "hv01", SOURCES, undated_at=READ_AT))


@given(data=st.data())
def test_order_of_unrelated_logs_does_not_matter(data: st.DataObject) -> None:
    """It should tell from logs put together in any order what each of them tells."""
    chosen = data.draw(st.lists(st.sampled_from(ALONE), unique=True, min_size=2, max_size=4))
    together = b"".join(log.read_bytes() for log in chosen)
    told = _told(together, "auto", {"timezone": "UTC"})
    apart = [e for log in chosen for e in _told(log.read_bytes(), "auto", {"timezone": "UTC"})]
    assert sorted(told, key=repr) == sorted(apart, key=repr)


@pytest.mark.parametrize("name", NAMES)
def test_unknown_zone_is_a_mistake_in_the_configuration(name: str) -> None:
    """It should say so instead of guessing a time."""
    for zone in ("Europe/Nowhere", "../../etc/passwd", ""):
        with pytest.raises(ConfigError, match="time zone"):
            list(SOURCES[name].facts([], zone))
