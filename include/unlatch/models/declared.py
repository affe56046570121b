"""What the inventory declares: sites, policies, volumes, hypervisors, guests, instances."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import PurePosixPath

from unlatch.models.base import Value
from unlatch.models.crashes import UNNAMED


class VolumeKind(StrEnum):
    """`lab`: a local file system that only one machine mounts, as in the embedded lab. `nfs`: shared storage."""

    LAB = "lab"
    NFS = "nfs"


@dataclass(frozen=True)
class Nas(Value):
    """A volume as its server names it. Which of these a lock clearer needs is in that clearer's documentation.

    Attributes:
        export: The exported directory that is mounted at the volume's `path`.
        svm: ONTAP: the storage virtual machine.
        volume: ONTAP: the volume's name.
        list: The site's own command that lists locks.
        clear: The site's own command that clears them.
    """

    export: PurePosixPath | None = None
    svm: str | None = None
    volume: str | None = None
    list: tuple[str, ...] = ()
    clear: tuple[str, ...] = ()


@dataclass(frozen=True)
class Volume(Value):
    """The file system that holds instances' files.

    Attributes:
        name: Its name in the inventory.
        kind: What it is stored on.
        path: Its mount point on the guests.
        server: The NAS; its Airflow connection is `unlatch_nas_<server>`.
        clearer: The lock clearer that can list and clear locks there.
        peers: Every other host that may mount it; None when the inventory does not say.
        nas: How the NAS names it.
    """

    name: str
    kind: VolumeKind
    path: PurePosixPath
    server: str | None = None
    clearer: str | None = None
    peers: tuple[str, ...] | None = None
    nas: Nas = field(default_factory=Nas)


@dataclass(frozen=True)
class HypervisorLog(Value):
    """One log of a hypervisor: a file, or entries of its journal.

    Attributes:
        format: Which crash source reads it.
        path: The file; None for a journal.
        timezone: IANA name of the zone of stamps that carry none, as xend's.
        journal: What selects the entries, as arguments of journalctl; empty for a file.
        local: It lies on the machine that runs Unlatch (a central log host's files), not on the hypervisor.
        silent_after_s: How long it may say nothing before that is told; None: for ever.
    """

    format: str
    path: PurePosixPath | None = None
    timezone: str = "UTC"
    journal: tuple[str, ...] = ()
    local: bool = False
    silent_after_s: int | None = None

    @property
    def where(self) -> str:
        """Its place in words: the path, or `journal` and what selects the entries."""
        if self.path is not None:
            return str(self.path)
        return " ".join(["journal", *(argument.removeprefix("--unit=") for argument in self.journal)])


@dataclass(frozen=True)
class Hypervisor(Value):
    """A host machine; its Airflow connection is `conn_id`. `domains` is the command that lists what runs on it."""

    name: str
    conn_id: str
    logs: tuple[HypervisorLog, ...]
    domains: tuple[str, ...] = ()

    @property
    def lists_own_session(self) -> bool:
        """Whether `domains` is a virsh without a connection: only root sees there what others have started."""
        program, *options = self.domains or ("",)
        return program.rsplit("/", 1)[-1] == "virsh" and not any(o.startswith(("-c", "--connect")) for o in options)


@dataclass(frozen=True)
class Fence(Value):
    """The site's way to make sure that the old holder is cut off: a hard reset, a power-off, an export rule.

    Attributes:
        on: Where its commands run: `hypervisor`, `nas` or `worker`.
        apply: Cuts the holder off.
        verify: Exits with 0 once it is cut off.
        undo: Lets it in again, at the end; empty when there is nothing to undo.
    """

    on: str
    apply: tuple[str, ...]
    verify: tuple[str, ...]
    undo: tuple[str, ...] = ()


@dataclass(frozen=True)
class Guest(Value):
    """A virtual machine that runs databases; `names` are regular expressions for its names in hypervisor logs."""

    name: str
    hypervisor: str
    conn_id: str
    names: tuple[str, ...] = ()
    approvers: tuple[str, ...] = ()
    fence: Fence | None = None

    def is_called(self, domain: str) -> bool:
        """Whether a hypervisor's `domain` is this guest: the plain name, or one of its patterns in full."""
        if domain.startswith(UNNAMED):
            return False
        return domain == self.name or any(re.fullmatch(pattern, domain) for pattern in self.names)


@dataclass(frozen=True)
class Service(Value):
    """How the instance is started and held: argument vectors run on the guest as the connection's login user.

    `status` answers like an LSB init script: 0 running, 3 stopped. `hold` forbids any start until `release`.
    """

    start: tuple[str, ...]
    stop: tuple[str, ...]
    status: tuple[str, ...]
    hold: tuple[str, ...]
    release: tuple[str, ...]


@dataclass(frozen=True)
class Waiver(Value):
    """A mandatory check that a named person gave up for an instance, and why."""

    check: str
    by: str
    reason: str


_CURL = ("curl", "--silent", "--show-error", "--max-time", "15")


@dataclass(frozen=True)
class Probe(Value):
    """An application's own proof of access, after the login: exactly one of the three is set.

    `tcp` is `host:port`, `http` an URL that must answer 2xx, `command` an argument vector run on the guest.
    """

    tcp: str | None = None
    http: str | None = None
    command: tuple[str, ...] = ()

    @property
    def argv(self) -> tuple[str, ...]:
        """The command that asks it, on the guest, so that the guest's own view of names and routes counts."""
        if self.command:
            return self.command
        if self.http:
            return (*_CURL, "--fail", "--output", "/dev/null", self.http)
        return (*_CURL, "--connect-only", f"telnet://{self.tcp}")


@dataclass(frozen=True)
class Instance(Value):
    """One database server."""

    name: str
    guest: str
    engine: str
    volume: str
    os_user: str
    datadir: PurePosixPath
    host: str
    port: int
    service: Service
    login_conn_id: str | None = None
    read_table: str | None = None
    write_probe: bool = False
    owner_confirms: bool = False
    error_log: PurePosixPath | None = None
    probe: Probe | None = None
    waive: tuple[Waiver, ...] = ()
    files: tuple[str, ...] = ()
    pid_files: tuple[str, ...] = ()
    executables: tuple[str, ...] = ()


@dataclass(frozen=True)
class Storm(Value):
    """More than `events` crash events within `window_s` seconds are a storm."""

    events: int = 5
    window_s: int = 600


@dataclass(frozen=True)
class RemedyPolicy(Value):
    """Which remedies may be used, and in which order. Without `order` the cheapest safe one comes first."""

    order: tuple[str, ...] = ()
    forbid: tuple[str, ...] = ()


@dataclass(frozen=True)
class Maintenance(Value):
    """A time in which people work on something, so that repairs of it wait for a person.

    Attributes:
        why: What is being done there.
        guests: Names of guests.
        hypervisors: Names of hypervisors: all their guests.
        volumes: Names of volumes: all instances on them.
        since: Its first moment, when it happens once.
        until: The first moment after it.
        weekly: Its hours on the clock of `timezone`, when it comes every week, as in `Sun 02:00-04:00`.
        timezone: IANA name of the zone of `weekly`.
    """

    why: str
    guests: tuple[str, ...] = ()
    hypervisors: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None
    weekly: str | None = None
    timezone: str = "UTC"


@dataclass(frozen=True)
class Policy(Value):
    """The site's limits, all in seconds where the name ends in `_s`.

    Attributes:
        storm: More crashes than that hold all repairs for a person.
        remedies: Which remedies may be used.
        max_event_age_s: Older crash lines start nothing.
        guest_return_s: How long a guest may take to come back.
        repairs_per_volume: Copies at the same time on one volume.
        repairs_at_once: Copies at the same time in all.
        repairs_per_guest_day: More repairs of one guest within 24 hours wait for a person.
        incidents_per_guest_hour: Further deaths of one guest within an hour open no incident until there is room.
        maintenance: When people work on what.
        approval_timeout_s: How long a question waits for its answer, and how long the answer is good.
        evidence_life_s: How long evidence may be acted on before it is collected again.
        objective_s: The time from crash to access that the site promises.
        service_hours: Weekly hours in which people cover the service; empty: always.
        act_outside_hours: Whether repairs go on without a person at other times.
        timezone: IANA name of the zone of `service_hours`.
        stuck_after_s: How long an incident may stay in a state, by its name, before it counts as stuck; those that are
            not named have the limits of `lifecycle`.
    """

    storm: Storm = field(default_factory=Storm)
    remedies: RemedyPolicy = field(default_factory=RemedyPolicy)
    max_event_age_s: int = 3600
    guest_return_s: int = 900
    repairs_per_volume: int = 2
    repairs_at_once: int = 8
    repairs_per_guest_day: int = 3
    incidents_per_guest_hour: int = 6
    maintenance: tuple[Maintenance, ...] = ()
    approval_timeout_s: int = 3600
    evidence_life_s: int = 120
    objective_s: int = 900
    stuck_after_s: dict[str, int] = field(default_factory=dict)
    service_hours: tuple[str, ...] = ()
    act_outside_hours: bool = True
    timezone: str = "UTC"


@dataclass(frozen=True)
class Site(Value):
    """Where and when people work, and which ticket system is told.

    Attributes:
        timezone: IANA name of the zone of its clocks.
        country: Two letters: whose week and public holidays it has; None: Monday to Friday, no holidays.
        region: The part of the country, as the library `holidays` names it: it may have holidays of its own.
        holidays: More free days: `2026-12-24`, or `12-24` for each year.
        clean_up_at: When a working day begins there, and with it the clean-up of the day before.
        ticketing: The ticket system.
    """

    timezone: str = "UTC"
    country: str | None = None
    region: str | None = None
    holidays: tuple[str, ...] = ()
    clean_up_at: str = "09:00"
    ticketing: str = "file"
