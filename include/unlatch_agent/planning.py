"""What prepare has to do for each file: nothing, to go on, to compare again, or all of it.

Files are looked at, perhaps by other processes; what is to be done follows from what was seen and the journal.
"""

import os
import shlex
from typing import Dict, List, Optional, Sequence, Tuple

from unlatch_agent import abreast, choices, copying, identity, locks, metadata, safety
from unlatch_agent.copying import Asked, Copied
from unlatch_agent.errors import RefusedError
from unlatch_agent.identity import Identity
from unlatch_agent.ioguard import Beat
from unlatch_agent.journal import Journal
from unlatch_agent.making import UNCHANGED, Begun, Planned, Volume, source_changed
from unlatch_agent.replaying import Entry
from unlatch_agent.safety import Target

# What an earlier run may have left a copy of.
_WITH_COPY = ("copying", "prepared")


def all_planned(
    journals: Dict[str, Journal], volumes: Dict[str, Volume], targets: Sequence[Target], asked: Asked, beat: Beat
) -> List[Planned]:
    """Look at every file before any is copied; the first one that is not fit, or is in use here, refuses all."""
    listed = locks.listed_here()

    def look(target: Target) -> Tuple[Sequence[int], Optional[Sequence[int]]]:
        return _looked_at(journals[target.directory], target, volumes[target.directory], listed)

    on_nfs = any(volume.is_nfs for volume in volumes.values())
    plans = []
    for target, (source, temp) in zip(targets, abreast.each(targets, look, beat, on_nfs=on_nfs)):
        copy = None if temp is None else Identity(*temp)
        plans.append(_planned(journals[target.directory], target, Identity(*source), copy, asked))
    return plans


def _looked_at(
    owner: Journal, target: Target, volume: Volume, listed: locks.Holders
) -> Tuple[Sequence[int], Optional[Sequence[int]]]:
    """Look at a file and at what an earlier run may have left of its copy."""
    entry = owner.entry(target.name)
    if entry is not None and entry.state not in (*_WITH_COPY, "discarded", "restored", "put_back"):
        raise RefusedError(
            "already_begun",
            "{} is {} in this incident".format(target.path, entry.state.replace("_", " ")),
            "look at it with status --incident {}; commit finishes a swap, restore undoes it".format(owner.incident),
        )
    path = target.path
    descriptor = safety.opened(path)
    try:
        status = os.fstat(descriptor)
        source = identity.of_status(status)
        safety.refuse_unfit(path, source)
        safety.unlocked_here(path, descriptor, status, listed)
        if not volume.is_nfs:
            _refuse_fixed(path, descriptor)
    finally:
        os.close(descriptor)
    has_copy = entry is not None and entry.state in _WITH_COPY
    return source, identity.of_name(owner.temp(target.name)) if has_copy else None


def _planned(owner: Journal, target: Target, source: Identity, temp: Optional[Identity], asked: Asked) -> Planned:
    """Say what is to be done for a file, by what it and its copy are."""
    entry = owner.entry(target.name)
    if entry is None or entry.state not in _WITH_COPY:
        return Planned(target, source)
    changed = identity.differences(entry.facts["source"], source, UNCHANGED)
    if changed and entry.state == "prepared":
        raise source_changed(owner, target.path, changed)
    if temp is None:
        return Planned(target, source)
    planned = Planned(target, source, held_bytes=temp.blocks_bytes)
    if changed:
        return planned
    return _gone_on_with(planned, entry, temp, asked)


def _gone_on_with(planned: Planned, entry: Entry, temp: Identity, asked: Asked) -> Planned:
    """Say what is still right of an earlier run's copy: all, all but its verification, a part, or nothing."""
    if entry.state == "copying":
        return planned._replace(begun=_begun(entry, temp))
    is_touched = bool(identity.differences(entry.facts["temp"], temp, UNCHANGED))
    if is_touched or (asked.strict_metadata and entry.facts["metadata_lost"]):
        return planned
    if _rank(_verification(entry)) < _rank(asked.verification):
        how = Copied(entry.facts["method"], entry.facts.get("fell_back", []))
        return planned._replace(begun=Begun(temp.inode, temp.size_bytes, how))
    return planned._replace(done=entry)


def _begun(entry: Entry, temp: Identity) -> Optional[Begun]:
    """Return what a run that was killed has made durable of a copy; None when that is nothing to rely on."""
    marked = entry.facts.get("done_bytes", 0)
    size_bytes = int(entry.facts["source"]["size_bytes"])
    if not marked or entry.facts.get("temp_inode") != temp.inode or temp.size_bytes != size_bytes:
        return None
    how = Copied(entry.facts.get("method") or copying.AUTO, entry.facts.get("fell_back") or [])
    return Begun(temp.inode, min(marked, size_bytes), how)


def _verification(entry: Entry) -> str:
    """Return what was asked for when a copy was verified."""
    asked = entry.facts.get("verify")
    if asked is None:  # a journal of an agent that did not record it
        said = {"sample": "sample", "sizes": "full" if entry.facts["method"] == "clone" else "none"}
        asked = said.get(entry.facts.get("verified", "content"), "full")
    return str(asked)


def _rank(verification: str) -> int:
    return choices.VERIFICATIONS.index(verification)


def _refuse_fixed(path: str, descriptor: int) -> None:
    """Refuse a file whose names nobody may change: its swap would fail in the middle of the batch."""
    if metadata.flags(descriptor) & (metadata.IMMUTABLE | metadata.APPEND_ONLY):
        raise RefusedError(
            "immutable",
            "{} is immutable or append-only".format(path),
            "find out who made it so, then: chattr -i -a {}".format(shlex.quote(path)),
        )
