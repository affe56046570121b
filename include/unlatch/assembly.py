"""Settings and connections become objects here: the inventory, the store, plug-ins, sessions, and the steps' ports.

Airflow is imported only where a connection or a Variable is really needed; so are the transports, which need it, and
the database. So the command line starts quickly.
"""

from __future__ import annotations

import functools
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from unlatch import decisions, discovery, inventory, notices
from unlatch.alerting import LoggedAlerts
from unlatch.connections import host_names, http_access, ticket_access
from unlatch.discovery import crash_sources
from unlatch.errors import ConfigError, TransientError
from unlatch.hosts import nas_connection, peer_connection, peers_of, place_of
from unlatch.inventory import Inventory
from unlatch.lock_clearers import NasAccess
from unlatch.models import ClearAnswer, Guest, Instance, NasLock, NasView, Reach, Volume
from unlatch.notifications import Sender
from unlatch.ports import (
    Alerts,
    CommandAnswer,
    Engine,
    EvidenceCheck,
    HypervisorWatch,
    IncidentPorts,
    LockClearer,
    Neighbour,
    PeerHost,
    Ports,
    Ticketing,
)
from unlatch.settings import settings
from unlatch.ticketing import TicketSettings
from unlatch.transport.tcp import accepts

if TYPE_CHECKING:
    from unlatch.store.sql_store import SqlStore
    from unlatch.transport.host_agent import SshHostAgent
    from unlatch.transport.ssh import SshSession

    SessionOpener = Callable[[str, str], SshSession]

STOP_VARIABLE = "unlatch_stop"
_SITE_COMMAND_S = 300.0  # a hard reset at a BMC takes its time
_STOPPED = {"1", "true", "yes", "on"}


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """The present moment in UTC."""
        return datetime.now(UTC)

    def pause(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


# --- what is made once per process -----------------------------------------------------------------------------------


def load_inventory() -> Inventory:
    """The inventory, read again when the file has changed.

    Raises:
        ConfigError: it is not there or not valid; every problem with its line.
    """
    path = settings().inventory
    stamp = path.stat().st_mtime_ns if path.exists() else 0
    return _load_inventory(path, stamp)


@functools.lru_cache(maxsize=2)
def _load_inventory(path: Path, _stamp: int) -> Inventory:
    loaded = inventory.load(path)
    loaded.check_names(
        engines=engines(),
        checks=decisions.ALL_CHECKS,
        formats=crash_sources(),
        ticketing=_ticket_systems(),
        clearers=lock_clearers(),
        senders=senders(),
    )
    return loaded


def store() -> SqlStore:
    """The store, migrated once per process."""
    given = settings()
    return _store(given.store_url, given.audit_keys)


@functools.lru_cache(maxsize=4)
def _store(url: str, audit_keys: str) -> SqlStore:
    from unlatch.store.audit_keys import AuditKeys  # noqa: PLC0415  # see the module's docstring
    from unlatch.store.sql_store import SqlStore  # noqa: PLC0415

    made = SqlStore(url, clock=SystemClock(), audit_keys=AuditKeys.parse(audit_keys))
    made.migrate()
    return made


@functools.lru_cache(maxsize=1)
def engines() -> Mapping[str, Engine]:
    """All installed engines by name."""
    return {name: module.PLUGIN for name, module in discovery.load_plugins("unlatch.engines").items()}


@functools.lru_cache(maxsize=1)
def checks() -> Mapping[str, EvidenceCheck]:
    """All installed evidence checks by name."""
    return {name: module.PLUGIN for name, module in discovery.load_plugins("unlatch.evidence").items()}


@functools.lru_cache(maxsize=1)
def lock_clearers() -> Mapping[str, Callable[[NasAccess], LockClearer]]:
    """All installed lock clearers by name."""
    return {name: module.PLUGIN for name, module in discovery.load_plugins("unlatch.lock_clearers").items()}


@functools.lru_cache(maxsize=1)
def _ticket_systems() -> Mapping[str, Callable[[TicketSettings], Ticketing]]:
    return {name: module.PLUGIN for name, module in discovery.load_plugins("unlatch.ticketing").items()}


@functools.lru_cache(maxsize=1)
def senders() -> Mapping[str, Sender]:
    """All ways to tell people, by name."""
    return {name: module.PLUGIN for name, module in discovery.load_plugins("unlatch.notifications").items()}


def ticketing() -> Ticketing:
    """The site's ticket system. Its connection is read when it is first used."""
    name = load_inventory().site.ticketing
    access = functools.partial(ticket_access, name)
    return _ticket_systems()[name](TicketSettings(directory=settings().tickets, access=access))


def alerts() -> Alerts:
    """How people are told of what belongs to no incident."""
    return notices.QueuedAlerts(store(), notice_policy, SystemClock().now, LoggedAlerts())


def notice_policy() -> notices.Policy:
    """Who is told what, as the inventory says."""
    known = load_inventory()
    return notices.Policy(known.notify, known.policy.objective_s, known.site.timezone)


def stop_requested() -> bool:
    """Whether a person has set the Airflow Variable `unlatch_stop`."""
    from airflow.sdk import Variable  # noqa: PLC0415  # see the module's docstring

    return str(Variable.get(STOP_VARIABLE, default="")).strip().lower() in _STOPPED


def session_opener(opened: ExitStack) -> SessionOpener:
    """Sessions by connection, each opened once and closed with the stack; several threads may ask for them."""
    from unlatch.transport.ssh import SshSession  # noqa: PLC0415  # see the module's docstring

    sessions: dict[str, SshSession] = {}
    turn = threading.Lock()

    def session(conn_id: str, host: str) -> SshSession:
        with turn:
            if conn_id not in sessions:
                sessions[conn_id] = opened.enter_context(SshSession.through_airflow(conn_id, host=host))
            return sessions[conn_id]

    return session


def host_agent(conn_id: str, host: str, session: SessionOpener) -> SshHostAgent:
    """The agent on a host."""
    from unlatch.transport.host_agent import SshHostAgent  # noqa: PLC0415  # see the module's docstring

    return SshHostAgent(session(conn_id, host), host, settings().agent)


def _hypervisor_watch(session: SessionOpener) -> HypervisorWatch:
    from unlatch.transport.hypervisor_log import LogHypervisorWatch  # noqa: PLC0415  # see the module's docstring

    return LogHypervisorWatch(load_inventory().hypervisors, session, crash_sources())


# --- ports -----------------------------------------------------------------------------------------------------------


@contextmanager
def incident_ports(actor: str) -> Iterator[IncidentPorts]:
    """What steps on an incident use; connections are closed at the end."""
    known = load_inventory()
    with ExitStack() as opened:
        session = session_opener(opened)
        yield IncidentPorts(
            inventory=known,
            agent=lambda guest: host_agent(known.guests[guest].conn_id, guest, session),
            hypervisor=_hypervisor_watch(session),
            store=store(),
            ticketing=ticketing(),
            clock=SystemClock(),
            policy=known.policy,
            actor=actor,
            stop_requested=stop_requested,
            run_on=lambda where, guest, argv: _run_on(known, session, where, guest, argv),
            accepts=accepts,
        )


def _run_on(known: Inventory, session: SessionOpener, where: str, guest: str, argv: Sequence[str]) -> CommandAnswer:
    """Run a site's own command.

    Raises:
        ConfigError: no server is declared for the guest's volumes, or the program is not there.
        TransientError: the machine is out of reach, or the command did not end in time.
    """
    if where == "worker":
        return run_here(argv, limit_s=_SITE_COMMAND_S)
    place = place_of(known, known.guests[guest], where)
    if place is None:
        raise ConfigError(
            f"A command is to run on the {where} of {guest}, but the inventory names none.",
            next_step="add the server to the volume, or the hypervisor to the guest, in the inventory.",
        )
    conn_id, host = place
    answer = session(conn_id, host).run(argv, timeout_s=_SITE_COMMAND_S)
    return CommandAnswer(answer.code, answer.text)


def run_here(argv: Sequence[str], *, limit_s: float) -> CommandAnswer:
    """Run a site's own command on the worker."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=limit_s, check=False, errors="replace")
    except subprocess.TimeoutExpired as error:
        raise TransientError(f"{argv[0]} did not end within {limit_s:g} s.", next_step="see why it hangs.") from error
    except OSError as error:
        raise ConfigError(
            f"{argv[0]} cannot be run on the worker: {error.strerror}",
            next_step="install it, or correct the inventory.",
        ) from error
    return CommandAnswer(done.returncode, done.stdout + done.stderr)


@contextmanager
def instance_ports(guest: Guest, instance: Instance, actor: str) -> Iterator[Ports]:
    """What steps on one instance use; connections are closed at the end."""
    known = load_inventory()
    volume = known.volumes[instance.volume]
    with ExitStack() as opened:
        session = session_opener(opened)
        yield Ports(
            agent=host_agent(guest.conn_id, guest.name, session),
            engine=engines()[instance.engine],
            hypervisor=_hypervisor_watch(session),
            checks=checks(),
            store=store(),
            ticketing=ticketing(),
            clock=SystemClock(),
            policy=known.policy,
            actor=actor,
            stop_requested=stop_requested,
            peers=_peers(known, guest, volume, session),
            clearer=lock_clearer(volume, session),
            neighbours=_neighbours(known, instance),
            guest_hosts=host_names(guest.conn_id) if volume.clearer else (),
        )


def _peers(known: Inventory, guest: Guest, volume: Volume, session: SessionOpener) -> tuple[PeerHost, ...] | None:
    """Every other host that may mount the volume: those that it names, and the guests whose instances are on it."""
    names = peers_of(known, guest, volume)
    if names is None:
        return None
    return tuple(
        PeerHost(name, host_agent(peer_connection(known, name), name, session), _ports_on(known, name))
        for name in names
    )


def _ports_on(known: Inventory, host: str) -> frozenset[int]:
    return frozenset(i.port for i in known.instances.values() if i.guest == host)


class LateClearer:
    """A volume's lock clearer, made when it is first asked: then a wrong connection is an answer, no step's end."""

    def __init__(self, name: str, make: Callable[[], LockClearer]) -> None:
        """Take its name and how to make it."""
        self.name = name
        self._made = functools.cache(make)

    def list(self, files: Sequence[PurePosixPath]) -> NasView:
        """See `ports.LockClearer`."""
        return self._made().list(files)

    def reach(self, view: NasView) -> Reach:
        """See `ports.LockClearer`."""
        return self._made().reach(view)

    def clear(self, locks: Sequence[NasLock]) -> ClearAnswer:
        """See `ports.LockClearer`."""
        return self._made().clear(locks)


def lock_clearer(volume: Volume, session: SessionOpener) -> LateClearer | None:
    """The volume's lock clearer; None when the inventory names none."""
    if volume.clearer is None or volume.server is None:
        return None
    conn_id, server, plugin = nas_connection(volume.server), volume.server, lock_clearers()[volume.clearer]

    def run(argv: Sequence[str]) -> CommandAnswer:
        from unlatch.transport.machine import SshMachine  # noqa: PLC0415  # see the module's docstring

        return SshMachine(session(conn_id, server), server, settings().agent).run(argv)

    return LateClearer(volume.clearer, lambda: plugin(NasAccess(volume, run, http_access(conn_id, server))))


def _neighbours(known: Inventory, instance: Instance) -> tuple[Neighbour, ...]:
    """The other instances on the same guest or volume."""
    near = [
        other
        for other in known.instances.values()
        if other.name != instance.name and (other.guest == instance.guest or other.volume == instance.volume)
    ]
    return tuple(
        Neighbour(
            other, bool(engines()[other.engine].lock_paths(other)), tuple(engines()[other.engine].executables(other))
        )
        for other in near
    )
