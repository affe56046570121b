"""Where an instance's directory is on another host, which may have mounted the volume under any path.

Mounts of the same server are compared by the directory that was mounted. A server can have several names, and it can
export one directory under two (with an NFSv4 root, NFSv3 clients see a longer name): where that is possible and a mount
has such a directory, its files are compared by inode, which is the same on every client.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from unlatch.models import HostFacts, MountFact
from unlatch.ports import Peer, Scene


@dataclass(frozen=True)
class Original:
    """The instance as the guest sees it.

    Attributes:
        server: The NAS, as the guest's mount names it.
        exported: Its directory as the NAS names it; None when the guest has no such mount.
        inodes: Inodes of its files, by their path below its directory.
    """

    server: str
    exported: PurePosixPath | None
    inodes: Mapping[PurePosixPath, int]


@dataclass(frozen=True)
class Places:
    """The instance's directory on a peer: where it is, with the mount point; and why that may not be all."""

    found: Mapping[PurePosixPath, str]
    gaps: tuple[str, ...] = ()


def original_of(mount: MountFact | None, datadir: PurePosixPath, inodes: Mapping[PurePosixPath, int]) -> Original:
    """The instance's directory on the guest, whose mount is given."""
    if mount is None or not _is_nfs(mount) or not mount.source:
        return Original("", None, inodes)
    below = _relative(datadir, PurePosixPath(mount.mountpoint))
    return Original(_server(mount), None if below is None else _directory(mount) / below, inodes)


def places_on(peer: Peer, facts: HostFacts, scene: Scene, original: Original | None) -> Places:
    """Look for the instance's directory on a peer. `facts` are the peer's, with the mount of the declared directory.

    Raises:
        UnlatchError: the peer does not answer (any more), or its volume hangs.
    """
    found = {mount.path: mount.mountpoint for mount in facts.paths if _is_nfs(mount)}
    if facts.nfs_mounts is None:
        return Places(found, ("does not tell all its mounts: the volume may be there under another path",))
    if original is None or original.exported is None:
        return Places(found, ("cannot be compared with the guest's own mount of the volume",))
    others = [mount for mount in facts.nfs_mounts if mount.mountpoint not in set(found.values())]
    more, gaps = _on_other_mounts(others, peer, scene, original.exported, original)
    return Places(found | more, tuple(gaps))


def _on_other_mounts(
    others: Sequence[MountFact], peer: Peer, scene: Scene, exported: PurePosixPath, original: Original
) -> tuple[dict[PurePosixPath, str], list[str]]:
    """The instance's directory on mounts that are not where the inventory has the volume; and what is in the way."""
    same_server = [mount for mount in others if _server(mount) == original.server]
    expected = {path: mount for mount in same_server for path in _by_name(mount, exported)}
    possible = dict.fromkeys(path for mount in others for path in _by_another_name(mount, exported))
    found: dict[PurePosixPath, str] = {}
    gaps: list[str] = []
    if not possible and not expected:
        return found, gaps
    seen = {mount.path: mount.mountpoint for mount in peer.agent.facts([*expected, *possible]).paths if _is_nfs(mount)}
    for path in possible:
        if path in expected or path not in seen:
            continue
        same = _is_same(peer, path, scene, original)
        if same is None:
            gaps.append(f"has {path}, and no file there shows whether it is the instance's")
        elif same:
            found[path] = seen[path]  # an export below an export is a mount of its own, made when it is looked at
    for path, mount in expected.items():
        if path in seen:
            found[path] = seen[path]
        elif mount.mountpoint not in found.values():
            gaps.append(f"has {mount.source} at {mount.mountpoint}, but {path} cannot be seen there")
    return found, gaps


def _by_name(mount: MountFact, wanted: PurePosixPath) -> Iterator[PurePosixPath]:
    """Where a directory of the NAS is on a mount of it, or of a part of it, by their names."""
    below = _relative(wanted, _directory(mount))
    if below is not None:
        yield PurePosixPath(mount.mountpoint) / below
    elif _relative(_directory(mount), wanted) is not None:
        yield PurePosixPath(mount.mountpoint)  # a directory inside the instance's own, mounted alone


def _by_another_name(mount: MountFact, wanted: PurePosixPath) -> Iterator[PurePosixPath]:
    """Where it would be if the mount's server has another name, or counts from another root."""
    yield from _by_name(mount, wanted)
    here, there = _directory(mount).parts[1:], wanted.parts[1:]
    for cut in range(1, len(there)):  # the guest's name is the longer one
        if there[cut : cut + len(here)] == here:
            yield PurePosixPath(mount.mountpoint, *there[cut + len(here) :])
    for cut in range(1, len(here) + 1):  # the mount's name is the longer one
        if there[: len(here) - cut] == here[cut:]:
            yield PurePosixPath(mount.mountpoint, *there[len(here) - cut :])


def _is_same(peer: Peer, path: PurePosixPath, scene: Scene, original: Original) -> bool | None:
    """Whether a directory of the peer is the instance's; None when none of its known files is there to be compared."""
    asked = [path / name for name in original.inodes]
    files = peer.agent.samples(replace(scene.instance, datadir=path), asked) if asked else ()
    compared = [
        inode == file.inode
        for file in files
        for name, inode in original.inodes.items()
        if file.path.parts[-len(name.parts) :] == name.parts  # the agent resolves symlinks above
    ]
    return any(compared) if compared else None


def _is_nfs(mount: MountFact) -> bool:
    return mount.fstype.startswith("nfs")


def _server(mount: MountFact) -> str:
    """The server in `server:/directory`."""
    return (mount.source or "").rpartition(":/")[0].lower()


def _directory(mount: MountFact) -> PurePosixPath:
    """The directory in `server:/directory`."""
    return PurePosixPath("/" + (mount.source or "").rpartition(":/")[2])


def _relative(path: PurePosixPath, base: PurePosixPath) -> PurePosixPath | None:
    return path.relative_to(base) if path.is_relative_to(base) else None
