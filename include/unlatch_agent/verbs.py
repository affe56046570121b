"""The verbs: each resolves what it was given, takes the locks it needs, and runs in a guarded child."""

import argparse
import sys
from typing import TYPE_CHECKING, Callable, Dict, Optional, Tuple

from unlatch_agent import ioguard
from unlatch_agent.errors import AgentError, HostError, Json, RefusedError, UsageError
from unlatch_agent.ioguard import Beat
from unlatch_agent.late import late

if TYPE_CHECKING:
    from unlatch_agent import (
        bytecode,
        checklocks,
        commit,
        connecting,
        copying,
        facts,
        hostlock,
        livelocks,
        nasclear,
        naslist,
        notify,
        openersverb,
        permit,
        preflight,
        prepare,
        purge,
        recreate,
        restore,
        safety,
        sampling,
        setaside,
        status,
        verify,
    )
else:
    bytecode = late("bytecode")
    checklocks = late("checklocks")
    commit = late("commit")
    connecting = late("connecting")
    copying = late("copying")
    facts = late("facts")
    hostlock = late("hostlock")
    livelocks = late("livelocks")
    nasclear = late("nasclear")
    naslist = late("naslist")
    notify = late("notify")
    openersverb = late("openersverb")
    permit = late("permit")
    preflight = late("preflight")
    prepare = late("prepare")
    purge = late("purge")
    recreate = late("recreate")
    restore = late("restore")
    safety = late("safety")
    sampling = late("sampling")
    setaside = late("setaside")
    status = late("status")
    verify = late("verify")

Told = Callable[[Json], None]
Verb = Callable[[argparse.Namespace, Told], Json]


def read_permit(name: str) -> "permit.Permit":
    """Read a permit from a file or, for ``-``, from standard input."""
    try:
        if name == "-":
            return permit.parse(sys.stdin.read())
        with open(name) as source:
            return permit.parse(source.read())
    except (OSError, UnicodeDecodeError) as error:
        raise HostError(
            "permit_unreadable", "cannot read the permit {}: {}".format(name, error), "give its path, or - and the text"
        ) from error


def _refuse_unconfirmed(options: argparse.Namespace) -> None:
    if options.confirm is not None and options.confirm != options.incident:
        raise RefusedError(
            "confirm_mismatch",
            "{!r} is not the incident's id".format(options.confirm),
            "type the same id after --confirm as after --incident",
        )


def asked(options: argparse.Namespace) -> "copying.Asked":
    """Return what the options say about all copies."""
    return copying.Asked(options.method, options.verify, options.strict_metadata, options.engine_check)


def _facts(options: argparse.Namespace, _: Told) -> Json:
    return facts.run(options.paths, options.io_timeout)


def _check_locks(options: argparse.Namespace, _: Told) -> Json:
    if not options.paths and not options.pidfile:
        raise UsageError("usage", "no file was named", "name a PATH or a --pidfile PATH")
    return checklocks.run(options.paths, options.pidfile, options.only_locked, options.io_timeout)


def _openers(options: argparse.Namespace, _: Told) -> Json:
    return openersverb.run(options.paths, options.executable, options.io_timeout)


def _samples(options: argparse.Namespace, _: Told) -> Json:
    return sampling.run(options.paths, options.io_timeout)


def _live_locks(options: argparse.Namespace, _: Told) -> Json:
    return livelocks.run(options.path, options.io_timeout)


def _connect(options: argparse.Namespace, _: Told) -> Json:
    return connecting.run(options.host, options.ports)


def _notify(options: argparse.Namespace, _: Told) -> Json:
    return notify.run(options.check)


def _nas_list(options: argparse.Namespace, _: Told) -> Json:
    return naslist.run(options.directory, options.io_timeout)


def _nas_clear(options: argparse.Namespace, _: Told) -> Json:
    return nasclear.run(options.directory, options.client, options.confirmed, options.io_timeout)


def _preflight(options: argparse.Namespace, _: Told) -> Json:
    return preflight.run(options.paths, options.os_user, options.unit, options.io_timeout)


def run_status(options: argparse.Namespace, told: Told) -> Json:
    """Answer ``status``; also what ``prepare --job`` answers with."""

    def work(beat: Beat) -> Json:
        return status.run(options.incident, safety.directories(options.paths), beat)

    return ioguard.supervise(work, options.io_timeout, told)


def _verify(options: argparse.Namespace, told: Told) -> Json:
    def work(beat: Beat) -> Json:
        return verify.run(options.incident, safety.directories(options.paths), beat)

    return ioguard.supervise(work, options.io_timeout, told)


def run_prepare(options: argparse.Namespace, told: Told) -> Json:
    """Run ``prepare``; the caller keeps its record and holds the host lock."""

    def work(beat: Beat) -> Json:
        targets = safety.targets(options.paths)
        return prepare.run(options.incident, targets, asked(options), options.io_timeout, beat)

    return ioguard.supervise(work, options.stall_timeout, told)


def _recreate(options: argparse.Namespace, told: Told) -> Json:
    _refuse_unconfirmed(options)

    def work(beat: Beat) -> Json:
        targets = safety.targets(options.paths)
        del options.paths[:]  # of many that is much memory
        hostlock.acquire(target.directory for target in targets)
        return recreate.run(options.incident, targets, asked(options), options.io_timeout, beat)

    return ioguard.supervise(work, options.stall_timeout, told)


def _commit(options: argparse.Namespace, told: Told) -> Json:
    leave = read_permit(options.permit)
    if leave.incident != options.incident:
        raise _other_incident(leave)

    def work(beat: Beat) -> Json:
        targets = safety.targets([entry.path for entry in leave.files])
        if len(targets) != len(leave.files):
            raise UsageError("permit_malformed", "the permit names a file twice", "ask for a new permit")
        hostlock.acquire(target.directory for target in targets)
        return commit.run(options.incident, targets, leave, options.io_timeout, beat)

    return ioguard.supervise(work, options.stall_timeout, told)


def _set_aside(options: argparse.Namespace, told: Told) -> Json:
    leave = read_permit(options.permit)
    if leave.incident != options.incident:
        raise _other_incident(leave)

    def work(beat: Beat) -> Json:
        (target,) = safety.targets(options.paths)
        if [entry.path for entry in safety.targets([entry.path for entry in leave.files])] != [target.path]:
            raise RefusedError(
                "permit_mismatch", "the permit is not for {}".format(target.path), "ask for a permit for just this file"
            )
        hostlock.acquire([target.directory])
        return setaside.run(options.incident, target, leave, options.io_timeout, beat)

    return ioguard.supervise(work, options.stall_timeout, told)


def _other_incident(leave: "permit.Permit") -> RefusedError:
    return RefusedError(
        "permit_mismatch",
        "the permit is for incident {}".format(leave.incident),
        "ask the controller for a new permit: it looks at all evidence again",
    )


def _restore(options: argparse.Namespace, told: Told) -> Json:
    _refuse_unconfirmed(options)

    def work(beat: Beat) -> Json:
        directories = safety.directories(options.paths)
        hostlock.acquire(directories)
        return restore.run(options.incident, directories, options.discard_temps, options.io_timeout, beat)

    return ioguard.supervise(work, options.stall_timeout, told)


def _purge(options: argparse.Namespace, told: Told) -> Json:
    def work(beat: Beat) -> Json:
        directories = safety.directories(options.paths)
        hostlock.acquire(directories)
        return purge.run(
            options.incident,
            directories,
            holder_dead=options.holder_dead,
            dry_run=options.dry_run,
            io_timeout_s=options.io_timeout,
            beat=beat,
        )

    return ioguard.supervise(work, options.stall_timeout, told)


def _precompile(options: argparse.Namespace, told: Told) -> Json:
    def work(beat: Beat) -> Json:
        (directory,) = safety.directories(options.paths)
        return bytecode.run(directory, beat)

    return ioguard.supervise(work, options.io_timeout, told)


VERBS: Dict[str, Verb] = {
    "facts": _facts,
    "check-locks": _check_locks,
    "openers": _openers,
    "samples": _samples,
    "live-locks": _live_locks,
    "connect": _connect,
    "preflight": _preflight,
    "precompile": _precompile,
    # Only under the names of root commands:
    "notify": _notify,
    "nas-list": _nas_list,
    "nas-clear": _nas_clear,
    "commit": _commit,
    "set-aside": _set_aside,
    "recreate": _recreate,
    "status": run_status,
    "verify": _verify,
    "restore": _restore,
    "purge": _purge,
}


def answer(verb: str, result: Json, error: Optional[AgentError]) -> Tuple[Json, int]:
    """Make the answer's document and exit code of a verb's result or error."""
    found = result.pop("error", None)
    if error is None and isinstance(found, AgentError):
        error = found
    files = result.pop("files", None)
    if files is None:
        files = error.files if error is not None else []
    document: Json = {"schema": 1, "verb": verb, "ok": error is None, "files": files}
    document.update(result)
    document["error"] = error.document() if error is not None else None
    return document, error.exit_code if error is not None else 0
