"""For whom does the NAS itself list the locks on the instance's files?

The one source that can tell a dead guest's lock from a living machine's, where the NAS names clients at all: Linux does
for NFSv4 and not for NFSv3, ONTAP for NFSv3 and not for NFSv4. So it says `clear` only when every locked file is
listed, and for the guest alone, and the guest's client of before has fallen silent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cached_property, partial

from unlatch.errors import UnlatchError
from unlatch.evidence._answers import Check, Finding, alive, clear, not_observed
from unlatch.evidence._clients import Host, KnownHosts, Owner, Whose, addresses_of, host_names
from unlatch.in_parallel import in_parallel
from unlatch.models import FileFact, Json, LockKind, NasClient, NasLock, NasView
from unlatch.ports import Scene

SLACK = timedelta(seconds=10)  # the clocks of hypervisor and worker, whole seconds, and the time that listing takes

_NO_NAMES = frozenset({"localhost", ""})
_MOST_LOCKS_TOLD = 100


@dataclass(frozen=True)
class _Guest:
    """What the guest itself says: its locked files, and the inodes that processes of its present boot have locked."""

    files: tuple[FileFact, ...]
    own_inodes: frozenset[int]
    booted_at: datetime
    host: str

    @property
    def inodes(self) -> frozenset[int]:
        return frozenset(file.inode for file in self.files)


def _look(scene: Scene) -> Finding:
    if scene.nas is None:
        return not_observed(
            f"no lock clearer is declared for the volume (volumes.{scene.volume.name}.clearer), so the NAS is not asked"
        )
    before = scene.clock.now()
    view = scene.nas()
    after = scene.clock.now()
    trouble: Exception | None = None
    guest: _Guest | None = None
    try:
        guest = _ask_guest(scene)
    except (UnlatchError, OSError) as error:
        trouble = error  # a lock of another client is a veto all the same
    found = _Listing(scene, view, guest, before, after)
    judged = [found.judge(lock) for lock in found.locks]
    signs = _said(judged, _Sort.ALIVE)
    if signs:
        return alive(f"the NAS {scene.volume.server} lists {'; '.join(signs)}", **found.detail())
    if guest is None:
        raise trouble or AssertionError("unreachable")
    doubts = list(dict.fromkeys([*_said(judged, _Sort.UNSURE), *found.gaps(guest)]))
    if doubts:
        return not_observed("; ".join(doubts), **found.detail())
    names = _listing(file.path.name for file in guest.files)
    owners = "; ".join(_said(judged, _Sort.GUEST))
    return clear(
        f"the NAS {scene.volume.server} lists the locks on {names} for the dead guest alone: {owners}", **found.detail()
    )


class _Sort(StrEnum):
    """What one lock of the list says: somebody lives, the dead guest has it, or it cannot be told."""

    ALIVE = "alive"
    GUEST = "guest"
    UNSURE = "unsure"


_FILES = "{files}"
_MOST_NAMES = 5


@dataclass(frozen=True)
class _Judged:
    """One lock's meaning; `words` have `{files}` where the file's name belongs, for a server locks many alike."""

    sort: _Sort
    file: str
    words: str


def _said(judged: Sequence[_Judged], sort: _Sort) -> list[str]:
    """Each sentence once, with the files that it is about."""
    files: dict[str, list[str]] = {}
    for one in judged:
        if one.sort is sort:
            files.setdefault(one.words, []).append(one.file)
    return [words.replace(_FILES, _listing(names)) for words, names in files.items()]


def _listing(names: Iterable[str]) -> str:
    """File names in a sentence; not all of them when there are many."""
    told = sorted(set(names))
    more = f" and {len(told) - _MOST_NAMES} more" if len(told) > _MOST_NAMES else ""
    return ", ".join(told[:_MOST_NAMES]) + more


def _ask_guest(scene: Scene) -> _Guest:
    files = scene.agent.check_locks(
        scene.instance, scene.engine.lock_paths(scene.instance), scene.engine.pid_files(scene.instance)
    )
    held = {LockKind.REMOTE, LockKind.LOCAL}
    locked = tuple(file for file in files if file.lock.kind in held)
    facts = scene.agent.facts([scene.instance.datadir])
    own = {lock.inode for lock in scene.agent.live_locks(scene.volume.path)}
    own |= {file.inode for file in locked if file.lock.kind is LockKind.LOCAL}
    return _Guest(locked, frozenset(own), facts.booted_at, facts.host)


@dataclass(frozen=True)
class _Listing:
    """What the NAS lists, seen beside what the guest says. It was listed between two moments."""

    scene: Scene
    view: NasView
    guest: _Guest | None
    before: datetime
    after: datetime

    @cached_property
    def locks(self) -> tuple[NasLock, ...]:
        """Those on the instance's files."""
        return tuple(lock for lock in self.view.locks if self._is_instances(lock))

    def judge(self, lock: NasLock) -> _Judged:
        """Whose one lock is, and what follows from that."""
        sort, words = self._judge(lock)
        return _Judged(sort, self._file(lock), words)

    def _judge(self, lock: NasLock) -> tuple[_Sort, str]:
        if lock.protocol == "local":
            return _Sort.ALIVE, f"a lock on {_FILES} by a process of the NAS itself"
        client = self._clients.get(lock.client or "")
        owner = self._hosts.owner(
            name=client.name if client else None,
            address=self._address(lock),
            hint=lock.client if client is None else None,
        )
        if owner.whose is Whose.OTHER:
            return _Sort.ALIVE, f"a lock on {_FILES} for {owner.words}"
        if owner.whose is Whose.UNSURE:
            why = " (Linux tells no NFSv3 client)" if lock.protocol == "nfsv3" and not lock.address else ""
            return _Sort.UNSURE, f"the NAS lists a lock on {_FILES} and does not say for whom: {owner.words}{why}"
        if client is not None:
            return self._by_renewal(client, owner)
        if lock.protocol == "nfsv4":
            return (
                _Sort.UNSURE,
                f"the NAS lists a lock on {_FILES} for {owner.words}, and not whether that still renews",
            )
        return _Sort.GUEST, owner.words

    def _by_renewal(self, client: NasClient, owner: Owner) -> tuple[_Sort, str]:  # noqa: PLR0911  # one per case
        """The guest's own client: of before or of now, and does it still renew its lease?"""
        silent_s, died_at, lease_s = client.seconds_since_renewal, self.scene.died_at, self.view.lease_s
        if client.status == "courtesy" and silent_s is None:
            return _Sort.GUEST, f"{owner.words} (its lease is over)"
        if silent_s is None or died_at is None:
            return _Sort.UNSURE, f"the NAS does not tell whether {owner.words}, which locks {_FILES}, renews its lease"
        silence = timedelta(seconds=silent_s)
        renewed_at = self.before - silence  # or somewhat later
        if renewed_at > died_at + SLACK:
            if self.guest is None or (not self.scene.held and renewed_at >= self.guest.booted_at):
                words = f"{owner.words} locks {_FILES} and renews: it may be the guest's own start attempt"
                return _Sort.UNSURE, words
            words = f"a lock on {_FILES} for {owner.words}, which renewed its lease {silent_s:g} s ago, after the death"
            return _Sort.ALIVE, words
        if self.after - silence > died_at + SLACK:
            return _Sort.UNSURE, f"{owner.words}, which locks {_FILES}, may have renewed its lease after the death"
        if client.status == "courtesy" or (lease_s is not None and silent_s >= lease_s):
            return _Sort.GUEST, f"{owner.words} (silent for {silent_s:g} s)"
        lease = f"its lease of {lease_s:g} s is not over" if lease_s is not None else "its lease is not told"
        return _Sort.UNSURE, (
            f"{owner.words}, which locks {_FILES}, renewed {silent_s:g} s ago, before the death, but {lease}: "
            "a living client may be as silent"
        )

    def gaps(self, guest: _Guest) -> list[str]:
        """What keeps the list from attributing every locked file."""
        if not guest.files:
            return ["no file of the instance is locked, so the NAS's list attributes nothing"]
        name, found = self.scene.volume.name, []
        nameless = sum(lock.path is None and lock.inode is None for lock in self.view.locks)
        if nameless:
            found.append(
                f"the NAS lists {nameless} locks on files that cannot be told: compare volumes.{name}.nas.export with "
                "the paths that it shows"
            )
        listed = {lock.path for lock in self.locks} | {lock.inode for lock in self.locks}
        outside = [str(file.path) for file in guest.files if not file.path.is_relative_to(self.scene.volume.path)]
        own = [file.path.name for file in guest.files if file.inode in guest.own_inodes]
        missing = [file.path.name for file in guest.files if not {file.path, file.inode} & listed]
        if outside:
            found.append(f"not on the volume that the NAS was asked about: {_listing(outside)}")
        if own:
            found.append(f"a process that runs on the guest now has {_listing(own)} locked itself")
        if missing:
            found.append(f"the guest sees a lock on {_listing(missing)}, but the NAS lists none there")
        return found

    def detail(self) -> Json:
        """For the audit."""
        ids = {lock.client for lock in self.locks}
        connections = self.view.connections
        return {
            "locks": [lock.as_dict() for lock in self.locks[:_MOST_LOCKS_TOLD]],
            "locks_on_the_volume": len(self.view.locks),
            "clients": [client.as_dict() for client in self.view.clients if client.id in ids],
            "connections": None if connections is None else list(connections),
            "lease_s": self.view.lease_s,
        }

    def _is_instances(self, lock: NasLock) -> bool:
        if lock.path is not None and lock.path.is_relative_to(self.scene.instance.datadir):
            return True
        if self.guest is None:
            return False
        return lock.inode in self.guest.inodes or lock.path in {file.path for file in self.guest.files}

    @cached_property
    def _clients(self) -> dict[str, NasClient]:
        return {client.id: client for client in self.view.clients}

    @cached_property
    def _hosts(self) -> KnownHosts:
        """Who is who. A floating address of the database is not the guest's: it may have moved to a living peer."""
        guest, peers = self.scene.guest.name, [peer.name for peer in self.scene.peers or ()]
        names = host_names(guest)
        look_up = any(self._address(lock) for lock in self.locks)
        also = host_names(self.guest.host) - _NO_NAMES - names if self.guest else frozenset()
        called = {guest: [guest, *self.scene.guest_hosts], **{peer: [peer] for peer in peers}} if look_up else {}
        at = in_parallel({host: partial(addresses_of, words) for host, words in called.items()})
        return KnownHosts(
            Host(names, at.get(guest, frozenset())),
            {peer: Host(host_names(peer), at.get(peer, frozenset())) for peer in peers},
            also,
        )

    def _address(self, lock: NasLock) -> str | None:
        client = self._clients.get(lock.client or "")
        return lock.address or (client.address if client else None)

    def _file(self, lock: NasLock) -> str:
        if lock.path is not None:
            return lock.path.name
        known = {file.inode: file.path.name for file in self.guest.files} if self.guest else {}
        return known.get(lock.inode or -1, f"inode {lock.inode}")


PLUGIN = Check("nas_locks", _look)
