"""Whole logs: however they arrive, they tell what their lines tell one by one."""

from __future__ import annotations

import importlib
import io
import json
import pkgutil
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

import unlatch.crash_sources
from unlatch.crash_events import fold
from unlatch.crash_logs import parse_log
from unlatch.crash_sources._format import CONTINUED_LINES
from unlatch.models import CrashEvent
from unlatch.word_search import AnyOf

SAMPLES = sorted((Path(__file__).parents[1] / "contract" / "crash_sources").glob("*/*.log"))
SOURCES: dict[str, Any] = {
    m.name: importlib.import_module(f"unlatch.crash_sources.{m.name}").PLUGIN
    for m in pkgutil.iter_modules(unlatch.crash_sources.__path__)
    if not m.name.startswith("_")
}
READ_AT = datetime(2026, 4, 1, tzinfo=UTC)
NOISE = (
    b"\x00\xff\xfe half a line",
    b"\xc3\xa4\xe2\x82\xac \xff mixed encodings\r",
    b"2026-03-05 10:20:31,759Z INFO nothing of interest",
    b"    at org.ovirt.engine.Frame(Frame.java:17)",
    b"Oct 26 02:30:00 hv sshd[1]: hello",
    b"",
    b"z" * 70_000,
)


class Trickle:
    """A stream that gives its bytes in pieces of these sizes, then one by one hundred."""

    def __init__(self, data: bytes, sizes: list[int]) -> None:
        self._left, self._sizes = io.BytesIO(data), iter(sizes)

    def read1(self, _size: int) -> bytes:
        return self._left.read(next(self._sizes, 100))

    read = read1


def _told(stream: object, zone: str = "UTC", log_format: str = "auto") -> list[CrashEvent]:
    found = parse_log(cast("BinaryIO", stream), log_format, zone, "hv01", SOURCES, undated_at=READ_AT, ambiguous=True)
    return list(found)


def _line_by_line(data: bytes, zone: str) -> list[CrashEvent]:
    """What it means: every line, to every format."""
    parsers = [source.line_parser(zone, undated_at=READ_AT) for source in SOURCES.values()]
    lines = [line.rstrip("\r") for line in data.decode("utf-8", "replace").split("\n")]
    return list(fold((fact for line in lines for parse in parsers for fact in parse(line)), "hv01"))


@st.composite
def logs(draw: st.DrawFn) -> bytes:
    """Some samples, torn apart by noise here and there."""
    chosen = draw(st.lists(st.sampled_from(SAMPLES), min_size=1, max_size=3))
    lines = [line for log in chosen for line in log.read_bytes().split(b"\n")]
    for _ in range(draw(st.integers(0, 6))):
        many = draw(st.sampled_from((1, 2, CONTINUED_LINES - 1, CONTINUED_LINES, 300)))
        at, noise = draw(st.integers(0, len(lines))), draw(st.sampled_from(NOISE))
        lines[at:at] = [noise] * (many if len(noise) < 1000 else 1)
    return b"\n".join(lines)


@given(log=logs(), sizes=st.lists(st.integers(1, 5000), max_size=60), zone=st.sampled_from(("UTC", "Europe/Zurich")))
def test_wherever_the_stream_is_cut(log: bytes, sizes: list[int], zone: str) -> None:
    """It should tell the same from any pieces of a log, and what its lines tell one by one."""
    expected = _line_by_line(log, zone)
    assert _told(io.BytesIO(log), zone) == expected
    assert _told(Trickle(log, sizes), zone) == expected


@given(log=logs(), end=st.integers(0, 10_000), junk=st.binary(max_size=300))
def test_torn_logs(log: bytes, end: int, junk: bytes) -> None:
    """It should read a log that ends in the middle of a line, or goes on with anything, without raising."""
    _told(io.BytesIO(log[:end] + junk + log[end:]))
    _told(io.BytesIO(log[:end]))


@pytest.mark.parametrize("between", [0, CONTINUED_LINES - 2, CONTINUED_LINES - 1])
@pytest.mark.parametrize("size", [1, 40, 1 << 20])
def test_message_of_many_lines(between: int, size: int) -> None:
    """It should give a line the time of the message that it may belong to, and none when that is too far behind."""
    lines = [
        "2026-03-05 10:20:31,759Z ERROR [org.ovirt.engine.core.dal.dbbroker.AuditLogDirector] ",
        *["    at org.ovirt.engine.Frame(Frame.java:17)"] * between,
        "(Worker-29) EVENT_ID: VM_DOWN_ERROR(119), VM ledger is down with error. Exit message: qemu exited",
    ]
    (event,) = _told(Trickle("\n".join(lines).encode(), [size] * 10_000))
    assert event.dated is (between < CONTINUED_LINES - 1)


def test_memory_is_constant() -> None:
    """It should hold a few pieces of a log, however long the log and its lines are."""
    junk = b"".join(
        (*(b"%d Domain nothing\n" % n for n in range(2000)), b"y" * 300_000, b"\n", bytes(range(256)) * 400)
    )

    class Endless:
        """A hundred times the junk."""

        def __init__(self) -> None:
            self._pieces: Iterator[bytes] = iter([junk] * 100)

        def read(self, _size: int) -> bytes:
            return next(self._pieces, b"")

    _told(io.BytesIO(junk))  # what is made once
    tracemalloc.start()
    try:
        assert _told(Endless()) == []
        assert tracemalloc.get_traced_memory()[1] < 20 * len(junk)
    finally:
        tracemalloc.stop()


@given(words=st.lists(st.text(min_size=1, max_size=8), max_size=90), text=st.text(max_size=200), number=st.integers(0))
def test_any_of(words: list[str], text: str, number: int) -> None:
    """It should say what looking for each word would say, with any characters in them."""
    found = AnyOf(words)
    planted = text + (words[number % len(words)] if words else "")
    for looked_at in (text, planted):
        assert found(looked_at) is any(word in looked_at for word in words)


def test_state_of_an_interrupted_message_survives() -> None:
    """It should know the time of a message also when the reading stopped in the middle of it."""
    source = SOURCES["ovirt"]
    first = source.line_parser("UTC")
    first("2026-03-05 10:20:31,759Z ERROR [org.ovirt.engine.core.dal.dbbroker.AuditLogDirector] ")
    then = source.line_parser("UTC", state=json.loads(json.dumps(first.state())))
    (fact,) = then("EVENT_ID: VM_DOWN_ERROR(119), VM ledger is down with error. Exit message: qemu exited")
    assert fact.at == datetime(2026, 3, 5, 10, 20, 31, 759000, tzinfo=UTC)
