"""What the contract test needs of every lock clearer: a NAS with three locks, and ways to make it difficult."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Protocol

from unlatch.lock_clearers import NasAccess
from unlatch.models import NasView, Reach, Volume, VolumeKind
from unlatch.models.declared import Nas

GUEST_PATH = PurePosixPath("/ORA/dbs03")
GUEST, PEER = "10.77.0.37", "10.77.0.38"


@dataclass(frozen=True)
class Wanted:
    """A lock of the sample NAS: the file below the volume, and whose it is."""

    file: str
    address: str


HELD = (Wanted("voms/ibdata1", GUEST), Wanted("voms/aria_log_control", GUEST), Wanted("lxr/other", PEER))
"""The locks of every sample NAS at the beginning. The first two are to be cleared."""


class SampleNas(Protocol):
    """A NAS of one kind, made for a test."""

    access: NasAccess
    reach: Reach
    tells_address: bool
    grant: str
    """A part of the grant that a refused clear must name."""

    def held(self) -> set[str]:
        """Files below the volume that are locked now, asked behind the clearer's back."""

    def forbid(self) -> None:
        """Take the privilege to clear away; listing stays allowed."""

    def forbid_all(self) -> None:
        """Take the privilege to list away too."""

    def garble(self) -> None:
        """Let the list be one that cannot be understood."""

    def unplug(self) -> None:
        """Be out of reach."""


def volume(export: str, **nas: object) -> Volume:
    """The volume as the inventory declares it."""
    declared = Nas.from_dict({"export": export, **nas})
    return Volume("dbs03", VolumeKind.NFS, GUEST_PATH, "nas", "x", ("dbvrtg4038",), declared)


def ours(view: NasView, clearer_inodes: dict[str, int] | None = None) -> NasView:
    """The part of a view that is about the two files of the dead guest."""
    inodes = {number for name, number in (clearer_inodes or {}).items() if name.startswith("voms/")}
    locks = tuple(
        lock
        for lock in view.locks
        if (lock.path is not None and lock.path.is_relative_to(GUEST_PATH / "voms")) or lock.inode in inodes
    )
    return NasView(locks, view.clients, view.connections, view.lease_s)
