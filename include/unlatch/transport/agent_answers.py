"""The agent's JSON documents as values and errors of ours. Pure: bytes in, models or errors out."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath
from typing import Any, NoReturn, TypeVar

from unlatch.errors import CheckFailedError, ConfigError, RefusedError, TransientError, UnlatchError
from unlatch.excerpts import HIDDEN, hide_secrets
from unlatch.models import (
    FileFact,
    HostFacts,
    Json,
    KeptFile,
    LiveLock,
    LockKind,
    NotifyAnswer,
    OpenerScan,
    OurFile,
    PurgedFile,
    RepairStatus,
    SwappedFile,
)
from unlatch.transport.ssh import RemoteAnswer

SCHEMA = 1
PERMIT_EXPIRED = "permit_expired"
T = TypeVar("T")
_QUOTED = 200  # characters of nonsense that a message shows

_KINDS: dict[int, type[UnlatchError]] = {
    2: ConfigError,
    3: RefusedError,
    4: CheckFailedError,
    5: ConfigError,
    6: TransientError,
}


def document(answer: RemoteAnswer, *, host: str, verb: str) -> Json:
    """The one JSON document of an answer, also of one that reports an error.

    Raises:
        TransientError: the output is cut off or missing and the agent did not end well: the next try may fare better.
        CheckFailedError: the agent says that it ended well, but this is not its output.
    """
    text = answer.stdout.decode("utf-8", "replace").strip()
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if isinstance(found, dict) and found.get("schema") == SCHEMA and isinstance(found.get("ok"), bool):
        return found
    said = (text or answer.stderr.decode("utf-8", "replace").strip() or "nothing")[:_QUOTED]
    words = f"The agent's answer to {verb} on {host} (exit code {answer.code}) is not its JSON document: {said!r}"
    if answer.code == 0:
        raise CheckFailedError(
            words, next_step="the login must print nothing by itself (profile, rc files, forced command)."
        )
    raise TransientError(words, next_step="if it stays, run the agent by hand on that host.")


def raise_for(found: Json, code: int, *, host: str) -> None:
    """Raise the error that a document reports, if it does.

    Raises:
        RefusedError, CheckFailedError, ConfigError, TransientError: by the agent's exit code, with its words; the
            error's `detail` is the agent's error object and the exit code. A permit that has expired on the way is no
            refusal of the repair: a call to the volume took long, and the next try looks at everything anew.
    """
    error = found.get("error")
    if found["ok"] and not error and code == 0:
        return
    _raise(error if isinstance(error, dict) else {}, code, host)


def _raise(error: Json, code: int, host: str) -> NoReturn:
    name = str(error.get("code", f"exit code {code}"))
    kind = TransientError if name == PERMIT_EXPIRED else _KINDS.get(code, CheckFailedError)
    message = str(error.get("message", "the agent gave no reason")).rstrip(".")
    raise kind(
        f"{host}: {message} ({name}).",
        next_step=str(error.get("next", "") or "run the agent by hand on that host."),
        detail={"agent": error, "exit_code": code},
    )


def _complete(convert: Callable[[Json], T]) -> Callable[[Json], T]:
    """An answer without a key that it must have is an error of ours, not a KeyError in a task's log."""

    @functools.wraps(convert)
    def checked(found: Json) -> T:
        try:
            return convert(found)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckFailedError(
                f"The agent's answer to {found.get('verb')} lacks something that belongs there: {error!r}",
                next_step="build the agent anew (make agent): it and the controller are not of one version.",
            ) from error

    return checked


@_complete
def host_facts(found: Json) -> HostFacts:
    """The answer of `facts`. A path that does not exist has no mount: its volume may not be mounted."""
    there = [path for path in found.get("paths", []) if path.get("exists", True) and "mountpoint" in path]
    mounts = found["facts"].get("mounts")
    nfs = None if mounts is None else [{**m, "path": m["mountpoint"]} for m in mounts if m["fstype"].startswith("nfs")]
    return HostFacts.from_dict({**found["facts"], "paths": there, "nfs_mounts": nfs})


@_complete
def file_facts(found: Json) -> tuple[FileFact, ...]:
    """The files of `check-locks`.

    Our own leftovers are not files of the instance: a quarantined original keeps its stale lock. One that a process of
    this host has locked is kept: that is a sign of life.
    """
    entries = [entry for entry in found["files"] if not (entry.get("leftover") and entry["lock"]["kind"] != "local")]
    return tuple(FileFact.from_dict({**entry, "lock": _lock(entry)}) for entry in entries)


@_complete
def live_locks(found: Json) -> tuple[LiveLock, ...]:
    """The answer of `live-locks`."""
    return tuple(LiveLock.from_dict(entry) for entry in found["locks"])


@_complete
def notify_answer(found: Json) -> NotifyAnswer:
    """The answer of `notify`."""
    return NotifyAnswer.from_dict(found)


@_complete
def connection_state(found: Json) -> str:
    """The answer of `connect` for one port: `open`, `refused` or `silent`."""
    (port,) = found["ports"]
    state = str(port["state"])
    if state not in {"open", "refused", "silent"}:
        raise ValueError(f"state {state}")
    return state


def _lock(entry: Json) -> Json:
    """A file's lock; what a pid file records may stand beside the lock or in it."""
    beside = {**entry, **entry["lock"]}
    return {
        **entry["lock"],
        "pid": _first(beside, "recorded_pid", "pid"),
        "started_at": _first(beside, "started_at", "recorded_started_at"),
        "process": _named_safely(beside["process"]) if beside.get("process") else None,
        "content_sha256": beside.get("content_sha256"),
    }


def _first(values: Json, *keys: str) -> Any:
    return next((values[key] for key in keys if values.get(key) is not None), None)


@_complete
def opener_scan(found: Json) -> OpenerScan:
    """The answer of `openers`. A pid that the agent could not name becomes -1."""
    unchecked = [{**entry, "pid": -1 if entry.get("pid") is None else entry["pid"]} for entry in found["unchecked"]]
    return OpenerScan.from_dict({"openers": list(map(_named_safely, found["openers"])), "unchecked": unchecked})


_SECRET_FOLLOWS = re.compile(r"--?(?:pass(?:word|wd|phrase)?|pwd|secret|token)", re.IGNORECASE)
_SHORT_PASSWORD = re.compile(r"-p.+")
_TAKE_SHORT_PASSWORDS = ("mysql", "maria")


def _named_safely(process: Json) -> Json:
    """A process as it goes into tickets and the audit: its arguments without passwords."""
    words = [hide_secrets(word) for word in process.get("cmdline") or ()]
    takes_p = bool(words) and words[0].rpartition("/")[2].startswith(_TAKE_SHORT_PASSWORDS)
    for number, word in enumerate(words):
        if number and _SECRET_FOLLOWS.fullmatch(words[number - 1]):
            words[number] = HIDDEN
        elif takes_p and _SHORT_PASSWORD.fullmatch(word):
            words[number] = f"-p{HIDDEN}"
    return {**process, "cmdline": words}


@_complete
def repair_status(found: Json) -> RepairStatus:
    """The answer of `status`. The error of a job that has ended carries its exit code: of what kind it is."""
    repair = found["repair"]
    job = repair.get("job") or {}
    given = {key: value for key, value in repair.items() if value is not None}
    files = found.get("files", [])
    if given.get("error"):
        given["error"] = {**given["error"], "exit_code": job.get("exit_code")}
    return RepairStatus.from_dict(
        {"bytes_done": 0, "bytes_total": 0, **given, "running": bool(job.get("running")), "files": files}
    )


@_complete
def quarantines(found: Json) -> tuple[PurePosixPath, ...]:
    """The quarantine names of `set-aside`."""
    return tuple(PurePosixPath(entry["quarantine"]) for entry in found["files"])


@_complete
def swapped_files(found: Json) -> tuple[SwappedFile, ...]:
    """The files of `commit`."""
    return tuple(SwappedFile.from_dict(entry) for entry in found["files"])


@_complete
def kept_files(found: Json) -> tuple[KeptFile, ...]:
    """The files of `verify`."""
    return tuple(
        KeptFile(
            path=PurePosixPath(entry["path"]),
            quarantine=PurePosixPath(entry["quarantine"]),
            inode=entry["quarantine_inode"],
            changes=tuple(entry["changes"]),
            right=bool(entry["ok"]) or bool(entry["changes"]),
            state=str(entry["state"]),
            lock=LockKind((entry["quarantine_lock"] or {"kind": "none"})["kind"]),
        )
        for entry in found["files"]
    )


@_complete
def purged_files(found: Json) -> tuple[PurgedFile, ...]:
    """The files of `purge`."""
    return tuple(
        PurgedFile(
            PurePosixPath(entry["path"]), PurePosixPath(entry["removed"]), int(entry["bytes"]), bool(entry["freed"])
        )
        for entry in found["files"]
    )


@_complete
def our_files(found: Json) -> tuple[OurFile, ...]:
    """The leftovers among the files of `check-locks`; of all incidents."""
    return tuple(
        OurFile(
            path=PurePosixPath(entry["path"]),
            kind=str(entry["leftover"]),
            size_bytes=int(entry["size_bytes"]),
            mtime_ns=int(entry["sample"]["mtime_ns"]),
            lock=LockKind(entry["lock"]["kind"]),
        )
        for entry in found["files"]
        if entry.get("leftover")
    )


@_complete
def problems(found: Json) -> tuple[str, ...]:
    """What `verify` found wrong, one line per file."""
    files: Iterable[Json] = found["files"]
    lines = [_problem(entry) for entry in files if not entry.get("ok", True)]
    error = found.get("error")
    if error and not lines:
        lines = [str(error.get("message", error))]
    return tuple(lines)


def _problem(entry: Json) -> str:
    if entry.get("why"):
        return f"{entry['path']}: {entry['why']}"
    if entry.get("quarantine_changed"):
        what = f" ({', '.join(entry['changes'])})" if entry.get("changes") else ""
        return f"{entry['path']}: its original {entry.get('quarantine')} was changed after it was set aside{what}"
    return f"{entry['path']}: it is not as the repair left it (state {entry.get('state')})"
