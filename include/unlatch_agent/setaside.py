"""set-aside: move a stale pid file out of the way.

A copy would keep the pid and so the refusal to start. Removing the file would race a new server that
has just written its own; a rename can be looked at afterwards and taken back.
"""

import errno
import os
from typing import Dict, List

from unlatch_agent import bootclock, durable, identity, journal, locks, openers, pidfile, positions, safety
from unlatch_agent.errors import CheckFailedError, HostError, Json, RefusedError, TryAgainError
from unlatch_agent.identity import Identity
from unlatch_agent.ioguard import Beat
from unlatch_agent.journal import Journal
from unlatch_agent.permit import Permit, PermittedFile
from unlatch_agent.replaying import Entry
from unlatch_agent.safety import Target

SERVERS = ("postgres", "postmaster")
# Wall clocks are adjusted: a start so close to the boot is not clearly before it.
_MARGIN_S = 1.0


def run(incident: str, target: Target, permit: Permit, io_timeout_s: float, beat: Beat) -> Json:
    """Rename one stale pid file to its quarantine name. The caller holds the host lock.

    Idempotent: after success it answers the same and does nothing.

    Raises:
        RefusedError: the permit does not fit, the file is of this boot or changed, or the server lives.
        TryAgainError: ``raced``: someone put another file there at that very moment; it was put back.
        HostError: ``not_observed``: a process of the same user could not be looked at.
    """
    beat(None)
    owner = Journal(target.directory, incident)
    entry = owner.entry(target.name)
    if entry is not None and entry.state == "set_aside":
        return {"files": [_document(owner, entry)], "unchecked": []}
    permit.refuse_unless_valid(incident, bootclock.boot_id(), bootclock.boottime_s())
    safety.refuse_local_locks([target.directory])
    journal.refuse_foreign(target.directory, incident)
    allowed = permit.files[0]
    begun = entry is not None and entry.state == "setting_aside"
    if entry is not None and begun and positions.look(owner, entry).quarantine is not None:
        # A run that was killed got as far as the rename.
        return {"files": [_document(owner, _checked(owner, entry))], "unchecked": []}
    source = _fresh_look(target, allowed)
    unchecked = _refuse_living_server(target, source, io_timeout_s)
    beat(None)
    quarantine = owner.quarantine(target.name)
    if identity.is_there(quarantine):
        raise RefusedError(
            "unexpected_inode",
            "{} already exists".format(quarantine),
            "look what it is: an earlier attempt of this incident may have left it",
        )
    permit.refuse_unless_valid(incident, bootclock.boot_id(), bootclock.boottime_s())
    facts = {"source": source.document(), "content_sha256": allowed.content_sha256}
    entry = owner.record("setting_aside", target.name, **facts)
    durable.rename(target.path, quarantine)
    durable.sync_directory(target.directory)
    return {"files": [_document(owner, _checked(owner, entry))], "unchecked": unchecked}


def _fresh_look(target: Target, allowed: PermittedFile) -> Identity:
    """Refuse a pid file that is not the permit's, or that this boot has written."""
    source = safety.regular_file(target.path)
    content = pidfile.read(target.path)
    seen = (source.inode, source.dev, source.size_bytes, source.mtime_ns)
    if allowed.content_sha256 is None or seen != (allowed.inode, allowed.dev, allowed.size_bytes, allowed.mtime_ns):
        raise RefusedError(
            "permit_mismatch",
            "the permit saw another {}, or does not give its content".format(target.path),
            "ask the controller for a new permit: it looks at all evidence again",
        )
    if content.content_sha256 != allowed.content_sha256:
        raise RefusedError(
            "source_changed",
            "{} has changed since the permit was given".format(target.path),
            "a server was started: look at its process first",
        )
    if target.name == pidfile.POSTMASTER and content.started_s is None:
        raise RefusedError(
            "pidfile_unreadable",
            "{} records no start time".format(target.path),
            "malformed or unknown: check by hand whether its server lives",
        )
    latest_s = max(source.mtime_ns / 1e9, float(content.started_s or 0))
    if latest_s >= bootclock.booted_at_s() - _MARGIN_S:
        raise RefusedError(
            "pidfile_of_this_boot",
            "{} was written at {}, and this host booted at {}".format(
                target.path, bootclock.iso(latest_s), bootclock.iso(bootclock.booted_at_s())
            ),
            "it is not left over from the crash: look at the process that it names",
        )
    return source


def _refuse_living_server(target: Target, source: Identity, io_timeout_s: float) -> List[Json]:
    """Refuse when a server with that data directory lives, or one of its user is not visible."""
    wanted = openers.Wanted([target.directory], [(source.dev, source.inode)], SERVERS)
    answer = openers.scan(wanted, io_timeout_s)
    for process in answer["openers"]:
        raise RefusedError(
            "local_holder",
            "process {} ({}) is tied to {}: {}".format(
                process["pid"], process["exe"], target.directory, ", ".join(process["why"])
            ),
            "the server lives, or a start attempt does: do not touch its pid file; stop it and hold the service first",
        )
    owner = os.stat(target.directory).st_uid
    unchecked: List[Json] = answer["unchecked"]
    for process in unchecked:
        if process["uid"] in (owner, None):
            raise HostError(
                "not_observed",
                "process {} could not be looked at ({})".format(process["pid"], process["why"]),
                "run the agent as root or as the directory's owner, so that every process of that user is visible",
            )
    return unchecked


def _checked(owner: Journal, entry: Entry) -> Entry:
    """Check what the rename has moved; put it back when it was something else."""
    quarantine = owner.quarantine(entry.name)
    moved = identity.of_name(quarantine)
    is_right = moved is not None and moved.inode == entry.source_inode
    if is_right and pidfile.read(quarantine).content_sha256 == entry.facts["content_sha256"]:
        descriptor = identity.open_to_read(quarantine)
        try:
            facts: Dict[str, object] = dict(identity.of_status(os.fstat(descriptor)).document())
            facts["head_sha256"] = identity.head_sha256(descriptor)
        finally:
            os.close(descriptor)
        return owner.record("set_aside", entry.name, quarantined=facts)
    _put_back(owner, entry, quarantine)
    raise TryAgainError(
        "raced",
        "another {} appeared in that very moment; it was put back".format(owner.beside(entry.name)),
        "someone starts the server: hold the service, then look again and ask for a new permit",
    )


def _put_back(owner: Journal, entry: Entry, quarantine: str) -> None:
    path = owner.beside(entry.name)
    try:
        durable.link(quarantine, path)  # never replaces what someone has put there meanwhile
    except OSError as error:
        if error.errno != errno.EEXIST or not os.path.samefile(quarantine, path):
            raise CheckFailedError(
                "raced",
                "{} belongs to a server and cannot be put back as {}: {}".format(quarantine, path, error.strerror),
                "stop the server's starts, then compare both files and keep the one of the living process",
            ) from error
    durable.sync_directory(owner.directory)
    durable.unlink(quarantine)
    durable.sync_directory(owner.directory)
    owner.record("put_back", entry.name)


def _document(owner: Journal, entry: Entry) -> Json:
    quarantine = owner.quarantine(entry.name)
    return {
        "path": owner.beside(entry.name),
        "inode_before": entry.source_inode,
        "inode_after": None,
        "size_bytes": entry.facts["source"]["size_bytes"],
        "quarantine": quarantine,
        "content_sha256": entry.facts["content_sha256"],
        "lock": locks.on_file(quarantine),
        "state": "set_aside",
    }
