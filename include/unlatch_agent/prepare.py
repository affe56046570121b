"""prepare: copy and verify beside the originals. Touches no name of the database."""

import os
from typing import TYPE_CHECKING, Dict, List, Optional, Sequence

from unlatch_agent import (
    batches,
    cloning,
    comparing,
    copying,
    crew,
    descriptors,
    identity,
    journal,
    mounts,
    planning,
    safety,
    sharing,
)
from unlatch_agent.copying import Asked
from unlatch_agent.errors import Json
from unlatch_agent.ioguard import Beat
from unlatch_agent.journal import Journal
from unlatch_agent.late import late
from unlatch_agent.making import UNCHANGED, Making, Planned, Volume, source_changed
from unlatch_agent.progress import Progress
from unlatch_agent.replaying import Entry
from unlatch_agent.safety import Target

if TYPE_CHECKING:
    from unlatch_agent import enginecheck
else:
    enginecheck = late("enginecheck")

__all__ = ["UNCHANGED", "document", "run", "same_content", "source_changed"]

_SERVER_COPIES = "4.2"


def run(
    incident: str,
    targets: Sequence[Target],
    asked: Asked,
    io_timeout_s: float,
    beat: Beat,
    *,
    journals: Optional[Dict[str, Journal]] = None,
    is_told: bool = True,
) -> Json:
    """Copy and verify files. The caller holds the host lock of their directories.

    Idempotent: files that an earlier run has finished are checked, not copied again, and a huge one that it was
    killed in is gone on with. What it verified less than is asked for now is compared again; what lost metadata
    that must be kept now is copied again.

    Args:
        incident: its id.
        targets: the files.
        asked: how to copy and verify them.
        io_timeout_s: limit for the look at one process.
        beat: called before each touch.
        journals: those of the directories, when the caller has read them under the same lock.
        is_told: whether the caller asks what the files came to; of many it is much. It has the engine's check in it.

    Returns:
        ``files``, ``unchecked`` and ``warnings``.

    Raises:
        RefusedError: something is not safe; see :mod:`unlatch_agent.safety`. ``metadata_lost`` when asked to be strict.
        HostError: no space, or a privilege is missing, or the method asked for is not possible.
        CheckFailedError: a copy differs from its original, or the engine's check that was asked for found something.
    """
    beat(None)
    if asked.engine_check:
        enginecheck.refuse_without_tool([target.path for target in targets])
    names = [target.directory for target in targets]
    safety.refuse_local_locks(names)
    for directory in dict.fromkeys(names):
        journal.refuse_foreign(directory, incident)
    if journals is None:
        journals = journal.of_directories(names, incident, beat)
    volumes = {directory: _volume(directory) for directory in journals}
    most = batches.BATCH_FILES * batches.DESCRIPTORS_PER_FILE
    open_files = descriptors.allow(len(targets), most, directories=len(journals))
    planned = planning.all_planned(journals, volumes, targets, asked, beat)
    sources = {(plan.source.dev, plan.source.inode) for plan in planned}
    unchecked = safety.refuse_open(sources, io_timeout_s, (target.path for target in targets))
    beat(None)
    _refuse_too_little_space(planned)

    progress = Progress(sum(plan.source.size_bytes for plan in planned), beat, len(planned))
    for plan in planned:
        if plan.done is not None:
            progress.keep(plan.source.size_bytes)
        elif plan.begun is not None:
            progress.keep_part(plan.begun.done_bytes)
    _make(
        [plan for plan in planned if plan.done is None],
        journals,
        volumes,
        asked,
        progress,
        most=open_files // batches.DESCRIPTORS_PER_FILE,
    )
    progress.finish()
    files = []
    for plan in planned if is_told else ():
        owner = journals[plan.target.directory]
        files.append(document(owner, owner.history.entries[plan.target.name], plan.source.dev))
    if asked.engine_check:
        for entry in files:
            beat(None)
            entry["engine_check"] = enginecheck.checked(entry["path"], entry["temp"], lambda: beat(None))
        enginecheck.refuse_wrong(files)
    return {"files": files, "unchecked": unchecked, "warnings": _warnings(files)}


def _make(
    planned: Sequence[Planned],
    journals: Dict[str, Journal],
    volumes: Dict[str, Volume],
    asked: Asked,
    progress: Progress,
    *,
    most: int,
) -> None:
    """Copy files, small ones of a local file system by several processes when there are many."""
    chooser = copying.Chooser(asked.method)
    shared = [plan for plan in planned if sharing.is_shared(plan, volumes[plan.target.directory])]
    rows = list(batches.cut(shared, most))
    if crew.size(len(rows)):
        sharing.make_all(rows, journals, chooser, asked, progress)
        names = {plan.target for plan in shared}
        planned = [plan for plan in planned if plan.target not in names]
    makings = (
        [Making(journals[plan.target.directory], plan, volumes[plan.target.directory]) for plan in batch]
        for batch in batches.cut(planned, most)
    )
    batches.make_all(makings, chooser, asked, progress)


def _volume(directory: str) -> Volume:
    mount = mounts.mount_of(directory, mounts.read_mounts())
    if mount is None or not mount.is_nfs:
        return Volume(is_local=mount is not None and mount.is_local)
    return Volume(
        is_nfs=True,
        tells_of_writers="nocto" not in mount.options.split(","),
        may_copy_on_server=mount.nfs_version == _SERVER_COPIES,
    )


def _warnings(files: Sequence[Json]) -> List[str]:
    """Say loudly what was not looked at."""
    sizes = [entry["path"] for entry in files if entry["verified"] == "sizes"]
    samples = [entry["path"] for entry in files if entry["verified"] == "sample"]
    warnings = []
    if sizes:
        warnings.append("NOT VERIFIED: of {} files only the sizes were compared".format(len(sizes)))
    if samples:
        warnings.append("of {} files only a sample was compared".format(len(samples)))
    return warnings


def document(owner: Journal, entry: Entry, dev: int) -> Json:
    """Return the answer's entry of a prepared file."""
    return dict(
        entry.facts["source"],
        path=owner.beside(entry.name),
        dev=dev,
        temp=owner.temp(entry.name),
        temp_inode=entry.temp_inode,
        method=entry.facts["method"],
        fell_back=entry.facts.get("fell_back", []),
        resumed_at_bytes=entry.facts.get("resumed_at_bytes", 0),
        verified=entry.facts.get("verified", "content"),
        state="prepared",
        metadata_lost=entry.facts["metadata_lost"],
    )


def _refuse_too_little_space(planned: Sequence[Planned]) -> None:
    """Demand room for the full size of every copy, of sparse files too: they fill up later."""
    needed: Dict[str, int] = {}
    seen: Dict[int, str] = {}
    for plan in planned:
        if plan.done is None:
            directory = seen.setdefault(plan.source.dev, plan.target.directory)
            needed[directory] = needed.get(directory, 0) + max(0, plan.source.size_bytes - plan.held_bytes)
    for directory, size_bytes in needed.items():
        volume = os.statvfs(directory)
        free_bytes = volume.f_bavail * volume.f_frsize
        if free_bytes < size_bytes:
            raise copying.too_little_space(directory, size_bytes, free_bytes)


def same_content(owner: Journal, entry: Entry, progress: Progress) -> bool:
    """Compare a finished copy with its original once more: byte for byte, or block for block when it shares them."""
    path = owner.beside(entry.name)
    size_bytes = int(entry.facts["source"]["size_bytes"])
    advance = progress.start(path, "compare", size_bytes)
    descriptors: List[int] = []
    try:
        descriptors.append(identity.open_to_read(path))
        descriptors.append(identity.open_to_read(owner.temp(entry.name)))
        if entry.facts["method"] == "clone":
            shared = cloning.same_extents(descriptors[0], descriptors[1], size_bytes)
            if shared is not None:
                advance(size_bytes)
                return shared
        is_nfs = _volume(owner.directory).is_nfs
        return comparing.equal(descriptors[0], descriptors[1], size_bytes, advance, is_nfs=is_nfs)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
