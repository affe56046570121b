"""What all formats but xend's share: stamps, names, memory, hostile lines. The meaning of lines is in the samples."""

from __future__ import annotations

import importlib
import io
import pkgutil
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

import unlatch.crash_sources
from unlatch.crash_logs import parse_log
from unlatch.crash_sources._format import LONGEST_LINE_CHARS, REMEMBERED
from unlatch.crash_sources._lines import LineReader
from unlatch.crash_sources.kernel import PLUGIN as KERNEL
from unlatch.crash_sources.libvirt_qemu import PLUGIN as LIBVIRT
from unlatch.models import Certainty, CrashEvent, DomainChange, Guest

SOURCES = {
    m.name: importlib.import_module(f"unlatch.crash_sources.{m.name}").PLUGIN
    for m in pkgutil.iter_modules(unlatch.crash_sources.__path__)
    if not m.name.startswith("_")
}
READ_AT = datetime(2026, 3, 6, tzinfo=UTC)


def told(*lines: str, path: str = "", undated_at: datetime | None = READ_AT) -> list[CrashEvent]:
    """What `--format auto` tells, ambiguous events too."""
    stream = io.BytesIO("\n".join(lines).encode())
    return list(parse_log(stream, "auto", "UTC", "hv01", SOURCES, path=path, undated_at=undated_at, ambiguous=True))


@pytest.mark.parametrize(
    ("line", "moment"),
    [
        ("2026-03-05T11:20:31.25+01:00 hv01 kernel: x", datetime(2026, 3, 5, 10, 20, 31, 250000, tzinfo=UTC)),
        ("2026-03-05 10:20:31.096+0000: shutting down", datetime(2026, 3, 5, 10, 20, 31, 96000, tzinfo=UTC)),
        ("2026-03-05 11:20:31,759+01 ERROR x", datetime(2026, 3, 5, 10, 20, 31, 759000, tzinfo=UTC)),
        ("2026-03-05 11:20:31 x", datetime(2026, 3, 5, 10, 20, 31, tzinfo=UTC)),
        ("Mar  5 11:20:31 hv01 kernel: x", datetime(2026, 3, 5, 10, 20, 31, tzinfo=UTC)),
        ("<6>Dec 31 23:30:00 hv01 kernel: x", datetime(2025, 12, 31, 22, 30, tzinfo=UTC)),
        ("Feb 29 12:00:00 hv01 kernel: x", datetime(2024, 2, 29, 11, tzinfo=UTC)),
        ("[Thu Mar  5 11:20:31 2026] x", datetime(2026, 3, 5, 10, 20, 31, tzinfo=UTC)),
        ("type=VIRT_CONTROL msg=audit(1772706031.5:7): x", datetime(2026, 3, 5, 10, 20, 31, 500000, tzinfo=UTC)),
        ('{"__REALTIME_TIMESTAMP":"1772706031000000"}', datetime(2026, 3, 5, 10, 20, 31, tzinfo=UTC)),
        ('{"timestamp":"2026-03-05T10:20:31Z","msg":"x"}', datetime(2026, 3, 5, 10, 20, 31, tzinfo=UTC)),
        ("level=info timestamp=2026-03-05T10:20:31Z x", datetime(2026, 3, 5, 10, 20, 31, tzinfo=UTC)),
        ("[ 8418.356520] x", None),
        ("11:20:31 hv01 systemd[1]: x", None),
        ("2026-02-31 11:20:31 x", None),
        ("2026-03-05T25:20:31Z x", None),
        ('{"__REALTIME_TIMESTAMP":"999999999999999999"}', None),
        ("{not json", None),
    ],
    ids=lambda v: str(v)[:24],
)
def test_stamps(line: str, moment: datetime | None) -> None:
    """It should read what programs write, in the zone of the log, and nothing from what no clock shows."""
    assert LineReader("Europe/Zurich", None, READ_AT).moment(line) == moment


def test_repeated_hour_goes_on_forward() -> None:
    """It should take the second pass of the hour when the log went back, also from lines that say nothing."""
    killed = "Oct 26 02:{} hv01 kernel: Out of memory: Killed process {} (qemu-kvm) total-vm:1kB"
    lines = [killed.format("30:00", 1), "Oct 26 02:59:59 hv01 sshd[1]: hello", killed.format("10:00", 2)]
    parse = KERNEL.line_parser("Europe/Zurich", undated_at=datetime(2025, 12, 1, tzinfo=UTC))
    first, second = [fact.at for line in lines for fact in parse(line)]
    assert first == datetime(2025, 10, 26, 0, 30, tzinfo=UTC)
    assert second == datetime(2025, 10, 26, 1, 10, tzinfo=UTC)


def test_line_without_a_stamp_proves_nothing() -> None:
    """It should be left out of facts, and told with the moment of reading only where that was asked for."""
    line = "shutting down, reason=crashed"
    assert list(LIBVIRT.facts([line], "UTC", "/var/log/libvirt/qemu/db1.log")) == []
    assert told(line, undated_at=None) == []
    (event,) = told(line, path="/var/log/libvirt/qemu/db1.log")
    assert (event.domain, event.at, event.dated) == ("db1", READ_AT, False)


def test_domain_without_a_name_is_nobodys() -> None:
    """It should not be taken for a guest, whatever the inventory's patterns are."""
    greedy = Guest("g", "hv01", "c", (".*", r"\d+"), ())
    (event,) = told("2026-03-05T11:20:31Z hv kernel: qemu-kvm[1385]: segfault at 0 ip 0 sp 0 error 14")
    assert event.domain == "?qemu-kvm[1385]"
    assert not greedy.is_called(event.domain)


@pytest.mark.parametrize("name", sorted(set(SOURCES) - {"xend", "xl", "libvirt_qemu", "kubevirt", "pacemaker", "audit",
                                                         "xen_console"}))  # fmt: skip
def test_formats_that_cannot_prove_never_say_crashed(name: str) -> None:
    """It should be a module that does not even use the word for a proven death."""
    module = importlib.import_module(f"unlatch.crash_sources.{name}")
    assert module.__file__ is not None
    assert "DomainChange.CRASHED" not in Path(module.__file__).read_text()


def test_lines_of_one_wrapped_message_belong_together() -> None:
    """It should give a line without a stamp the moment of the one before it where the format wraps its lines."""
    (event,) = told(
        "2026-03-05 10:20:31,759Z ERROR [org.ovirt.engine.core.dal.dbbroker.auditloghandling.AuditLogDirector] ",
        "(ForkJoinPool-1-worker-29) [4d2213d2] EVENT_ID: VM_DOWN_ERROR(119), VM ledger is down with error. ",
        "Exit message: Lost connection with qemu process.",
        undated_at=None,
    )
    assert (event.domain, event.certainty, event.dated) == ("ledger", Certainty.CERTAIN, True)
    assert event.at == datetime(2026, 3, 5, 10, 20, 31, 759000, tzinfo=UTC)


def test_event_in_many_lines() -> None:
    """It should put an XML event together from its lines, and take its own time."""
    lines = [
        '<Provider Name="Microsoft-Windows-Hyper-V-Worker" Guid="{51ddfa29}" />',
        "<EventID>18590</EventID>",
        '<TimeCreated SystemTime="2026-03-05T10:20:31.2356205Z" />',
        "<VmName>ledger</VmName>",
    ]
    (event,) = told(*lines, undated_at=None)
    assert (event.domain, event.at) == ("ledger", datetime(2026, 3, 5, 10, 20, 31, 235620, tzinfo=UTC))
    assert told(*lines[1:]) == []


def test_words_of_users_are_not_the_kernels() -> None:
    """It should believe the kernel's words from the kernel only."""
    words = "Out of memory: Killed process 7 (qemu-kvm) total-vm:1kB"
    assert told(f"2026-03-05T11:20:31Z hv alice[7]: {words}") == []
    assert told('{"_TRANSPORT":"syslog","SYSLOG_IDENTIFIER":"kernel","MESSAGE":"%s"}' % words) == []  # noqa: UP031
    assert told(f"2026-03-05T11:20:31Z hv alice: note: {words}") == []


@given(st.binary(max_size=2000), st.booleans())
def test_random_bytes_are_no_crash(junk: bytes, lines_of_it: bool) -> None:
    """It should neither raise nor tell a certain crash."""
    data = junk.replace(b"\x00", b"\n") if lines_of_it else junk
    assert list(parse_log(io.BytesIO(data), "auto", "Europe/Zurich", "hv01", SOURCES, undated_at=READ_AT)) == []


def test_memory_is_bounded() -> None:
    """It should forget what it met the longest time ago, so that the state stays small."""
    task = "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),task_memcg=/qemu.slice/{0}.scope,task=kvm,pid={0},uid=0"
    parse = KERNEL.line_parser("UTC", undated_at=READ_AT)
    for number in range(1000, 1000 + REMEMBERED * 2):
        parse(task.format(number))
    assert sum(len(entries) for entries in parse.state().values()) == REMEMBERED
    assert [f.domain for f in parse("Killed process 1000 (kvm) total-vm:1kB")] == ["?kvm[1000]"]
    assert [f.domain for f in parse(f"Killed process {999 + REMEMBERED * 2} (kvm) total-vm:1kB")] == [
        str(999 + REMEMBERED * 2)
    ]


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_patterns_take_linear_time(name: str) -> None:
    """It should not be held up by lines made to make patterns backtrack; a slow one would hit the test's time limit."""
    source, room = SOURCES[name], LONGEST_LINE_CHARS - 200
    parse = source.line_parser("UTC", undated_at=READ_AT)
    for program in ("", "kernel: ", "systemd[1]: ", "xenopsd-xc: ", "libvirtd[1]: ", "pve-ha-crm[1]: "):
        stamp = f"2026-03-05T11:20:31Z hv01 {program}" if program else ""
        for hint in source.hints:
            for filler in ("a", " ", "/", "(", "=", "a:", "x.scope", hint):
                parse(stamp + hint + filler * (room // len(filler)))


def test_path_names_the_domain() -> None:
    """It should take the domain from where the log lies."""
    at = "2026-03-05T10:20:31.100Z"
    (event,) = told(f"{at}| vcpu-0| I125: PANIC: Unexpected signal: 11.", path="/vmfs/volumes/ds/db 1/vmware.log")
    assert (event.domain, event.signal) == (PurePosixPath("/vmfs/volumes/ds/db 1").name, 11)
    assert DomainChange.DOWN in {f.change for f in SOURCES["vmware"].facts([event.lines[0]], "UTC", "/x/y/vmware.log")}
