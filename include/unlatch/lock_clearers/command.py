"""The site's own commands on the NAS: one that lists locks as JSON lines, and one that clears them.

`nas.list` prints one JSON object per lock and line: `{"path": …, "client": …, "address": …, "protocol": …, "id": …}`,
all but the path optional. `nas.clear` gets the ids of the locks as arguments. docs/lock-clearers.md has the details.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from unlatch.errors import CheckFailedError, ConfigError, RefusedError
from unlatch.lock_clearers import NasAccess
from unlatch.lock_clearers._paths import as_guest_sees
from unlatch.models import ClearAnswer, Json, NasLock, NasView, Reach

_PROTOCOLS = frozenset({"nfsv3", "nfsv4", "smb", "local", "unknown"})
_TEXTS = ("path", "client", "address", "protocol", "id")
_QUOTED = 200
_AT_ONCE = 200
"""How many ids one command gets: an argument list has its limits."""


class SiteCommands:
    """The locks on one volume, as the site's own commands tell and clear them."""

    name = "command"

    def __init__(self, access: NasAccess) -> None:
        self._volume = access.volume
        self._run = access.run
        if not access.volume.nas.list:
            raise ConfigError(
                f"The volume {access.volume.name} has the lock clearer command, but no command that lists locks.",
                next_step=f"add volumes.{access.volume.name}.nas.list.",
            )

    def list(self, files: Sequence[PurePosixPath]) -> NasView:  # noqa: ARG002  # the command lists the whole volume
        """See `ports.LockClearer.list`. A line that cannot be read is an error: it may be the living holder's."""
        locks = []
        for number, line in enumerate(self._output(self._volume.nas.list).splitlines(), start=1):
            if line.strip():
                locks.append(self._lock(line, number))
        return NasView(locks=tuple(locks))

    def reach(self, view: NasView) -> Reach:
        """Single files' locks when every lock has an id; otherwise nobody knows what is cleared: the whole volume."""
        return Reach.FILES if view.locks and all(lock.id for lock in view.locks) else Reach.VOLUME

    def clear(self, locks: Sequence[NasLock]) -> ClearAnswer:
        """See `ports.LockClearer.clear`. Locks without ids: the command gets no arguments.

        Raises:
            ConfigError: there is no such command, sudo refuses it, or it fails.
            RefusedError: some of the locks have ids and some have none.
            TransientError: the NAS is out of reach.
        """
        if not locks:
            return ClearAnswer(0, f"there was nothing to clear on {self._volume.server}")
        command = self.clear_command()
        ids = list(dict.fromkeys(lock.id for lock in locks))
        named = [word for word in ids if word is not None]
        if named and len(named) < len(ids):
            raise RefusedError(
                f"Some locks on {self._volume.name} have an id and some have none.",
                next_step="correct the command of nas.list: without an id it cannot be said which lock is meant.",
            )
        said = [
            self._output((*command, *named[start : start + _AT_ONCE])).strip()
            for start in range(0, max(1, len(named)), _AT_ONCE)
        ]
        words = "; ".join(" ".join(text.split())[:_QUOTED] for text in said if text)
        what = f"{len(named)} locks" if named else "all locks on the volume"
        return ClearAnswer(None, f"{command[0]} on {self._volume.server} cleared {what}{f': {words}' if words else ''}")

    def clear_command(self) -> tuple[str, ...]:
        """What `clear` runs on the NAS: a drill asks whether it may be run, and does not run it.

        Raises:
            ConfigError: the inventory has none.
        """
        command = self._volume.nas.clear
        if not command:
            raise ConfigError(
                f"The inventory has no command that clears locks of the volume {self._volume.name}.",
                next_step=f"add volumes.{self._volume.name}.nas.clear.",
            )
        return command

    def _output(self, argv: Sequence[str]) -> str:
        answer = self._run(argv)
        if answer.code == 0:
            return answer.output
        raise ConfigError(
            f"{argv[0]} on {self._volume.server} failed with exit code {answer.code}: "
            f"{answer.output.strip()[:_QUOTED] or 'it said nothing'}",
            next_step=f"run it there by hand as the login user of unlatch_nas_{self._volume.server}.",
        )

    def _lock(self, line: str, number: int) -> NasLock:
        try:
            entry: Any = json.loads(line)
            return self._read(entry)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckFailedError(
                f"Line {number} of {self._volume.nas.list[0]} on {self._volume.server} is no lock: "
                f"{line.strip()[:_QUOTED]!r} ({error}).",
                next_step='it must print one JSON object per line: {"path", "client", "address", "protocol", "id"}.',
            ) from error

    def _read(self, entry: Json) -> NasLock:
        for key in _TEXTS:
            if entry.get(key) is not None and not isinstance(entry[key], str):
                raise TypeError(f"{key} is no text")
        inode = entry.get("inode")
        if inode is not None and (not isinstance(inode, int) or isinstance(inode, bool)):
            raise TypeError("inode is no number")
        protocol = entry.get("protocol") or "unknown"
        if protocol not in _PROTOCOLS:
            raise ValueError(f"protocol is none of {', '.join(sorted(_PROTOCOLS))}")
        return NasLock(
            path=self._path(entry["path"]),
            inode=inode,
            protocol=protocol,
            client=entry.get("client") or None,
            address=entry.get("address") or None,
            id=entry.get("id") or None,
        )

    def _path(self, path: str | None) -> PurePosixPath | None:
        """The guest's name of a file that is named as the NAS or as the guest sees it."""
        mapped = as_guest_sees(self._volume, path)
        if mapped is None and path and ".." not in PurePosixPath(path).parts:
            given = PurePosixPath(path)
            return given if given.is_relative_to(self._volume.path) else None
        return mapped


PLUGIN = SiteCommands
