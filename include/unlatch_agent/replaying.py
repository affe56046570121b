"""What a journal's lines say of each file. Pure: lines come from the caller, and are asked for again when needed.

A journal can tell of very many files, so what is kept of a line is where it is, how long and which event. What it says
beyond that is read once more, of the file that is just worked on.
"""

import json
import zlib
from array import array
from typing import Callable, Dict, FrozenSet, Iterable, Iterator, Mapping, NamedTuple, Optional

from unlatch_agent import identity
from unlatch_agent.errors import Json

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
EVENTS = frozenset(_AFTER) - {""}
# With one of these all begins anew: what was recorded of the file before no longer holds.
_ANEW = frozenset({"copying", "setting_aside"})
# What a record says of itself, not of its file.
_OF_THE_LINE = ("n", "at", "event", "name")
_WHOLE_NUMBERS = {int}
# An event takes one byte.
_CODED = tuple(_AFTER)
_CODES = {event: code for code, event in enumerate(_CODED)}
_decoded = json.JSONDecoder().raw_decode

# Reads a line again: where it is, how long it is, and its checksum.
Read = Callable[[int, int, int], bytes]


class Entry:
    """What the journal knows of one file.

    Attributes:
        state: its last event.
    """

    __slots__ = ("_entries", "_facts", "_line", "name", "state")

    def __init__(self, name: str, state: str, entries: "Entries", line: int, facts: Optional[Json] = None) -> None:
        """Take the last line that is to count, and what it and those before say, when that is known."""
        self.name = name
        self.state = state
        self._entries = entries
        self._line = line
        self._facts = facts

    def followed_by(self, event: str) -> "Entry":
        """Return the same with one more event, of which nothing but its name is to be known."""
        return Entry(self.name, event, self._entries, self._line, self._facts)

    @property
    def facts(self) -> Json:
        """Return all keys recorded so far, read when they are first asked for.

        ``source``, ``temp``, ``after``, ``quarantined`` (identities), ``metadata_lost``, ``content_sha256``, ``batch``
        (the directories swapped together), …
        """
        if self._facts is None:
            self._facts = self._entries.facts(self._line)
        return self._facts

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


class Entries(Mapping[str, Entry]):
    """The files of a journal by name, in the order of first mention; an entry is made when it is asked for."""

    def __init__(self, read: Read) -> None:
        """Begin with no line."""
        self._read = read
        self._last: Dict[str, int] = {}  # each file's last line
        self._ends = array("Q", [0])  # where each line ends, and the next begins
        self._sums = array("I")
        self._before = array("I")  # the same file's line before each
        self._events = bytearray()
        self._kept: Dict[str, Json] = {}  # what this program has recorded itself

    def __getitem__(self, name: str) -> Entry:
        """Return what is known of a file now."""
        line = self._last[name]
        return Entry(name, _CODED[self._events[line]], self, line, self._kept.get(name))

    def __iter__(self) -> Iterator[str]:
        """Go through the names."""
        return iter(self._last)

    def __len__(self) -> int:
        """Return how many files there are."""
        return len(self._last)

    @property
    def length(self) -> int:
        """Return how many lines there are."""
        return len(self._events)

    @property
    def size_bytes(self) -> int:
        """Return how far the lines reach."""
        return self._ends[-1]

    def checked(self, event: str, record: Json, line_number: int) -> str:
        """Return the file's name of a record that may come next.

        Raises:
            DamagedError: it may not.
        """
        name = record.get("name")
        if not isinstance(name, str) or not name or "/" in name:
            raise DamagedError("line {} names no file".format(line_number))
        last = self._last.get(name)
        state = "" if last is None else _CODED[self._events[last]]
        if event not in _AFTER[state]:
            raise DamagedError("line {}: {} cannot follow {}".format(line_number, event, state or "nothing"))
        is_sound = "source" in record or event not in _ANEW
        for key in ("source", "temp"):
            is_sound = is_sound and (key not in record or _is_identity(record[key]))
        if not is_sound:
            raise DamagedError("line {} does not say what {} was".format(line_number, name))
        return name

    def add(self, name: str, event: str, line: bytes) -> None:
        """Take in one more line that was checked; the first one is of no file and has no name."""
        self._before.append(self._last.get(name, 0))
        if name:
            self._last[name] = len(self._events)
        self._events.append(_CODES[event] if name else 0)
        self._sums.append(zlib.crc32(line))
        self._ends.append(self._ends[-1] + len(line))

    def keep(self, name: str, event: str, facts: Json) -> None:
        """Keep what a record that was added says, if all before it was kept too: it need not be read again."""
        known = {} if event in _ANEW else self._kept.get(name)
        if known is not None:
            self._kept[name] = dict(known, **facts)

    def let_go(self, name: str) -> None:
        """Keep nothing of a file any more."""
        self._kept.pop(name, None)

    def facts(self, line: int) -> Json:
        """Return what a file's lines say, up to one of them."""
        lines = [line]
        while _CODED[self._events[line]] not in _ANEW:
            line = self._before[line]
            lines.append(line)
        facts: Json = {}
        for line in reversed(lines):
            start = self._ends[line]
            facts.update(_record_of(self._read(start, self._ends[line + 1] - start, self._sums[line])))
        for key in _OF_THE_LINE:
            facts.pop(key, None)
        return facts


class History(NamedTuple):
    """A journal read to its end."""

    incident: Optional[str]
    boot_id: Optional[str]
    entries: Entries

    @property
    def length(self) -> int:
        """Return how many records there are."""
        return self.entries.length

    @property
    def sound_bytes(self) -> int:
        """Return how far the whole lines reach; what follows was cut off by a crash."""
        return self.entries.size_bytes


class DamagedError(Exception):
    """A journal that no crash of ours explains."""


def replay(lines: Iterable[bytes], read: Read) -> History:
    """Read a journal to its end.

    Args:
        lines: its lines, each with its end; the last one may be cut off.
        read: reads one of them again.

    Raises:
        DamagedError: a line before the last is no record, a record is missing, or the order is impossible.
    """
    entries = Entries(read)
    incident = boot_id = None
    following = iter(lines)
    for number, line in enumerate(following):
        if not line.endswith(b"\n"):
            break
        try:
            record = _record_of(line)
            event, sequence = str(record["event"]), record["n"]
        except (ValueError, KeyError, TypeError):
            if not next(following, b"").endswith(b"\n"):
                break  # zeros or a half-written block where the last line should be
            raise DamagedError("line {} is no record".format(number + 1)) from None
        if sequence != number:
            raise DamagedError("line {} has number {}".format(number + 1, sequence))
        if (event == "begin") != (number == 0):
            raise DamagedError("line {}: {!r} is out of place".format(number + 1, event))
        if event == "begin":
            incident, boot_id = str(record.get("incident")), str(record.get("boot_id"))
            entries.add("", event, line)
        else:
            entries.add(entries.checked(event, record, number + 1), event, line)
    return History(incident, boot_id, entries)


def _record_of(line: bytes) -> Json:
    text = line.decode("utf-8")
    try:
        record, end = _decoded(text)
    except ValueError:
        end = -1
    # What json.loads would find besides: space around it, or what is wrong.
    known: Json = record if end == len(text) - 1 else json.loads(text)
    return known


def _is_identity(value: object) -> bool:
    # Of four records of each of many files: a set is faster than a loop.
    return isinstance(value, dict) and set(map(type, map(value.get, identity.KEYS))) == _WHOLE_NUMBERS
