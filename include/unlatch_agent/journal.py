"""The journal: what was begun and done with each file, one per directory and incident.

JSON lines, each on disk before the act that it announces. A last line cut off by a crash is dropped.
``replay`` is pure; only :class:`Journal` touches the disk.
"""

import json
import os
from typing import Dict, FrozenSet, Iterable, List, NamedTuple, Optional, Sequence, Tuple

from unlatch_agent import SCHEMA, __version__, bootclock, durable, identity
from unlatch_agent.errors import Json, RefusedError

# Which event may follow which, per file. "_ing" events are intents.
_AFTER: Dict[str, FrozenSet[str]] = {
    "": frozenset({"copying", "setting_aside"}),
    "copying": frozenset({"copying", "prepared", "discarding"}),
    "prepared": frozenset({"copying", "swapping", "discarding"}),
    "swapping": frozenset({"swapping", "committed", "restoring"}),
    "committed": frozenset({"restoring", "purging"}),
    "setting_aside": frozenset({"setting_aside", "set_aside", "put_back", "restoring"}),
    "set_aside": frozenset({"restoring", "purging"}),
    "put_back": frozenset({"copying", "setting_aside", "discarding"}),
    "restoring": frozenset({"restoring", "restored"}),
    "restored": frozenset({"copying", "setting_aside", "discarding"}),
    "discarding": frozenset({"discarding", "discarded"}),
    "discarded": frozenset({"copying", "setting_aside", "discarding"}),
    "purging": frozenset({"purging", "purged"}),
    "purged": frozenset(),
}
# What a record says of itself, not of its file.
_OF_THE_LINE = ("n", "at", "event", "name")
EVENTS = frozenset(_AFTER) - {""}
_WHOLE_NUMBERS = {int}
# Made once: json.dumps would make one for each line.
_line_of = json.JSONEncoder(check_circular=False).encode
# A repair in one of these is under way: nobody else may begin one on that directory.
UNFINISHED = frozenset({"copying", "prepared", "swapping", "setting_aside", "restoring", "discarding"})


class Entry(NamedTuple):
    """What the journal knows of one file.

    Attributes:
        state: its last event.
        facts: all keys recorded so far: ``source``, ``temp``, ``after``, ``quarantined`` (identities),
            ``metadata_lost``, ``content_sha256``, ``batch`` (the directories swapped together), …
    """

    name: str
    state: str
    facts: Json

    @property
    def source_inode(self) -> int:
        """Return the original's inode."""
        return int(self.facts["source"]["inode"])

    @property
    def temp_inode(self) -> Optional[int]:
        """Return the copy's inode, None before it is complete (and for a file set aside)."""
        temp = self.facts.get("temp")
        return None if temp is None else int(temp["inode"])

    @property
    def is_pidfile(self) -> bool:
        """Say whether this file is set aside, not recreated."""
        return "content_sha256" in self.facts


class History(NamedTuple):
    """A journal read to its end.

    Attributes:
        entries: by file name, in the order of first mention.
        length: how many records.
        sound_bytes: how far the whole lines reach; what follows was cut off by a crash.
    """

    incident: Optional[str]
    boot_id: Optional[str]
    entries: Dict[str, Entry]
    length: int
    sound_bytes: int


class DamagedError(Exception):
    """A journal that no crash of ours explains."""


def replay(content: bytes) -> History:
    """Read a journal's content.

    Raises:
        DamagedError: a line before the last is no record, a record is missing, or the order is impossible.
    """
    sound = content.rfind(b"\n") + 1
    entries: Dict[str, Entry] = {}
    incident = boot_id = None
    lines = content[:sound].split(b"\n")[:-1]
    for number, line in enumerate(lines):
        try:
            record = json.loads(line.decode("utf-8"))
            event, sequence = str(record["event"]), record["n"]
        except (ValueError, KeyError, TypeError):
            if number == len(lines) - 1:  # zeros or a half-written block where the last line should be
                sound = content.rfind(b"\n", 0, sound - 1) + 1
                lines = lines[:-1]
                break
            raise DamagedError("line {} is no record".format(number + 1)) from None
        if sequence != number:
            raise DamagedError("line {} has number {}".format(number + 1, sequence))
        if (event == "begin") != (number == 0):
            raise DamagedError("line {}: {!r} is out of place".format(number + 1, event))
        if event == "begin":
            incident, boot_id = str(record.get("incident")), str(record.get("boot_id"))
            continue
        entry = _after(entries, event, record, number + 1)
        entries[entry.name] = entry
    return History(incident, boot_id, entries, len(lines), sound)


def _is_identity(value: object) -> bool:
    # Of four records of each of many files: a set is faster than a loop.
    return isinstance(value, dict) and set(map(type, map(value.get, identity.KEYS))) == _WHOLE_NUMBERS


def _after(entries: Dict[str, Entry], event: str, record: Json, line_number: int) -> Entry:
    """Return what is known of a file after one more record."""
    name = record.get("name")
    if not isinstance(name, str) or not name or "/" in name:
        raise DamagedError("line {} names no file".format(line_number))
    known = entries.get(name)
    state = "" if known is None else known.state
    if event not in _AFTER[state]:
        raise DamagedError("line {}: {} cannot follow {}".format(line_number, event, state or "nothing"))
    facts = {} if known is None or event in ("copying", "setting_aside") else dict(known.facts)
    facts.update(record)
    for key in _OF_THE_LINE:
        facts.pop(key, None)
    is_sound = "source" in facts and all(_is_identity(record[key]) for key in ("source", "temp") if key in record)
    if not is_sound:
        raise DamagedError("line {} does not say what {} was".format(line_number, name))
    return Entry(name, event, facts)


def _of_incident(history: History, incident: str) -> History:
    if history.incident not in (None, incident):
        raise DamagedError("it belongs to incident {}".format(history.incident))
    return history


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
        self._descriptor: Optional[int] = None
        self._is_behind = False
        self.history = self._read() if self.exists else History(None, None, {}, 0, 0)

    @property
    def entries(self) -> List[Entry]:
        """Return the files, in the order of first mention."""
        return list(self.history.entries.values())

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
        with os.fdopen(descriptor, "rb") as source:
            content = source.read()
        try:
            return _of_incident(replay(content), self.incident)
        except DamagedError as damage:
            raise RefusedError(
                "journal_damaged",
                "the journal {} cannot be trusted: {}".format(self.path, damage),
                "check by hand: originals are named .unlatch-*.orig, copies .unlatch-*.new; nothing was touched",
            ) from damage

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
            is_kept: whether this object is to know that too; of many files it is much.
            is_awaited: False for what was done, never for what is announced, when ``wait`` or another record follows
                soon: each wait for the disk is also one for all that other processes write.
        """
        if self._descriptor is None:
            self._descriptor = self._opened()
        records = (dict(facts, event=event, name=name) for name, facts in facts_by_name)
        self._append(self._descriptor, records, is_kept=is_kept, is_awaited=is_awaited)

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
            self._append(descriptor, [begin])
            self.history = self.history._replace(incident=self.incident, boot_id=begin["boot_id"])
        return descriptor

    def _append(
        self, descriptor: int, records: Iterable[Json], *, is_kept: bool = True, is_awaited: bool = True
    ) -> None:
        at, length = bootclock.now_iso(), self.history.length
        lines, entries = [], []
        for record in records:
            record["n"], record["at"] = length, at
            length += 1
            if record["event"] != "begin":
                entry = _after(self.history.entries, str(record["event"]), record, length)
                known = self.history.entries.get(entry.name)
                entries.append(entry if is_kept or known is None else known._replace(state=entry.state))
            lines.append(_line_of(record))
        lines.append("")
        if is_awaited:
            durable.append(descriptor, "\n".join(lines).encode())
        else:
            durable.add(descriptor, "\n".join(lines).encode())
        self._is_behind = not is_awaited
        self.history.entries.update((entry.name, entry) for entry in entries)
        self.history = self.history._replace(length=length)

    def remove(self) -> None:
        """Remove the journal: nothing that it speaks of is left."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        durable.unlink(self.path)
        durable.sync_directory(self.directory)
        self.exists = False


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
