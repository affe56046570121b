"""The kernel's NFS server of a Linux NAS, asked over SSH through two named root commands.

Both are root-owned copies of the agent, each of which does one thing (docs/lock-clearers.md). NFSv3 locks are listed
without their client (the kernel keeps it to itself) and can only be dropped for a whole file system; NFSv4 locks name
their client, and a client whose lease is over can be expired alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from unlatch.errors import CheckFailedError, ConfigError, RefusedError, TransientError, UnlatchError
from unlatch.lock_clearers import NasAccess
from unlatch.lock_clearers._paths import as_guest_sees, exported
from unlatch.models import ClearAnswer, Json, NasClient, NasLock, NasView, Reach
from unlatch.root_commands import NAS_CLEAR, NAS_LIST, install_line

_SCHEMA = 1
_QUOTED = 200  # characters of nonsense that a message shows
_NOT_THERE = (126, 127)
_KINDS: dict[int, type[UnlatchError]] = {
    2: ConfigError,
    3: RefusedError,
    4: CheckFailedError,
    5: ConfigError,
    6: TransientError,
}


class LinuxNfsd:
    """The locks on one exported file system of a Linux NAS."""

    name = "linux_nfsd"

    def __init__(self, access: NasAccess) -> None:
        self._volume = access.volume
        self._run = access.run
        self._export = str(exported(access.volume))

    def list(self, files: Sequence[PurePosixPath]) -> NasView:  # noqa: ARG002  # the NAS tells inodes of all locks
        """See `ports.LockClearer.list`. The inode is always told; the path as far as the NAS finds it soon."""
        return self._view(self._ask(NAS_LIST))

    def reach(self, view: NasView) -> Reach:
        """A client's, when all locks are NFSv4 and name theirs; else everything on the volume."""
        alone = bool(view.locks) and all(lock.protocol == "nfsv4" and lock.client for lock in view.locks)
        return Reach.CLIENT if alone else Reach.VOLUME

    def clear(self, locks: Sequence[NasLock]) -> ClearAnswer:
        """See `ports.LockClearer.clear`. An NFSv4 client is expired only when its lease is over.

        Raises:
            RefusedError: a client still renews its lease, or a process of the NAS itself holds one of the locks.
            ConfigError: the command or the right to run it is missing on the NAS.
            TransientError: the NAS is out of reach.
        """
        if not locks:
            return ClearAnswer(0, f"there was nothing to clear on {self._volume.server}")
        local = sum(lock.protocol == "local" for lock in locks)
        if local:
            raise RefusedError(
                f"A process of the NAS {self._volume.server} itself holds {local} of the locks.",
                next_step=f"see who it is: lslocks on {self._volume.server}.",
            )
        clients = sorted({lock.client for lock in locks if lock.protocol == "nfsv4" and lock.client})
        whole = any(lock.protocol != "nfsv4" or not lock.client for lock in locks)
        answers = [self._ask(NAS_CLEAR, "--client", client) for client in clients]
        answers += [self._ask(NAS_CLEAR)] if whole else []
        freed = sum(max(0, _number(answer, "locks_before") - _number(answer, "locks_after")) for answer in answers)
        what = [f"client {client} was expired" for client in clients]
        what += [f"all locks on the file system of {self._export} were dropped"] if whole else []
        return ClearAnswer(freed, f"on {self._volume.server} {' and '.join(what)}: {freed} locks fewer")

    def clear_command(self) -> tuple[str, ...]:
        """What `clear` runs on the NAS: a drill asks whether it may be run, and does not run it."""
        return ("sudo", "-n", NAS_CLEAR, "--json", self._export)

    # --- one command ---------------------------------------------------------------------------------------------

    def _ask(self, command: str, *options: str) -> Json:
        argv = ["sudo", "-n", command, "--json", self._export, *options]
        try:
            answer = self._run(argv)
        except ConfigError as error:
            if "login" not in error.detail:  # it is not sudo that refuses
                raise
            raise self._not_granted(command, error.what, str(error.detail["login"])) from error
        found = _document(answer.output)
        if found is None and answer.code in _NOT_THERE:
            said = answer.output.strip()[:_QUOTED] or "not found"
            raise self._not_granted(command, f"{command} cannot be run on {self._volume.server}: {said}", None)
        if found is None:
            raise TransientError(
                f"{command} on {self._volume.server} (exit code {answer.code}) did not answer with its JSON document: "
                f"{answer.output.strip()[:_QUOTED]!r}",
                next_step="run it there by hand as root and see what it prints.",
            )
        if answer.code != 0 or not found["ok"]:
            self._raise(found, answer.code)
        return found

    def _raise(self, found: Json, code: int) -> None:
        error: Json = found["error"] if isinstance(found.get("error"), dict) else {}
        words = str(error.get("message", "it gave no reason")).rstrip(".")
        raise _KINDS.get(code, CheckFailedError)(
            f"{self._volume.server}: {words}.",
            next_step=str(error.get("next") or "run the command there by hand as root."),
            detail={"agent": error, "exit_code": code},
        )

    def _not_granted(self, command: str, what: str, login: str | None) -> ConfigError:
        user = login or self._run(["id", "-un"]).output.strip() or "the login user"
        line = f"{user} ALL=(root) NOPASSWD: {command}"
        return ConfigError(
            what,
            next_step=f"on {self._volume.server}: {install_line(command)} and grant with visudo: {line}",
        )

    def _view(self, found: Json) -> NasView:
        try:
            return NasView(
                locks=tuple(self._lock(entry, found["clients"]) for entry in found["locks"]),
                clients=tuple(_client(entry) for entry in found["clients"]),
                connections=tuple(found["connections"]) if found.get("connections") is not None else None,
                lease_s=found.get("lease_s"),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckFailedError(
                f"The answer of {NAS_LIST} on {self._volume.server} lacks something that belongs there: {error!r}",
                next_step="install it there anew from this version's agent (make agent).",
            ) from error

    def _lock(self, entry: Json, clients: Sequence[Json]) -> NasLock:
        client = None if entry["client"] is None else str(entry["client"])
        address = next((c["address"] for c in clients if str(c["id"]) == client), None)
        return NasLock(
            path=as_guest_sees(self._volume, entry.get("path")),
            inode=None if entry["inode"] is None else int(entry["inode"]),
            protocol=str(entry["protocol"]),
            client=client,
            address=address,
        )


def _client(entry: Json) -> NasClient:
    return NasClient(
        id=str(entry["id"]),
        address=entry["address"],
        name=entry["name"],
        status=str(entry["status"]),
        seconds_since_renewal=entry["seconds_since_renewal"],
    )


def _number(found: Json, key: str) -> int:
    value = found.get(key)
    return value if isinstance(value, int) else 0


def _document(output: str) -> Json | None:
    """The first JSON document of an output; what stands around it (warnings of sudo) does not matter."""
    decoder = json.JSONDecoder()
    for line in re.finditer(r"^\{", output, re.MULTILINE):
        try:
            found: Any = decoder.raw_decode(output, line.start())[0]
        except ValueError:
            continue
        if isinstance(found, dict) and found.get("schema") == _SCHEMA and isinstance(found.get("ok"), bool):
            return found
    return None


PLUGIN = LinuxNfsd
