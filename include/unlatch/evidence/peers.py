"""Does any other host that may mount the volume use the instance's files?

On NFS a living server on another machine looks exactly like a dead one from the guest. So every host of
`volumes.X.peers` is asked itself, wherever it has the volume mounted, and the answer is `clear` only when each of them
was looked at completely.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import PurePosixPath

from unlatch.errors import UnlatchError
from unlatch.evidence._answers import Check, Finding, alive, clear, named, not_observed, what_of
from unlatch.evidence._places import Original, original_of, places_on
from unlatch.evidence._servers import may_be_server
from unlatch.in_parallel import in_parallel
from unlatch.models import HostFacts, Json, Opener
from unlatch.ports import Peer, Scene


@dataclass
class _Look:
    """What one peer showed: signs of life, what could not be looked at, and words for when there is neither."""

    peer: str
    signs: list[str] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)
    boot_id: str | None = None
    words: str = ""

    @property
    def detail(self) -> Json:
        return {"peer": self.peer, "boot_id": self.boot_id, "signs": self.signs, "gaps": self.gaps, "words": self.words}


@dataclass(frozen=True)
class _Guest:
    """What the peers are compared with."""

    boot_id: str
    original: Original

    @property
    def files(self) -> dict[int, str]:
        """Names of the instance's known files by inode."""
        return {inode: path.name for path, inode in self.original.inodes.items()}


def _look(scene: Scene) -> Finding:
    if scene.peers is None:
        return not_observed(
            f"the inventory does not say which other hosts may mount it (volumes.{scene.volume.name}.peers)"
        )
    if not scene.peers:
        return clear("the inventory declares that no other host may mount it")
    gaps: list[str] = []
    guest: _Guest | None = None
    try:
        guest = _ask_guest(scene)
    except (UnlatchError, OSError) as error:  # a sign of life on a peer is a veto all the same
        gaps.append(f"the guest itself could not be asked: {what_of(error)}")
    looks = list(in_parallel({peer.name: partial(_look_at, peer, scene, guest) for peer in scene.peers}).values())
    gaps += [f"{look.peer}: {gap}" for look in looks for gap in look.gaps]
    boots = Counter(look.boot_id for look in looks if look.boot_id is not None)
    gaps += [f"{_and(twins)} are one machine, so one of them was not asked" for twins in _twins(looks, boots)]
    detail = {"peers": [look.detail for look in looks]}
    signs = [sign for look in looks for sign in look.signs]
    if signs:
        return alive("; ".join(signs), **detail)
    if gaps:
        return not_observed("; ".join(gaps), **detail)
    return clear("; ".join(look.words for look in looks), **detail)


def _ask_guest(scene: Scene) -> _Guest:
    datadir, engine = scene.instance.datadir, scene.engine
    facts = scene.agent.facts([datadir])
    files = scene.agent.check_locks(scene.instance, engine.lock_paths(scene.instance), engine.pid_files(scene.instance))
    files += scene.agent.samples(scene.instance, engine.witnesses(scene.instance))
    inodes = {_below(file.path, datadir): file.inode for file in files}
    return _Guest(facts.boot_id, original_of(next(iter(facts.paths), None), datadir, inodes))


def _below(path: PurePosixPath, datadir: PurePosixPath) -> PurePosixPath:
    """A file's name below the directory; of one elsewhere (the agent follows symlinks) its last part."""
    return path.relative_to(datadir) if path.is_relative_to(datadir) else PurePosixPath(path.name)


def _look_at(peer: Peer, scene: Scene, guest: _Guest | None) -> _Look:
    look = _Look(peer.name)
    try:
        facts = peer.agent.facts([scene.instance.datadir])
        look.boot_id = facts.boot_id
        if guest is not None and facts.boot_id == guest.boot_id:
            look.gaps.append(
                f"its connection leads to {scene.guest.name} itself, so it was not asked: correct that connection, "
                f"or take it out of volumes.{scene.volume.name}.peers"
            )
            return look
        _look_on(look, peer, facts, scene, guest)
    except (UnlatchError, OSError) as error:
        look.gaps.append(f"could not be asked: {what_of(error)}")
    return look


def _look_on(look: _Look, peer: Peer, facts: HostFacts, scene: Scene, guest: _Guest | None) -> None:
    places = places_on(peer, facts, scene, guest.original if guest else None)
    look.gaps += places.gaps
    for datadir in places.found:
        _look_for_processes(look, peer, scene, datadir)
    mountpoints = set(places.found.values())
    if mountpoints:
        _look_for_locks(look, peer, mountpoints, guest)
    _look_at_port(look, peer, scene)
    mounted = f"has the volume at {_and(sorted(mountpoints))}" if mountpoints else "does not have the volume mounted"
    look.words = f"{peer.name} {mounted}, and nothing there uses {scene.instance.name}"


def _look_for_processes(look: _Look, peer: Peer, scene: Scene, datadir: PurePosixPath) -> None:
    programs = scene.engine.executables(scene.instance)
    scan = peer.agent.openers(replace(scene.instance, datadir=datadir), programs)
    for opener in scan.openers:
        what = _use(opener, programs, datadir)
        if what:
            look.signs.append(f"on {peer.name} {named(opener)} {what}")
    if scan.unchecked:
        look.gaps.append(f"not every process could be looked at: {scan.unchecked[0].why}")


def _use(opener: Opener, programs: Sequence[str], datadir: PurePosixPath) -> str | None:
    """How a process uses the instance; None for one that is only in its directory, such as somebody's shell."""
    if opener.fds:
        return f"has {opener.fds[0].path} open"
    return f"runs on {datadir}" if may_be_server(opener, tuple(programs)) else None


def _look_for_locks(look: _Look, peer: Peer, mountpoints: set[str], guest: _Guest | None) -> None:
    files = guest.files if guest else {}
    for lock in peer.agent.live_locks():
        if lock.mountpoint in mountpoints and lock.inode in files:
            command = f" ({lock.command})" if lock.command else ""
            look.signs.append(f"on {peer.name} pid {lock.pid}{command} holds a lock on {files[lock.inode]}")


def _look_at_port(look: _Look, peer: Peer, scene: Scene) -> None:
    """A server may listen on loopback alone, or on the host's own address alone."""
    port = scene.instance.port
    if port in peer.foreign_ports:
        return
    loopback = peer.agent.connects("127.0.0.1", port)
    if loopback != "open":
        try:
            outside = peer.agent.connects(peer.name, port)
        except UnlatchError:
            outside = "silent"  # a name that the host does not know of itself
    else:
        outside = loopback
    if "open" in {loopback, outside}:
        look.signs.append(
            f"{peer.name} accepts connections on port {port}, where {scene.instance.name} would listen (if that is "
            "another database, add it to the inventory)"
        )
    elif loopback != "refused":
        look.gaps.append(f"port {port} does not answer there, which says nothing")


def _twins(looks: Sequence[_Look], boots: Counter[str]) -> list[list[str]]:
    shared = sorted(boot for boot, count in boots.items() if count > 1)
    return [[look.peer for look in looks if look.boot_id == boot] for boot in shared]


def _and(words: Sequence[str]) -> str:
    return " and ".join(words)


PLUGIN = Check("peers", _look)
