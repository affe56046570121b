"""What a journal says: read line by line it is what a plain reading of the whole says, and little is kept of it."""

from __future__ import annotations

import io
import json
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.agent.test_pure import JSON
from unlatch_agent import replaying
from unlatch_agent.errors import RefusedError
from unlatch_agent.journal import Journal

calm = settings(deadline=None)  # a loaded machine is no defect
SOURCE = {"inode": 1, "dev": 2, "size_bytes": 3, "mtime_ns": 4, "ctime_ns": 5}
NAMES = ("ibdata1", "aria_log_control", "weird \n\u00e9", "no text \udcff")
DAMAGED = replaying.DamagedError


@st.composite
def histories(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Journals that the agent could have written."""
    records: list[dict[str, Any]] = [{"event": "begin", "incident": "inc-1", "boot_id": "b"}]
    states = dict.fromkeys(NAMES, "")
    for _ in range(draw(st.integers(0, 14))):
        name = draw(st.sampled_from(NAMES))
        following = sorted(replaying._AFTER[states[name]])
        if not following:
            continue
        states[name] = draw(st.sampled_from(following))
        record: dict[str, Any] = {"event": states[name], "name": name}
        if states[name] in ("copying", "setting_aside"):
            record["source"] = dict(SOURCE, inode=draw(st.integers(1, 9)))
        if states[name] == "prepared":
            record["temp"] = dict(SOURCE, inode=draw(st.integers(1, 9)))
        record.update(draw(st.dictionaries(st.sampled_from(["method", "batch", "after"]), st.integers(), max_size=2)))
        records.append(record)
    for number, record in enumerate(records):
        record["n"] = number
    return records


def written(records: list[dict[str, Any]]) -> bytes:
    """A journal's content."""
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def replayed(content: bytes) -> replaying.History:
    """What a journal's content says, read again from the same content."""
    return replaying.replay(io.BytesIO(content), lambda start, size_bytes, _: content[start : start + size_bytes])


def told(history: replaying.History) -> tuple[Any, ...]:
    """All that a history knows."""
    files = [(entry.name, entry.state, entry.facts) for entry in history.entries.values()]
    return history.incident, history.boot_id, files, history.length, history.sound_bytes


def plainly_added(files: dict[str, tuple[str, dict[str, Any]]], event: str, record: dict[str, Any]) -> None:
    """Add a record to what is known of its file."""
    name = record.get("name")
    if not isinstance(name, str) or not name or "/" in name:
        raise DAMAGED
    state, known = files.get(name, ("", {}))
    if event not in replaying._AFTER[state]:
        raise DAMAGED
    facts = {**({} if event in ("copying", "setting_aside") else known), **record}
    for key in ("source", "temp"):
        found = record.get(key) if key in record else SOURCE
        if not isinstance(found, dict) or any(type(found.get(part)) is not int for part in SOURCE):
            raise DAMAGED
    if "source" not in facts:
        raise DAMAGED
    files[name] = (event, {key: facts[key] for key in facts if key not in ("n", "at", "event", "name")})


def plainly(content: bytes) -> tuple[Any, ...]:
    """The same, as simple as can be: all lines and all that they say at once."""
    lines = content.split(b"\n")[:-1]
    incident = boot_id = None
    files: dict[str, tuple[str, dict[str, Any]]] = {}
    for number, line in enumerate(lines):
        try:
            record = json.loads(line.decode())
            event, sequence = str(record["event"]), record["n"]
        except (ValueError, KeyError, TypeError):
            if number < len(lines) - 1:
                raise DAMAGED from None
            lines = lines[:-1]
            break
        if sequence != number or (event == "begin") != (number == 0):
            raise DAMAGED
        if event == "begin":
            incident, boot_id = str(record.get("incident")), str(record.get("boot_id"))
            continue
        plainly_added(files, event, record)
    sound_bytes = sum(len(line) + 1 for line in lines)
    return incident, boot_id, [(name, *files[name]) for name in files], len(lines), sound_bytes


def same_as_plainly(content: bytes) -> None:
    """Demand that both readings find the same, or both that it is damaged."""
    try:
        expected = plainly(content)
    except DAMAGED:
        with pytest.raises(DAMAGED):
            replayed(content)
    else:
        assert told(replayed(content)) == expected


@calm
@given(histories())
def test_replay(records: list[dict[str, Any]]) -> None:
    """It should end in the state of each file's last record."""
    history = replayed(written(records))
    last = {record["name"]: record["event"] for record in records[1:]}
    assert {entry.name: entry.state for entry in history.entries.values()} == last
    assert history.length == len(records)
    assert history.sound_bytes == len(written(records))
    same_as_plainly(written(records))


@calm
@given(histories(), st.integers(0, 10_000), st.sampled_from([b"", b"\0" * 40, b"\0\n", b"{}\n", b"\n", b'{"n": 1']))
def test_a_torn_tail(records: list[dict[str, Any]], cut: int, tail: bytes) -> None:
    """It should drop a last line that was cut off, or is none, and believe every line before it."""
    content = written(records)
    cut = min(cut, len(content))
    whole = content[:cut].count(b"\n")
    history = replayed(content[:cut])
    assert history.length == whole
    assert history.sound_bytes == len(written(records[:whole]))
    same_as_plainly(content[:cut] + tail)


@calm
@given(histories(), st.integers(0, 20))
def test_a_missing_record(records: list[dict[str, Any]], which: int) -> None:
    """It should not believe a journal in which a record before the last is missing."""
    if which >= len(records) - 1:
        return
    with pytest.raises(DAMAGED):
        replayed(written(records[:which] + records[which + 1 :]))


@calm
@given(histories(), st.data())
def test_damage(records: list[dict[str, Any]], data: st.DataObject) -> None:
    """It should find the same damage as a plain reading, whatever was changed, doubled, moved or left out."""
    content = bytearray(written(records))
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(content)))
        end = data.draw(st.integers(start, min(len(content), start + 300)))
        others = st.sampled_from(
            [b" ", b"\n", b"}\n{", b"1", b'"', b"\xff", b"\0", b"\xef\xbb\xbf", bytes(content[:end])]
        )
        content[start:end] = data.draw(st.just(b"") | others)
    same_as_plainly(bytes(content))


@calm
@given(histories(), st.integers(0, 20), st.sampled_from(["n", "event", "name", "source", "temp"]), JSON)
def test_one_wrong_value(records: list[dict[str, Any]], which: int, key: str, value: object) -> None:
    """It should take a record with another value only where a plain reading does."""
    records[which % len(records)][key] = value
    same_as_plainly(written(records))


@calm
@given(histories(), st.integers(0, 20), st.sampled_from(["n", "event", "name", "source", "temp", "incident"]))
def test_one_missing_value(records: list[dict[str, Any]], which: int, key: str) -> None:
    """It should take a record without a value only where a plain reading does."""
    records[which % len(records)].pop(key, None)
    same_as_plainly(written(records))


@calm
@given(st.binary(max_size=400))
def test_any_bytes(content: bytes) -> None:
    """It should answer or call it damaged, whatever the bytes are."""
    same_as_plainly(content)


@calm
@given(st.lists(st.dictionaries(st.sampled_from(["n", "event", "name", "source", "temp", "incident"]), JSON)))
def test_any_records(records: list[dict[str, Any]]) -> None:
    """It should answer or call it damaged, whatever the records say."""
    same_as_plainly(written(records))


@calm
@given(histories(), st.integers(0, 14), st.booleans())
def test_what_is_recorded_is_what_is_read(records: list[dict[str, Any]], half: int, is_kept: bool) -> None:
    """It should know of what it recorded itself, also after it read the first part, just what another finds in it."""
    with tempfile.TemporaryDirectory() as directory:
        content = written(records[:half])
        path = Path(directory, ".unlatch-inc-1.journal")
        if content:
            path.write_bytes(content)
        owner = Journal(directory, "inc-1")
        for record in records[max(half, 1) :]:
            facts = {key: record[key] for key in record if key not in ("n", "event", "name")}
            owner.record_all(record["event"], [(record["name"], facts)], is_kept=is_kept)
        known = told(owner.history)
        assert known == told(Journal(directory, "inc-1").history)
        assert not path.exists() or known[2:] == plainly(path.read_bytes())[2:]


def generated(path: Path, files: int) -> None:
    """Write the journal of a finished repair of so many files."""
    records: list[dict[str, Any]] = [{"event": "begin", "incident": "inc-1", "boot_id": "b"}]
    events = {
        "copying": {"source": SOURCE, "method": "clone"},
        "prepared": {"temp": SOURCE, "fell_back": [], "metadata_lost": [], "source_sha256": "5" * 64},
        "swapping": {"batch": ["/ORA/dbs03/voms"]},
        "committed": {"after": SOURCE, "quarantined": dict(SOURCE, head_sha256="5" * 64)},
    }
    for event, facts in events.items():
        records += [dict(facts, event=event, name=f"table_{number:06d}.ibd") for number in range(files)]
    for number, record in enumerate(records):
        record.update(n=number, at="2026-11-28T23:09:29.478897Z")
    path.write_bytes(written(records))


def test_memory(tmp_path: Path) -> None:
    """It should take little memory for each file of a journal, also when all are gone through."""
    files = 5000
    generated(tmp_path / ".unlatch-inc-1.journal", files)
    tracemalloc.start()
    try:
        owner = Journal(str(tmp_path), "inc-1")
        assert sum(entry.source_inode for entry in owner.entries) == files
        assert all(owner.quarantine(entry.name) for entry in owner.entries)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak / files < 1200  # a repaired file's four lines are of that size, and were ten times as much as objects


def test_a_journal_that_changes(tmp_path: Path) -> None:
    """It should not believe what is read again when it is not what it was."""
    path = tmp_path / ".unlatch-inc-1.journal"
    generated(path, 2)
    first, second = Journal(str(tmp_path), "inc-1").entries
    assert first.facts["temp"] == SOURCE
    with path.open("r+b") as changed:
        content = path.read_bytes().replace(b'"inode": 1', b'"inode": 7')
        changed.write(content)
    with pytest.raises(RefusedError, match="changed while it was read") as refused:
        _ = second.facts
    assert refused.value.code == "journal_damaged"


def test_open_files(tmp_path: Path) -> None:
    """It should keep no journal open of which nobody asks anything any more."""
    generated(tmp_path / ".unlatch-inc-1.journal", 2)
    before = sum(1 for _ in Path("/proc/self/fd").iterdir())
    for _ in range(3):
        owner = Journal(str(tmp_path), "inc-1")
        assert [entry.state for entry in owner.entries] == ["committed", "committed"]
        owner.record_all("purging", [(entry.name, {}) for entry in owner.entries])
        owner.record_all("purged", [(entry.name, {}) for entry in owner.entries])
        owner.remove()
        generated(tmp_path / ".unlatch-inc-1.journal", 2)
    del owner
    assert sum(1 for _ in Path("/proc/self/fd").iterdir()) == before
