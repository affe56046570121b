"""The drill with real machines: `unlatch drill` and whatever runs drills by the clock call this."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from unlatch import drill
from unlatch.assembly import SystemClock, engines, load_inventory, lock_clearers, ticketing
from unlatch.connections import http_access
from unlatch.hosts import nas_connection, peer_connection
from unlatch.lock_clearers import NasAccess
from unlatch.models import Drill, Volume
from unlatch.ports import LockClearer
from unlatch.settings import settings
from unlatch.transport.machine import SshMachine
from unlatch.transport.ssh import SshSession

_CONTEXT = "_AIRFLOW_PROCESS_CONTEXT"


def run_drill(names: Sequence[str] = (), *, tell: Callable[[str], None] = lambda _: None) -> Drill:
    """Drill these guests, or all. Nothing is changed, but that the agent's file is put onto each guest.

    Args:
        names: Guests of the inventory.
        tell: Is told of the progress, from several threads.

    Raises:
        ConfigError: there is no valid inventory.
    """
    known = load_inventory()
    return drill.run(
        drill.DrillPorts(
            inventory=known,
            policy=known.policy,
            engines=engines(),
            machine=_machine,
            peer_connection=lambda peer: peer_connection(known, peer),
            clearer=_clearer,
            ticketing=ticketing(),
            clock=SystemClock(),
            tell=tell,
        ),
        names,
    )


def ask_airflows_database() -> None:
    """Let this process read connections from Airflow's database too, as `airflow connections test` does.

    Outside of Airflow's own processes its SDK looks only at environment variables and secrets backends.
    """
    os.environ.setdefault(_CONTEXT, "server")


@contextmanager
def _machine(conn_id: str, name: str) -> Iterator[SshMachine]:
    with SshSession.through_airflow(conn_id, host=name) as session:
        yield SshMachine(session, name, settings().agent)


def _clearer(volume: Volume, machine: drill.Machine) -> LockClearer:
    conn_id, server = nas_connection(str(volume.server)), str(volume.server)
    access = NasAccess(volume, machine.run, http_access(conn_id, server))
    return lock_clearers()[str(volume.clearer)](access)
