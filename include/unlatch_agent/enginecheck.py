"""The engine's own checksums over finished copies, when a person asks for them: innochecksum.

A clone shares its original's blocks, so reading it back proves nothing of the bytes; the engine's checksums do. They
judge the original as much as the copy: a crash can leave half-written pages, which InnoDB mends from its doublewrite
buffer when it starts. So a wrong page never spoils a copy; it stops what was asked to look first.

pg_checksums has no part in this: it looks only at a whole cluster that was shut down cleanly, never after a crash, and
PostgreSQL's data files carry no locks to be recreated for.
"""

import ctypes
import os
import re
import shutil
import signal
import subprocess
import tempfile
from typing import Callable, List, Optional, Sequence

from unlatch_agent import texts
from unlatch_agent.errors import CheckFailedError, HostError, Json, TryAgainError

_TOOL = "innochecksum"
_PACKAGES = "apt install mariadb-server-core (Debian; MySQL: mysql-server-core-8.0; Red Hat: mariadb-server)"
# System and undo tablespaces, and tables.
_INNODB = re.compile(r"(ibdata\d+|undo_?\d+|.*\.(ibd|ibu))")
_PLACES = "/usr/local/bin:/usr/bin:/bin:/usr/local/mysql/bin:/usr/sbin"
_POLL_S = 0.5
_WORDS = 300
_PR_SET_PDEATHSIG = 1


def refuse_without_tool(paths: Sequence[str]) -> None:
    """Refuse before anything is copied when the check that was asked for cannot be made.

    Raises:
        HostError: ``tool_missing``, with the package that has it.
    """
    if any(_is_innodb(path) for path in paths) and _found() is None:
        raise HostError("tool_missing", "{} is not installed on this host".format(_TOOL), _PACKAGES)


def checked(path: str, copy: str, live: Callable[[], None]) -> Json:
    """Check one copy.

    Args:
        path: the original's path: its name says whose file it is.
        copy: the file to look at.
        live: called as long as the tool goes on reading.

    Returns:
        ``tool``, ``ok`` (None: there is no check for such a file), ``why``.

    Raises:
        TryAgainError: the tool was killed.
    """
    tool = _found()
    if not _is_innodb(path) or tool is None:
        return {"tool": None, "ok": None, "why": "no tool checks a single file of this kind"}
    with tempfile.TemporaryFile() as told:
        process = subprocess.Popen(
            [tool, copy],
            stdin=subprocess.DEVNULL,
            stdout=told,
            stderr=told,
            preexec_fn=_die_with_us,  # noqa: PLW1509 (no thread lives here: those that copy have ended)
        )
        done = ""
        while True:
            try:
                code = process.wait(timeout=_POLL_S)
                break
            except subprocess.TimeoutExpired:
                now = texts.stripped("/proc/{}/io".format(process.pid)) or ""
                if now != done:  # one that is stuck with its mount gives no sign of life
                    live()
                    done = now
        told.seek(0)
        words = " ".join(told.read(1 << 16).decode("utf-8", "replace").split())[:_WORDS]
    if code < 0:
        raise TryAgainError(
            "tool_killed", "{} was killed while it read {}".format(_TOOL, copy), "run the same command again"
        )
    return {"tool": _TOOL, "ok": code == 0, "why": "every page is sound" if code == 0 else words}


def refuse_wrong(files: Sequence[Json]) -> None:
    """Stop when a check has found something.

    Raises:
        CheckFailedError: ``engine_check``, with all files; the copies are kept.
    """
    wrong: List[Json] = [entry for entry in files if entry["engine_check"]["ok"] is False]
    if wrong:
        raise CheckFailedError(
            "engine_check",
            "{} finds wrong pages in the copy of {}: {}".format(
                _TOOL, wrong[0]["path"], wrong[0]["engine_check"]["why"]
            ),
            "the copy is what the original is. A crash can leave half-written pages, which InnoDB mends at its start: "
            "to go on, run the same command without --engine-check (the copies are kept); else use the backup",
            list(files),
        )


def _is_innodb(path: str) -> bool:
    return _INNODB.fullmatch(os.path.basename(path)) is not None


def _found() -> Optional[str]:
    return shutil.which(_TOOL, path=_PLACES)


def _die_with_us() -> None:
    """Let the kernel kill the tool with this process: left alone it would count as a user of the copy."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
