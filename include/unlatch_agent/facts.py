"""facts: what this host is, when it booted, and how its volumes are mounted."""

import os
import platform
import pwd
import shutil
import socket
from typing import Dict, List, Optional, Sequence

from unlatch_agent import __version__, bootclock, ioguard, mounts
from unlatch_agent.errors import Json

_TOOLS = (
    "exportfs",
    "fuser",
    "getfacl",
    "lsof",
    "mariadbd",
    "mysqld",
    "nfsstat",
    "postgres",
    "rpc.statd",
    "rpcinfo",
    "setfacl",
    "sm-notify",
    "sudo",
    "systemctl",
    "unlatch-notify",
    "unlatch-openers",
)
_PLACES = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def user_name(uid: int) -> str:
    """Return a user's name, or the number when it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def run(paths: Sequence[str], io_timeout_s: float) -> Json:
    """Return ``facts``, and with paths the mount that each is on. Changes nothing.

    Raises:
        AgentError: ``io_timeout`` when a path's volume does not answer.
    """
    table = mounts.read_mounts()
    tools: Dict[str, Optional[str]] = {name: shutil.which(name, path=_PLACES) for name in _TOOLS}
    answer: Json = {
        "facts": {
            "host": socket.gethostname(),
            "boot_id": bootclock.boot_id(),
            "booted_at": bootclock.iso(bootclock.booted_at_s()),
            "uptime_s": bootclock.boottime_s(),
            "now": bootclock.now_iso(),
            "kernel": platform.release(),
            "python": platform.python_version(),
            "agent_version": __version__,
            "user": user_name(os.geteuid()),
            "uid": os.geteuid(),
            "mounts": [mount.document() for mount in table],
            "tools": tools,
        }
    }
    if paths:
        answer["paths"] = _placed(paths, table, io_timeout_s)
    return answer


def _placed(paths: Sequence[str], table: Sequence[mounts.Mount], io_timeout_s: float) -> List[Json]:
    found = []
    for outcome in ioguard.each(list(paths), lambda path, _: _resolved(path), io_timeout_s):
        if outcome.timed_out:
            raise ioguard.io_timeout(outcome.item, io_timeout_s)
        mount = mounts.mount_of(outcome.value["resolved"], table)
        found.append(dict(outcome.value, **(mount.document() if mount is not None else {})))
    return found


def _resolved(path: str) -> Json:
    resolved = os.path.realpath(path)
    return {"path": path, "resolved": resolved, "exists": os.path.lexists(resolved)}
