"""nas-clear: drop stale locks on this NFS server. It frees what it is told to and knows nothing of who lives.

Without a client: every NFSv3 lock of every client on the directory's file system, the living ones' too (and from
kernel 6.9 on NFSv4 state there as well). With a client: all that this NFSv4 client holds, everywhere.
"""

import contextlib
import os
from typing import Optional

from unlatch_agent import ioguard, naslist, nfsd
from unlatch_agent.errors import HostError, Json, RefusedError, UsageError
from unlatch_agent.ioguard import Beat
from unlatch_agent.naslist import Export, Places

_SOFT = ("courtesy",)


def run(
    directory: str,
    client: Optional[str],
    confirmed: bool,
    io_timeout_s: float,
    places: Places = Places(),  # noqa: B008 (immutable)
) -> Json:
    """Clear. Run again after it was cut off, it finishes: what is free stays free.

    Args:
        directory: an exported directory, or one below it.
        client: id of the NFSv4 client to expire; None: clear the file system's NFSv3 locks.
        confirmed: expire the client although its lease is not over.
        io_timeout_s: limit for one look at the volume, and for the server's own work.
        places: where things are.

    Returns:
        ``locks_before`` and ``locks_after``: how many there are on the file system.

    Raises:
        AgentError: as :func:`naslist.run`; ``renewing`` for a client whose lease is not over, ``not_here`` for one
            that has nothing on this file system, ``clear_failed`` when the kernel refuses.
    """

    def work(beat: Beat) -> Json:
        export = naslist.export_of(directory, places)
        before = len(naslist.listed(export, places, beat)["locks"])
        beat(None)
        if client is None:
            _unlock_file_system(export, places)
        else:
            _expire(export, client, confirmed, places)
        beat(None)
        after = len(naslist.listed(export, places, beat)["locks"])
        return {"export": export.directory, "client": client, "locks_before": before, "locks_after": after}

    return ioguard.supervise(work, io_timeout_s, ioguard.untold)


def _write(path: str, line: str) -> None:
    """Write one line in one call, as the kernel's control files want it."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, os.fsencode(line + "\n"))
    except OSError as error:
        raise HostError(
            "clear_failed",
            "the kernel refused {!r} in {}: {}".format(line, path, error.strerror),
            "look at this server's kernel log; its version may not know this control file",
        ) from error
    finally:
        os.close(descriptor)


def _unlock_file_system(export: Export, places: Places) -> None:
    path = places.nfsd + "/unlock_filesystem"
    if not os.path.exists(path):
        raise HostError("clear_failed", "{} is not there".format(path), "this kernel cannot clear NFSv3 locks")
    _write(path, nfsd.escaped(export.mount.mountpoint))


def _expire(export: Export, client: str, confirmed: bool, places: Places) -> None:
    if not client.isdigit():
        raise UsageError(
            "usage", "{!r} is no client's id".format(client), "give the number that unlatch-nas-list tells"
        )
    if not os.path.isdir(places.nfsd + "/clients"):
        raise HostError(
            "clear_failed",
            "{}/clients is not there".format(places.nfsd),
            "this kernel cannot expire NFSv4 clients: wait for the lease",
        )
    found = next((seen for seen in naslist.clients_of(export.mount.device, places) if seen.id == client), None)
    if found is None:
        return  # gone already, and its locks with it
    if not any(state.inode is not None for state in found.states):
        raise RefusedError(
            "not_here",
            "client {} ({}) has nothing locked or open on the file system of {}".format(
                client, found.client.name or found.client.address, export.directory
            ),
            "ask unlatch-nas-list for the id again: ids change when a client comes back",
        )
    if found.client.status not in _SOFT and not confirmed:
        since = found.client.seconds_since_renewal
        raise RefusedError(
            "renewing",
            "client {} ({}, {}) is {}: it renewed its lease {} s ago".format(
                client,
                found.client.name,
                found.client.address,
                found.client.status,
                "some" if since is None else since,
            ),
            "wait until its lease is over; with proof that it is dead, add --confirmed",
        )
    with contextlib.suppress(FileNotFoundError):  # gone meanwhile
        _write("{}/clients/{}/ctl".format(places.nfsd, client), "expire")
