"""What is known of the crash is kept with the incident, for those who look for its cause later.

In 2014 nobody kept it: no core dump of the device model, no kernel log of the guest, and a hypervisor's log that had
been rotated away when it was asked for. Everything here only reads, as the connections' login users, and in bounded
time; what is not there, or may not be read, is said so. It runs beside the repair and can neither stop nor delay it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import PurePosixPath

from unlatch.casebook import Incident
from unlatch.errors import TransientError, UnlatchError
from unlatch.excerpts import hide_secrets, trimmed
from unlatch.models import Json, Value
from unlatch.ports import CommandAnswer, IncidentPorts
from unlatch.recording import fingerprint, recorded, tell

AROUND_S = 60.0
"""How far before and after the death the hypervisor's log is kept."""

BUDGET_S = 120.0
"""How long all of it may take; what is left then is not looked at."""

DUMPS_SINCE = timedelta(hours=1)
"""How long before the death a dump may have been written and still be about it."""

_COMMAND_S = 20
_LINES = 400
_TIMED_OUT = 124
_NOT_FOUND = (126, 127)

GUEST_DUMP_PLACES = (
    "/var/crash", "/var/lib/systemd/coredump", "/var/lib/systemd/pstore", "/sys/fs/pstore", "/var/spool/abrt",
)  # fmt: skip
HYPERVISOR_DUMP_PLACES = (
    "/var/lib/xen/dump", "/var/xen/dump", "/var/crash", "/var/lib/systemd/coredump", "/var/lib/libvirt/qemu/dump",
    "/var/log/xen", "/var/spool/abrt",
)  # fmt: skip

DUMP_NAMES = ("*core*", "*dump*", "*crash*", "*dmesg*")


@dataclass(frozen=True)
class CrashFact(Value):
    """One thing that was looked for.

    Attributes:
        what: What it is.
        host: Where.
        found: Whether something was there; None when it could not be looked at.
        words: What was found, or why not and what would help, for a person.
        text: What is kept of it; at most `EXCERPT_BYTES`.
    """

    what: str
    host: str
    found: bool | None
    words: str
    text: str = ""


@recorded
def keep_crash_facts(incident: Incident, ports: IncidentPorts) -> Json:
    """Collect what hypervisor and guest tell of the crash. Changes nothing anywhere; again, it looks again.

    Returns:
        `{"facts": [CrashFact as JSON, …]}`.
    """
    row = ports.store.incident(incident.incident)
    known = incident.event.at if incident.event else row.died_at if row else None
    died_at = known or (row.opened_at if row else ports.clock.now())
    deadline = ports.clock.now() + timedelta(seconds=BUDGET_S)
    name = incident.guest.name
    guest = _Host(name, lambda argv: ports.agent(name).command(argv), deadline, ports)
    hypervisor = _Host(incident.guest.hypervisor, lambda argv: ports.run_on("hypervisor", name, argv), deadline, ports)
    facts = [
        _hypervisor_log(incident, ports, died_at),
        _kernel_log(guest, boot=-1),
        _kernel_log(guest, boot=0),
        _dumps(guest, GUEST_DUMP_PLACES, died_at),
        _crash_kernel(guest),
        _dumps(hypervisor, HYPERVISOR_DUMP_PLACES, died_at),
    ]
    words = comment(incident.incident, facts)
    tell(incident, ports, f"keep_crash_facts/{fingerprint(words)}", words)
    return {"facts": [fact.as_dict() for fact in facts]}


def comment(incident: str, facts: Sequence[CrashFact]) -> str:
    """For the ticket: what there is, without the texts."""
    rows = [f"| {f.host} | {f.what} | {_cell(f.words)} |" for f in facts]
    return (
        f"**What is known of the crash**, kept with the incident (`unlatch show --json {incident}`):\n\n"
        "| host | what | found |\n|---|---|---|\n" + "\n".join(rows)
    )


def _cell(words: str) -> str:
    return " ".join(words.split()).replace("|", r"\|")


# --- asking a host ---------------------------------------------------------------------------------------------------


class _Unanswered(Exception):  # noqa: N818  # a reason, not an error
    """Why a host did not answer."""


class _Host:
    """Asks one host short questions; one that is away is not asked again."""

    def __init__(
        self, name: str, run: Callable[[Sequence[str]], CommandAnswer], deadline: datetime, ports: IncidentPorts
    ) -> None:
        self.name = name
        self._run = run
        self._deadline = deadline
        self._ports = ports
        self._away: str | None = None

    def ask(self, *argv: str) -> CommandAnswer:
        """Run a command that reads.

        Raises:
            _Unanswered: the host or the command does not answer, with the reason.
        """
        if self._away is None and self._ports.clock.now() >= self._deadline:
            self._away = f"not looked at: the {BUDGET_S:.0f} s for all of it were over"
        if self._away is not None:
            raise _Unanswered(self._away)
        try:
            answer = self._run(("env", "LC_ALL=C", "timeout", str(_COMMAND_S), *argv))
        except TransientError as error:
            self._away = error.what
            raise _Unanswered(error.what) from error
        except (UnlatchError, OSError) as error:
            raise _Unanswered(str(error)) from error
        if answer.code in _NOT_FOUND and re.search(r"env: .?timeout", answer.output):
            raise _Unanswered("it has no program timeout (coreutils), without which nothing is asked there")
        if answer.code == _TIMED_OUT:
            raise _Unanswered(f"{argv[0]} did not answer within {_COMMAND_S} s: see whether a mount there hangs")
        return answer

    def user(self) -> str:
        """Who we are there, for the line that grants."""
        try:
            answer = self.ask("id", "-un")
        except _Unanswered:
            return "USER"
        return answer.output.strip() if answer.code == 0 else "USER"


# --- the parts -------------------------------------------------------------------------------------------------------


def _hypervisor_log(incident: Incident, ports: IncidentPorts, died_at: datetime) -> CrashFact:
    what, host = f"log, {AROUND_S:.0f} s before and after the death", incident.guest.hypervisor
    try:
        lines = ports.hypervisor.lines_around(incident.guest, died_at, AROUND_S)
    except (UnlatchError, OSError) as error:
        return CrashFact(what, host, None, f"it could not be read: {error}")
    if not lines:
        return CrashFact(
            what, host, False, f"nothing was logged around {died_at:%Y-%m-%d %H:%M:%S} UTC, or it was rotated away"
        )
    told = incident.event.lines if incident.event else ()
    centre = next((n for n, line in enumerate(lines) if line.strip() in told), len(lines) // 2)
    return CrashFact(what, host, True, f"{len(lines)} lines", hide_secrets(trimmed(lines, centre)))


_MAY_NOT_READ = re.compile(r"insufficient permissions|Operation not permitted|Permission denied|not seeing messages")
_NO_SUCH_BOOT = re.compile(r"no persistent journal|No such boot|is not available|[Nn]o journal files were found")
_REMARK = re.compile(
    r"^(?:Hint: |-- |      (?:Users in|Pass -q)|No journal files were|Specifying boot ID|Data from the)"
)


def _kernel_log(guest: _Host, *, boot: int) -> CrashFact:
    """The journal; where there is none, what older systems keep: the ring buffer of this boot, files of the last."""
    what = "kernel log of the previous boot" if boot else "kernel log of the present boot"
    try:
        return next(_kernel_logs(guest, what, boot))
    except _Unanswered as error:
        return CrashFact(what, guest.name, None, str(error))


def _kernel_logs(guest: _Host, what: str, boot: int) -> Iterator[CrashFact]:
    """The first of several sources that has something; at last, why none has."""
    journal = guest.ask("journalctl", "-k", "-b", str(boot), "-n", str(_LINES), "--no-pager", "-o", "short-iso")
    lines = [line for line in journal.output.splitlines() if line.strip() and not _REMARK.match(line)]
    hidden = bool(_MAY_NOT_READ.search(journal.output))
    if lines and journal.code == 0 and not hidden:
        yield _kept(what, guest, "the journal", lines)
    for source, argv in _OLDER_PLACES[boot]:
        older = guest.ask(*argv)
        if older.code == 0 and older.output.strip():
            yield _kept(what, guest, source, older.output.splitlines())
        hidden = hidden or bool(_MAY_NOT_READ.search(older.output))
    no_journal = journal.code in _NOT_FOUND
    if hidden:
        user = guest.user()
        grant = f"usermod -aG {'adm' if no_journal else 'systemd-journal'} {user}"
        if no_journal and not boot:
            grant = "sysctl -w kernel.dmesg_restrict=0"
        yield CrashFact(what, guest.name, None, f"{user} may not read it; as root on {guest.name}: {grant}")
    elif boot and (no_journal or _NO_SUCH_BOOT.search(journal.output)):
        words = (
            f"it was not kept: the journal of {guest.name} does not outlive a boot; to keep the next one, as root: "
            "mkdir -p /var/log/journal && systemctl restart systemd-journald"
        )
        yield CrashFact(what, guest.name, False, words)
    else:
        yield CrashFact(what, guest.name, False, "nothing was found in journal, ring buffer and /var/log")


def _shell(script: str, *arguments: str) -> tuple[str, ...]:
    return ("sh", "-c", script, "unlatch", *arguments)


_RING = f"""
out=$(dmesg --time-format=iso 2>/dev/null || dmesg 2>&1) || {{ echo "$out"; exit 1; }}
echo "$out" | tail -n {_LINES}
"""
# What the kernel said before it last said "Linux version", which is the first thing that it says.
_BEFORE_THE_BOOT = f"""
[ -e "$1" ] || exit 1
[ -r "$1" ] || {{ echo "$1: Permission denied"; exit 1; }}
tail -n 50000 -- "$1" | grep -a ' kernel: ' | awk -v most={_LINES} '
/ kernel: .*Linux version / {{
    kept = ""
    for (i = n > most ? n - most + 1 : 1; i <= n; i++) kept = kept line[i] "\\n"
    n = 0
}}
{{ line[++n] = $0 }}
END {{ printf "%s", kept }}'
"""
_OLDER_PLACES: dict[int, tuple[tuple[str, tuple[str, ...]], ...]] = {
    0: (("dmesg", _shell(_RING)),),
    -1: tuple((path, _shell(_BEFORE_THE_BOOT, path)) for path in ("/var/log/kern.log", "/var/log/messages")),
}


def _kept(what: str, host: _Host, source: str, lines: Sequence[str]) -> CrashFact:
    text = hide_secrets(trimmed(lines, len(lines) - 1))
    return CrashFact(what, host.name, True, f"the last {len(lines)} lines of {source}", text)


def _dumps(host: _Host, places: Sequence[str], died_at: datetime) -> CrashFact:
    what = "core and crash dumps"
    try:
        pattern = _core_pattern(host)
        places = (*places, *_place_of(pattern, places))
        since = f"@{int((died_at - DUMPS_SINCE).timestamp())}"
        named = [word for name in DUMP_NAMES for word in ("-o", "-name", name)][1:]
        found = host.ask(
            "find", *places, "-xdev", "-maxdepth", "3", "-type", "f", "(", *named, ")",
            "-newermt", since, "-printf", r"%T+ %s bytes %p\n",
        )  # fmt: skip
    except _Unanswered as error:
        return CrashFact(what, host.name, None, str(error))
    if found.code in _NOT_FOUND or "unrecognized" in found.output or "unknown predicate" in found.output:
        return CrashFact(what, host.name, None, f"{host.name} has no GNU find: {found.output.strip()[:200]}")
    dumps = [line for line in found.output.splitlines() if re.match(r"\d{4}-\d\d-\d\d\+", line)]
    shut = re.findall(r"find: .(/[^:]*?).: Permission denied", found.output)
    unseen = f"; {host.user()} may not look into {', '.join(shut)}" if shut else ""
    missing = set(re.findall(r"find: .(/[^:]*?).: No such file", found.output))
    there = ", ".join(place for place in places if place not in missing) or f"the usual places ({', '.join(places)})"
    goes = f"core_pattern there is {pattern!r}" + (
        "" if pattern.startswith(("/", "|")) else ", so a core goes to the working directory of what crashed"
    )
    if dumps:
        words = f"{len(dumps)} written since shortly before the death: {dumps[-1].rsplit(' ', 1)[-1]}"
        return CrashFact(what, host.name, True, f"{words}; {goes}{unseen}", trimmed(dumps, len(dumps) - 1))
    words = f"none since shortly before the death in {there}; {goes}{unseen}"
    return CrashFact(what, host.name, None if shut else False, words)


def _core_pattern(host: _Host) -> str:
    answer = host.ask("cat", "/proc/sys/kernel/core_pattern")
    return answer.output.strip() if answer.code == 0 else "not readable"


def _place_of(pattern: str, places: Sequence[str]) -> tuple[str, ...]:
    """The directory that the pattern names, where it names a fixed one that is not looked into anyway."""
    directory = str(PurePosixPath(pattern).parent)
    fixed = pattern.startswith("/") and "%" not in directory and directory != "/" and directory not in places
    return (directory,) if fixed else ()


def _crash_kernel(guest: _Host) -> CrashFact:
    """Whether the guest would keep a dump of its own kernel's next crash (kdump)."""
    what = "crash kernel (kdump)"
    try:
        answer = guest.ask("cat", "/sys/kernel/kexec_crash_loaded")
    except _Unanswered as error:
        return CrashFact(what, guest.name, None, str(error))
    loaded = answer.output.strip()
    if answer.code not in _NOT_FOUND and "No such file" in loaded:
        return CrashFact(what, guest.name, False, "its kernel cannot keep dumps of itself (it has no kexec)")
    if answer.code != 0 or loaded not in {"0", "1"}:
        return CrashFact(what, guest.name, None, f"it cannot be told: {loaded[:200]}")
    if loaded == "1":
        return CrashFact(what, guest.name, True, "loaded: a panic of its kernel leaves a dump in /var/crash")
    return CrashFact(what, guest.name, False, "not loaded: a panic of its kernel leaves no dump (package kdump-tools)")
