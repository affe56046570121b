"""Who would be hit by freeing locks other than by a copy: looked at when the plan is made, and again before the act."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import PurePosixPath

from unlatch.errors import ConfigError, RefusedError, UnlatchError
from unlatch.in_parallel import in_parallel
from unlatch.looking import Look
from unlatch.models import LiveLock, NasView, Reach, VolumeKind
from unlatch.ports import Peer, Ports
from unlatch.recording import Case
from unlatch.remedies import Circumstances, Obstacle

_PENDING = ("pgrep", "-x", "sm-notify")
_NO_SUCH_PROCESS = 1  # pgrep's word for it


def look_around(case: Case, ports: Ports, look: Look, locked: Sequence[PurePosixPath]) -> Circumstances:
    """Everything that decides which remedies are safe now. Changes nothing.

    Raises:
        TransientError: the guest is out of reach.
    """
    now, died_at = ports.clock.now(), case.event.at if case.event else None
    if case.volume.kind is not VolumeKind.NFS or not locked:
        return Circumstances(now, died_at)
    mounts = look.agent.facts([case.instance.datadir]).paths
    version = mounts[0].nfs_version if mounts else None
    view, clear_refused = _view(case, ports, look)
    reach = ports.clearer.reach(view) if ports.clearer is not None and view is not None else None
    if reach is not None:
        clear_refused = why_not_clear(case, look, reach)
    return Circumstances(
        now=now,
        died_at=died_at,
        nfs_version=version,
        lease_s=view.lease_s if view else None,
        notify_refused=why_not_notify(case, ports, look) if version is not None and version.startswith("3") else None,
        clear_reach=reach,
        clear_refused=clear_refused,
    )


def _view(case: Case, ports: Ports, look: Look) -> tuple[NasView | None, Obstacle | None]:
    if look.nas is None:
        return None, None
    try:
        return look.nas_locks(case, ports), None
    except UnlatchError as error:
        return None, _because(error, f"{case.volume.server} did not list its locks: ")


def why_not_notify(case: Case, ports: Ports, look: Look) -> Obstacle | None:
    """Why the guest's lock notification must not or cannot be used; None when it may. Before the act: a new look."""
    for neighbour in ports.neighbours:
        if neighbour.instance.guest != case.guest.name or not neighbour.takes_locks:
            continue
        scan = look.agent.openers(neighbour.instance, neighbour.executables)
        if scan.openers:
            pid = scan.openers[0].pid
            return Obstacle(f"{neighbour.instance.name} runs on this guest (pid {pid}) and would lose its locks")
        if scan.unchecked:
            return Obstacle(f"whether {neighbour.instance.name} runs could not be looked at: {scan.unchecked[0].why}")
    try:
        ports.agent.notify(check=True)
    except (RefusedError, ConfigError) as error:
        return _because(error)
    return None


def why_not_clear(case: Case, look: Look, reach: Reach) -> Obstacle | None:
    """Why clearing on the NAS must not be used now; None when it hits nobody who lives. Before the act: a new look."""
    if reach is not Reach.VOLUME:
        return None
    here = look.agent.live_locks(case.volume.path)
    if here:
        return Obstacle(
            f"{_holder(here[0])} on {case.guest.name} would lose its locks: a clear frees every lock on the volume"
        )
    if look.peers is None:
        return Obstacle(
            "a clear frees every lock on the volume, and the inventory does not say who else may mount it "
            f"(volumes.{case.volume.name}.peers)"
        )
    found = in_parallel({peer.name: functools.partial(_live_locks_on, peer) for peer in look.peers})
    return next((why for why in found.values() if why is not None), None)


def _live_locks_on(peer: Peer) -> Obstacle | None:
    try:
        theirs = peer.agent.live_locks()
    except UnlatchError as error:
        return _because(error, f"whether {peer.name} holds locks on the volume could not be looked at: ")
    if theirs:
        return Obstacle(
            f"{_holder(theirs[0])} on {peer.name} may lose its locks: a clear frees every lock on the volume"
        )
    return None


def pending_notification(case: Case, ports: Ports) -> str | None:
    """What to do about a lock notification of this boot that still tries to reach the server; None when none does.

    When it gets through, it frees every lock of the guest, also those that a database has taken since (measured).
    """
    if case.volume.kind is not VolumeKind.NFS:
        return None
    found = ports.agent.command(_PENDING)
    if found.code == _NO_SUCH_PROCESS:
        return None
    if found.code != 0 or not found.output.strip():
        return (
            f"whether sm-notify of this boot still runs on {case.guest.name} could not be seen: "
            f"{' '.join(_PENDING)} ended with exit code {found.code}: {found.output.strip()[:200]}. While it does, the "
            f"NAS may drop the locks of {case.instance.name}. Look as root there, and end it: pkill -x sm-notify."
        )
    pid = found.output.split()[0]
    return (
        f"sm-notify of this boot (pid {pid}) on {case.guest.name} still tries to reach its servers. When it gets "
        f"through, the NAS also drops the locks that {case.instance.name} takes now, and nothing would keep a second "
        "server off its files. End it as root there: pkill -x sm-notify."
    )


def _holder(lock: LiveLock) -> str:
    return f"{lock.command or 'a process'} (pid {lock.pid})"


def _because(error: UnlatchError, before: str = "") -> Obstacle:
    """An obstacle in an error's words; what a missing privilege takes is kept apart from them."""
    if isinstance(error, ConfigError):
        return Obstacle(f"{before}{error.what}", error.next_step or None)
    return Obstacle(f"{before}{error}")
