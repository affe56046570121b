"""The journal: what was begun and done with each file, one per directory and incident.

JSON lines, each on disk before the act that it announces. A last line cut off by a crash is dropped. What the lines
mean is in replaying.py.
"""

import json
import os
import zlib
from typing import Dict, Iterable, List, Optional, Sequence, Tuple, ValuesView

from unlatch_agent import SCHEMA, __version__, bootclock, descriptors, durable, identity
from unlatch_agent.errors import Json, RefusedError
from unlatch_agent.ioguard import Beat
from unlatch_agent.replaying import DamagedError, Entries, Entry, History, replay

# Made once: json.dumps would make one for each line.
_line_of = json.JSONEncoder(check_circular=False).encode
# A repair in one of these is under way: nobody else may begin one on that directory.
UNFINISHED = frozenset({"copying", "prepared", "swapping", "setting_aside", "restoring", "discarding"})
# Names are made of a hash. So many are kept: all of a batch, and not all that a directory can have.
_STEMS = 20000
_READ_BYTES = 256 * 1024


class _OpenFile:
    """A journal's file while something may be read of it again; closed when nobody refers to it any more."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.descriptor: Optional[int] = None

    def opened(self, descriptor: int) -> int:
        """Read from this descriptor from now on, and close the one before."""
        self.close()
        self.descriptor = descriptor
        return descriptor

    def line(self, start: int, size_bytes: int, checksum: int) -> bytes:
        """Read a line again.

        Raises:
            RefusedError: it is another one.
        """
        line = b"" if self.descriptor is None else os.pread(self.descriptor, size_bytes, start)
        if zlib.crc32(line) != checksum:
            raise damaged(self._path, "it was changed while it was read")
        return line

    def close(self) -> None:
        """Close it, if it is open."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None

    def __del__(self) -> None:
        self.close()


def damaged(path: str, why: str) -> RefusedError:
    """Return the error for a journal that cannot be relied on."""
    return RefusedError(
        "journal_damaged",
        "the journal {} cannot be trusted: {}".format(path, why),
        "check by hand: originals are named .unlatch-*.orig, copies .unlatch-*.new; nothing was touched",
    )


class Journal:
    """One directory's journal of one incident. Use it only while holding the directory's host lock."""

    def __init__(self, directory: str, incident: str) -> None:
        """Read the journal, if there is one; creates nothing.

        Raises:
            RefusedError: it is damaged, or belongs to someone else.
        """
        self.directory = directory
        self.incident = incident
        self._prefix = os.path.join(directory, "")
        self._stems: Dict[str, str] = {}
        self.path = os.path.join(directory, identity.journal_name(incident))
        self.exists = identity.is_there(self.path)
        self._file = _OpenFile(self.path)
        self._descriptor: Optional[int] = None  # to append with
        self._is_behind = False
        self.history = self._read() if self.exists else History(None, None, Entries(self._file.line))

    @property
    def entries(self) -> ValuesView[Entry]:
        """Return the files as they are now, in the order of first mention."""
        return self.history.entries.values()

    def entry(self, name: str) -> Optional[Entry]:
        """Return one file's entry."""
        return self.history.entries.get(name)

    def beside(self, name: str) -> str:
        """Return the path of a name in this directory."""
        return self._prefix + name

    def temp(self, name: str) -> str:
        """Return the path of a file's copy before the swap, and of its new file after a restore."""
        return self._stem(name) + ".new"

    def quarantine(self, name: str) -> str:
        """Return the path under which a file's original is kept."""
        return self._stem(name) + ".orig"

    def _stem(self, name: str) -> str:
        known = self._stems.get(name)
        if known is None:
            if len(self._stems) >= _STEMS:
                self._stems.clear()
            known = self._prefix + identity.PREFIX + identity.name_hash(self.incident, name)
            self._stems[name] = known
        return known

    def _read(self) -> History:
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise RefusedError(
                "journal_unreadable",
                "cannot read the journal {}: {}".format(self.path, error.strerror),
                "run the agent as the user who began this repair (the owner of the journal)",
            ) from error
        with open(self._file.opened(descriptor), "rb", _READ_BYTES, closefd=False) as lines:
            try:
                history = replay(lines, self._file.line)
            except DamagedError as damage:
                raise damaged(self.path, str(damage)) from damage
        if history.incident not in (None, self.incident):
            raise damaged(self.path, "it belongs to incident {}".format(history.incident))
        return history

    def record(self, event: str, name: str, **facts: object) -> Entry:
        """Append one event and wait until it is on disk; makes the journal when there is none.

        Returns:
            the file's entry after the event.
        """
        self.record_all(event, [(name, facts)])
        return self.history.entries[name]

    def record_all(
        self, event: str, facts_by_name: Sequence[Tuple[str, Json]], *, is_kept: bool = True, is_awaited: bool = True
    ) -> None:
        """Append the same event of many files and wait once until all of them are on disk.

        A crash keeps a part of them, in order, as if they had been appended one by one.

        Args:
            event: what is recorded.
            facts_by_name: of each file what is new.
            is_kept: whether what was recorded of these files is soon asked for again; else it is read when it is.
            is_awaited: False for what was done, never for what is announced, when ``wait`` or another record follows
                soon: each wait for the disk is also one for all that other processes write.
        """
        if self._descriptor is None:
            self._descriptor = self._opened()
        self._append(self._descriptor, event, facts_by_name, is_awaited=is_awaited)
        for name, facts in facts_by_name:
            if is_kept:
                self.history.entries.keep(name, event, facts)
            else:
                self.history.entries.let_go(name)

    def wait(self) -> None:
        """Wait until the disk has all records."""
        if self._descriptor is not None and self._is_behind:
            durable.sync(self._descriptor)
            self._is_behind = False

    def _opened(self) -> int:
        if not self.exists:
            descriptor = durable.create(self.path)
            durable.sync_directory(self.directory)
            self.exists = True
        else:
            flags = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(self.path, flags)
            if os.fstat(descriptor).st_size > self.history.sound_bytes:
                durable.cut(descriptor, self.history.sound_bytes)
        if not self.history.length:
            begin: Json = {"event": "begin", "schema": SCHEMA, "incident": self.incident, "host": os.uname().nodename}
            begin.update(boot_id=bootclock.boot_id(), agent_version=__version__)
            self._append(descriptor, "begin", [("", begin)])
            self.history = self.history._replace(incident=self.incident, boot_id=begin["boot_id"])
        return self._file.opened(descriptor)

    def _append(
        self, descriptor: int, event: str, facts_by_name: Sequence[Tuple[str, Json]], *, is_awaited: bool = True
    ) -> None:
        entries, at = self.history.entries, bootclock.now_iso()
        added: List[Tuple[str, bytes]] = []
        for number, (name, facts) in enumerate(facts_by_name, entries.length):
            record = dict(facts, event=event, n=number, at=at)
            if name:
                record["name"] = name
                entries.checked(event, record, number + 1)
            added.append((name, _line_of(record).encode() + b"\n"))
        content = b"".join(line for _, line in added)
        if is_awaited:
            durable.append(descriptor, content)
        else:
            durable.add(descriptor, content)
        self._is_behind = not is_awaited
        for name, line in added:
            entries.add(name, event, line)

    def remove(self) -> None:
        """Remove the journal: nothing that it speaks of is left."""
        self._file.close()  # else an NFS client would keep it under another name
        self._descriptor = None
        durable.unlink(self.path)
        durable.sync_directory(self.directory)
        self.exists = False


def of_directories(directories: Iterable[str], incident: str, beat: Beat) -> Dict[str, Journal]:
    """Read the journals of an incident in some directories, each of which stays open.

    Raises:
        HostError: ``too_many_files``.
        RefusedError: one is damaged, or belongs to someone else.
    """
    found: Dict[str, Journal] = {}
    names = list(dict.fromkeys(directories))
    descriptors.allow(0, directories=len(names))
    for directory in names:
        beat(None)
        found[directory] = Journal(directory, incident)
    return found


def others(directory: str, incident: str) -> List[str]:
    """Return the other incidents that have a journal in a directory."""
    found = []
    for name in sorted(os.listdir(directory)):
        if identity.leftover_kind(name) == "journal":
            other = name[len(identity.PREFIX) : -len(identity.JOURNAL_SUFFIX)]
            if other != incident:
                found.append(other)
    return found


def refuse_foreign(directory: str, incident: str) -> None:
    """Refuse when another repair is under way in a directory.

    Raises:
        RefusedError: ``foreign_journal``.
    """
    for other in others(directory, incident):
        journal = Journal(directory, other)
        unfinished = [entry.name for entry in journal.entries if entry.state in UNFINISHED]
        if unfinished:
            raise RefusedError(
                "foreign_journal",
                "incident {} has an unfinished repair in {} ({})".format(other, directory, ", ".join(unfinished)),
                "finish it (commit or restore --incident {0}), or throw its copies away "
                "(purge --incident {0} {1})".format(other, directory),
            )
