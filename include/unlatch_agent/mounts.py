"""Which mount a path is on, and whether its locks mean anything."""

import contextlib
import os
import re
from typing import Iterable, List, NamedTuple, Optional, Sequence, Set

from unlatch_agent.errors import Json

# The fewest fields of a line of mountinfo, before and after its dash.
_FIELDS_BEFORE = 6
_FIELDS_AFTER = 3
NFS_TYPES = ("nfs", "nfs4")
# Whoever writes to a file of one of these does it on this host, through this host's page cache.
LOCAL_TYPES = frozenset({"btrfs", "ext2", "ext3", "ext4", "overlay", "tmpfs", "xfs"})


class Mount(NamedTuple):
    """One line of this process's mount table.

    ``device`` is the number that /proc/locks gives for its files; several mounts can share one.
    """

    mountpoint: str
    fstype: str
    source: str
    options: str
    device: int = 0

    @property
    def is_nfs(self) -> bool:
        """Say whether this is an NFS mount."""
        return self.fstype in NFS_TYPES

    @property
    def is_local(self) -> bool:
        """Say whether no other host can write here. Of what is not known that is not said."""
        return self.fstype in LOCAL_TYPES

    def option(self, name: str) -> Optional[str]:
        """Return the value of ``name=value`` among the options, or None."""
        for option in self.options.split(","):
            key, _, value = option.partition("=")
            if key == name:
                return value
        return None

    @property
    def nfs_version(self) -> Optional[str]:
        """Return ``3``, ``4.2``, …, or None when this is not NFS."""
        return self.option("vers") if self.is_nfs else None

    @property
    def server(self) -> Optional[str]:
        """Return the NFS server's name as it was given to mount, or None when this is not NFS."""
        if not self.is_nfs:
            return None
        return self.source.rpartition(":/")[0].strip("[]") or self.source

    @property
    def uses_nsm(self) -> bool:
        """Say whether this is an NFS mount whose locks the server keeps until it hears a reboot notification.

        NFSv4 locks live and die with a lease instead. A version that is not told counts as an old one.
        """
        return self.is_nfs and not (self.nfs_version or "3").startswith("4")

    @property
    def local_lock(self) -> Optional[str]:
        """Return NFS's ``local_lock`` option, or None when this is not NFS."""
        return self.option("local_lock") if self.is_nfs else None

    @property
    def locks_are_local(self) -> bool:
        """Say whether record locks stay on this machine although the files are shared.

        Such locks prove nothing about other machines: a repair is refused.
        """
        if not self.is_nfs:
            return False
        return "nolock" in self.options.split(",") or self.local_lock in ("all", "posix")

    def document(self) -> Json:
        """Return the mount as JSON."""
        return {
            "mountpoint": self.mountpoint,
            "fstype": self.fstype,
            "source": self.source,
            "options": self.options,
            "nfs_version": self.nfs_version,
            "local_lock": self.local_lock,
        }


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), text)


def _device(text: str) -> int:
    """Read the decimal ``major:minor`` of mountinfo."""
    major, _, minor = text.partition(":")
    return os.makedev(int(major), int(minor)) if major.isdigit() and minor.isdigit() else 0


def parse_mountinfo(text: str) -> List[Mount]:
    """Parse the text of /proc/self/mountinfo."""
    mounts = []
    for line in text.splitlines():
        fields, _, tail = line.partition(" - ")
        head, after = fields.split(), tail.split()
        if len(head) < _FIELDS_BEFORE or len(after) < _FIELDS_AFTER:
            continue
        options = head[5].split(",") + after[2].split(",")
        mounts.append(
            Mount(
                mountpoint=_unescaped(head[4]),
                fstype=after[0],
                source=_unescaped(after[1]),
                options=",".join(dict.fromkeys(options)),
                device=_device(head[2]),
            )
        )
    return mounts


def read_mounts() -> List[Mount]:
    """Read the mount table. Touches no volume."""
    with open("/proc/self/mountinfo", errors="surrogateescape") as source:
        return parse_mountinfo(source.read())


def mount_of(resolved_path: str, mounts: Sequence[Mount]) -> Optional[Mount]:
    """Return the mount that a path without symlinks is on: the longest, then the latest match."""
    best = None
    for mount in mounts:
        prefix = mount.mountpoint.rstrip(os.sep) + os.sep
        inside = (resolved_path + os.sep).startswith(prefix)
        if inside and (best is None or len(mount.mountpoint) >= len(best.mountpoint)):
            best = mount
    return best


def any_on_nfs(resolved_paths: Iterable[str]) -> bool:
    """Say whether calls on one of some paths wait for a server. Touches no volume."""
    known = read_mounts()
    found = (mount_of(path, known) for path in resolved_paths)
    return any(mount is not None and mount.is_nfs for mount in found)


def of_all_namespaces(proc: str = "/proc") -> List[Mount]:
    """Return the mounts of this host, also those that only a container or a service of its own sees.

    Without root the namespaces of other users' processes may not be visible.
    """
    table: List[Mount] = []
    seen: Set[str] = set()
    for process in ["self", *(name for name in os.listdir(proc) if name.isdigit())]:
        with contextlib.suppress(OSError):
            view = "{}/{}".format(proc, process)
            namespace = os.readlink(view + "/ns/mnt")
            if namespace not in seen:
                with open(view + "/mountinfo", errors="surrogateescape") as source:
                    table += parse_mountinfo(source.read())
                seen.add(namespace)
    return list(dict.fromkeys(table))
