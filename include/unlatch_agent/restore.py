"""restore: undo a batch as a whole, as long as nothing has run on the new files."""

import contextlib
from typing import Collection, Iterable, Iterator, List, NamedTuple, Sequence, Tuple

from unlatch_agent import durable, identity, journal, locks, mounts, positions, safety
from unlatch_agent.errors import CheckFailedError, Json, RefusedError
from unlatch_agent.ioguard import Beat
from unlatch_agent.journal import Journal
from unlatch_agent.manyfiles import ManyFiles
from unlatch_agent.positions import Position
from unlatch_agent.replaying import Entry

_BEGUN = ("swapping", "committed", "restoring", "setting_aside", "set_aside")
_NEVER_SWAPPED = ("copying", "prepared", "discarding")
_CONTENT = ("inode", "size_bytes", "mtime_ns")


class Undo(NamedTuple):
    """One file to bring back; there can be very many.

    Attributes:
        kind: where it is, see :mod:`unlatch_agent.positions`.
    """

    owner: Journal
    name: str
    kind: str

    @property
    def path(self) -> str:
        """Return the file's path."""
        return self.owner.beside(self.name)

    @property
    def temp(self) -> str:
        """Return the path where the new file goes."""
        return self.owner.temp(self.name)

    @property
    def quarantine(self) -> str:
        """Return the path where the original is."""
        return self.owner.quarantine(self.name)


def run(incident: str, directories: Sequence[str], discard_temps: bool, io_timeout_s: float, beat: Beat) -> Json:
    """Bring the originals back. The caller holds the host lock of the directories.

    The new files are kept under their temp names. Idempotent; a restore that was killed goes on.

    Args:
        incident: its id.
        directories: all directories of the batch, resolved.
        discard_temps: also throw away copies that were never swapped.
        io_timeout_s: limit for the look at one process.
        beat: called before each touch.

    Returns:
        ``files`` and ``unchecked``.

    Raises:
        RefusedError: something ran on the new files or wrote to an original, or a directory is missing.
        CheckFailedError: a name does not stand for what it should after a call.
    """
    owners = journal.of_directories(directories, incident, beat).values()
    undo = _to_undo(owners, directories, beat)
    unchecked: List[Json] = []
    if undo:
        paths, again = ((path for item in undo for path in (item.path, item.temp, item.quarantine)) for _ in range(2))
        unchecked = safety.refuse_local_users(
            paths, io_timeout_s, beat, on_nfs=mounts.any_on_nfs(directories), names=again
        )
    files = ManyFiles()
    settled = (row for row in _all(owners) if row[1].state in ("restored", "put_back"))
    files.add(_document(owner, entry, entry.state) for owner, entry in settled)
    unswapped = [[entry.name for entry in owner.entries if entry.state in _NEVER_SWAPPED] for owner in owners]
    files.add(_restored(item, beat) for item in reversed(undo))
    for owner, names in zip(owners, unswapped):
        if discard_temps:
            discard_all(owner, names, beat)
        entries = (owner.history.entries[name] for name in names)
        files.add(_document(owner, entry, entry.state) for entry in entries)
    return {"files": files, "unchecked": unchecked}


def _all(owners: Iterable[Journal]) -> Iterator[Tuple[Journal, Entry]]:
    return ((owner, entry) for owner in owners for entry in owner.entries)


def _to_undo(owners: Collection[Journal], directories: Sequence[str], beat: Beat) -> List[Undo]:
    """Look at every file whose swap was begun, and refuse when one may not be brought back."""
    for owner, entry in _all(owners):
        if entry.state in ("purging", "purged"):
            raise _purged(owner, entry)
    undo: List[Undo] = []
    for owner, entry in _all(owners):
        beat(None)
        if entry.state in _BEGUN:
            position = positions.look(owner, entry)
            _refuse_unsafe(owner, entry, position, directories)
            undo.append(Undo(owner, entry.name, position.kind))
    return undo


def _purged(owner: Journal, entry: Entry) -> RefusedError:
    return RefusedError(
        "purged",
        "the original of {} is purged".format(owner.beside(entry.name)),
        "there is nothing to go back to; use the database's backup",
    )


def _document(owner: Journal, entry: Entry, state: str) -> Json:
    return {
        "path": owner.beside(entry.name),
        "inode_before": entry.source_inode,
        "inode_after": entry.temp_inode,
        "temp": owner.temp(entry.name),
        "state": state,
    }


def _refuse_unsafe(owner: Journal, entry: Entry, position: Position, directories: Sequence[str]) -> None:
    """Refuse when the new file was used, the original was written to, or half a batch was named."""
    item = Undo(owner, entry.name, position.kind)
    left_out = sorted(set(entry.facts.get("batch", [])) - set(directories))
    if left_out:
        raise RefusedError(
            "half_batch",
            "{} was swapped together with files in {}".format(item.path, ", ".join(left_out)),
            "name all directories of the batch: it is undone as a whole",
        )
    if position.kind == positions.STRANGE and entry.state == "setting_aside":
        raise RefusedError(
            "raced",
            "{} is another file than the one that was to be set aside".format(item.quarantine),
            "run set-aside again: it puts that file back",
        )
    if position.kind == positions.STRANGE or (position.kind == positions.ASIDE and not entry.is_pidfile):
        raise RefusedError(
            "unexpected_inode",
            "{} or its quarantined original is not the file of this repair".format(item.path),
            "look with ls -li {}: a newer file has the name. Nothing was touched".format(item.owner.directory),
        )
    if entry.is_pidfile:
        if position.kind == positions.ASIDE and position.named is not None:
            raise RefusedError(
                "name_taken",
                "there is a new {}".format(item.path),
                "the server was started since: there is nothing to restore",
            )
        return
    named, quarantine = position.named, position.quarantine
    if position.kind in (positions.SWAPPED, positions.BACK_LINKED) and named is not None:
        # The link that a restore makes changes the ctime, so after a killed one it proves nothing.
        keys = _CONTENT if entry.state == "restoring" or "after" not in entry.facts else (*_CONTENT, "ctime_ns")
        changed = identity.differences(entry.facts.get("after") or entry.facts["temp"], named, keys)
        lock = locks.on_file(item.path)
        if changed or lock is None or lock["kind"] != "none":
            raise RefusedError(
                "new_file_used",
                "{} was used since the swap ({})".format(item.path, ", ".join(changed) or "it is locked"),
                "it may hold newer data than the original: do not go back. Ask the database's owner",
            )
    if quarantine is not None:
        changed = identity.differences(entry.facts["source"], quarantine, _CONTENT)
        if changed:
            raise RefusedError(
                "late_writer",
                "the original {} has changed since the swap ({})".format(item.quarantine, ", ".join(changed)),
                "a writer lives somewhere: find and stop it; keep both files",
            )


def _restored(item: Undo, beat: Beat) -> Json:
    beat(None)
    owner, kind = item.owner, item.kind
    entry = owner.record("restoring", item.name)
    if kind == positions.LINKED:
        # Both names are one inode, and renaming one over the other would do nothing at all.
        durable.unlink(item.quarantine)
    elif kind == positions.ASIDE:
        durable.link(item.quarantine, item.path)  # never replaces a pid file that just appeared
        durable.sync_directory(owner.directory)
        durable.unlink(item.quarantine)
    elif kind in (positions.SWAPPED, positions.BACK_LINKED):
        if kind == positions.SWAPPED:
            with contextlib.suppress(FileExistsError):  # judged by inode below
                durable.link(item.path, item.temp)
            durable.sync_directory(owner.directory)
            kind = positions.look(owner, entry).kind
        if kind != positions.BACK_LINKED:
            raise _failed(item)
        with contextlib.suppress(FileNotFoundError):
            durable.rename(item.quarantine, item.path)
    beat(None)
    durable.sync_directory(owner.directory)
    if positions.look(owner, entry).kind != positions.ORIGINAL:
        raise _failed(item)
    return _document(owner, owner.record("restored", entry.name), "restored")


def _failed(item: Undo) -> CheckFailedError:
    return CheckFailedError(
        "unexpected_inode",
        "{} is not what it should be in the middle of its restore".format(item.path),
        "someone else changes these names: stop it, look with ls -li {}, then run restore again".format(
            item.owner.directory
        ),
    )


def discard_all(owner: Journal, names: Sequence[str], beat: Beat) -> None:
    """Throw away copies of one directory that no name of the database stands for."""
    if not names:
        return
    owner.record_all("discarding", [(name, {}) for name in names])
    for name in names:
        beat(None)
        with contextlib.suppress(FileNotFoundError):
            durable.unlink(owner.temp(name))
    durable.sync_directory(owner.directory)
    owner.record_all("discarded", [(name, {}) for name in names])
