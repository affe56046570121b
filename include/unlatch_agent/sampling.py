"""samples: how files look now, locked or not, so that two looks tell whether someone writes to them."""

import fnmatch
import os
import stat
from typing import Dict, List, Sequence

from unlatch_agent import checklocks, identity, ioguard
from unlatch_agent.errors import Json

_WILDCARDS = frozenset("*?[")
# Of a pattern's files the newest tell enough.
_MOST = 16


def run(paths: Sequence[str], io_timeout_s: float) -> Json:
    """Sample files: size, times, and a hash of the first 64 KiB, with attributes from the server.

    Args:
        paths: files; patterns in the last part of a path (``aria_log.*``) stand for the newest files that match, a
            directory for the newest file in it (a log directory). What does not exist is left out.
        io_timeout_s: limit for one file or one directory listing.

    Returns:
        ``files`` as those of ``check-locks``, without openers.

    Raises:
        AgentError: ``unreadable``, ``enolck``, ``io_timeout``: then nothing is known of any file.
    """
    names: Dict[str, None] = {}
    for outcome in ioguard.each(list(paths), lambda path, _: _meant(path), io_timeout_s):
        if outcome.timed_out:
            raise ioguard.io_timeout(outcome.item, io_timeout_s)
        names.update(dict.fromkeys(outcome.value))
    files: List[Json] = []
    for looked in ioguard.each(list(names), lambda path, _: checklocks.probed(path, False), io_timeout_s):
        if looked.timed_out:
            raise ioguard.io_timeout(looked.item, io_timeout_s)
        if looked.value is None:
            continue  # removed meanwhile
        if looked.value["lock"]["kind"] == "unknown":
            raise checklocks.unreadable(looked.item, looked.value["why"])
        looked.value.pop("standing", None)
        files.append(looked.value)
    return {"files": files}


def _meant(path: str) -> List[str]:
    """Return the files that a path, a pattern or a directory stands for."""
    directory, name = os.path.split(os.path.abspath(path))
    directory = os.path.realpath(directory)
    path = os.path.join(directory, name)
    if identity.is_there(path):  # a look that failed is an error: a witness that was not seen is not absent
        try:
            is_directory = stat.S_ISDIR(os.stat(path).st_mode)
        except FileNotFoundError:  # a symlink to nothing
            is_directory = False
        return _newest(os.path.realpath(path), "*")[:1] if is_directory else [path]
    return _newest(directory, name)[:_MOST] if _WILDCARDS & set(name) else []


def _newest(directory: str, pattern: str) -> List[str]:
    """Return the regular files of a directory that match, the last modified first; a missing directory has none."""
    found = []
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    for name in fnmatch.filter(names, pattern):
        path = os.path.join(directory, name)
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            continue
        if stat.S_ISREG(status.st_mode):
            found.append((status.st_mtime_ns, path))
    return [path for _, path in sorted(found, reverse=True)]
