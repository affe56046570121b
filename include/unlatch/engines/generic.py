"""Any other server (Oracle, MongoDB, a file store, …): files, pid files and programs come from the inventory.

Access is proven by a TCP connection only: that something listens. A real login is the business of the instance's
`probe` (a command on the guest).
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable
from pathlib import PurePosixPath

from unlatch.engines._words import cause, explain
from unlatch.errors import CheckFailedError, TransientError
from unlatch.models import AccessProof, Instance

CONNECT_LIMIT_S = 5.0
_WILDCARDS = frozenset("*?[")

_CAUSES = (
    cause(
        r"no locks available|ENOLCK|errno[=: ]+37\b",
        "the lock service of the NFS mount does not work (rpc.statd is missing or stopped).",
    ),
    cause(
        r"ORA-27086|BEA-280060|unable to lock|could(?: not|n't) (?:get|obtain|acquire) .*lock|"
        r"resource temporarily unavailable|errno[=: ]+11\b|DBPathInUse",
        "one of its files is still locked by another process or a dead client.",
    ),
    cause(r"no space left on device|disk (?:is )?full|ENOSPC", "the file system is full."),
    cause(r"address already in use|EADDRINUSE", "its TCP port is in use by another process."),
    cause(r"permission denied|EACCES", "a file or directory is not readable or writable for the server's user."),
    cause(r"corrupt", "its files are damaged: compare with a backup before anything else."),
)


class Generic:
    """See the module."""

    name = "generic"

    def lock_paths(self, instance: Instance) -> tuple[PurePosixPath, ...]:
        """The files of the inventory; the whole data directory when it names none, or names them by a pattern."""
        if not instance.files or any(_WILDCARDS & set(name) for name in instance.files):
            return (instance.datadir,)
        return tuple(instance.datadir / name for name in instance.files)

    def pid_files(self, instance: Instance) -> tuple[PurePosixPath, ...]:
        """Those of the inventory, relative to the data directory."""
        return tuple(instance.datadir / name for name in instance.pid_files)

    def witnesses(self, instance: Instance) -> tuple[PurePosixPath, ...]:
        """The files of the inventory, also by their patterns."""
        return tuple(instance.datadir / name for name in instance.files)

    def executables(self, instance: Instance) -> tuple[str, ...]:
        """Those of the inventory."""
        return instance.executables

    def commit_order(self, paths: Iterable[PurePosixPath]) -> tuple[PurePosixPath, ...]:
        """By name."""
        return tuple(sorted(paths))

    def explain_failure(self, log_tail: str) -> str | None:
        """See `ports.Engine.explain_failure`."""
        return explain(log_tail, _CAUSES)

    def login(self, instance: Instance, *, write_probe: bool) -> AccessProof:
        """See `ports.Engine.login`: here a TCP connection, so there is no user, and nothing can be written.

        Raises:
            CheckFailedError: a write probe is asked for.
        """
        if write_probe:
            raise CheckFailedError(
                f"The engine generic cannot write to {instance.name}.",
                next_step="set write_probe: false in the inventory and give the instance a probe command instead.",
            )
        started = time.monotonic()
        try:
            socket.create_connection((instance.host, instance.port), timeout=CONNECT_LIMIT_S).close()
        except OSError as error:
            raise TransientError(
                f"{instance.name} at {instance.host}:{instance.port} accepts no connection: {error}.",
                next_step="see whether the server is still starting.",
            ) from error
        return AccessProof(server_version="tcp", user="", seconds=round(time.monotonic() - started, 3))


PLUGIN = Generic()
