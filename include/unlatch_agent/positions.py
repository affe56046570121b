"""Where a file's two inodes are now, judged by inode alone.

A kill can fall between any two calls, and an NFS server may answer a repeated link or rename with an
error although it was done. So nothing trusts an answer or a journal line: it looks.
"""

from typing import NamedTuple, Optional

from unlatch_agent import identity
from unlatch_agent.errors import CheckFailedError
from unlatch_agent.identity import Identity
from unlatch_agent.journal import Journal
from unlatch_agent.replaying import Entry

ORIGINAL = "original"  # the name has the original, nothing is in quarantine
LINKED = "linked"  # the name and the quarantine are both the original
SWAPPED = "swapped"  # the name has the copy, the original is in quarantine
BACK_LINKED = "back_linked"  # swapped, and the copy has its temp name again: a restore began
ASIDE = "aside"  # the original is in quarantine, the name is free or has something newer
STRANGE = "strange"  # none of these: someone else had a hand in it
KINDS = (ORIGINAL, LINKED, SWAPPED, BACK_LINKED, ASIDE, STRANGE)


class Position(NamedTuple):
    """One file's names as they are now."""

    kind: str
    named: Optional[Identity]
    quarantine: Optional[Identity]
    temp: Optional[Identity]


def look(journal: Journal, entry: Entry, *, with_temp: bool = True) -> Position:
    """Look at a file's three names, or at two where the copy's own makes no difference. Touches the volume.

    Args:
        journal: of its directory.
        entry: what that knows of it.
        with_temp: False when nobody asks for the copy's own name: a copy that has one name only is not looked for
            under another.
    """
    named = identity.of_name(journal.beside(entry.name))
    quarantine = identity.of_name(journal.quarantine(entry.name))
    has_two = named is not None and named.inode == entry.temp_inode and named.links > 1
    temp = identity.of_name(journal.temp(entry.name)) if with_temp or has_two else None
    return Position(_kind(entry, named, quarantine, temp), named, quarantine, temp)


def _kind(entry: Entry, named: Optional[Identity], quarantine: Optional[Identity], temp: Optional[Identity]) -> str:
    original, copy = entry.source_inode, entry.temp_inode
    name_is_original = named is not None and named.inode == original
    quarantine_is_original = quarantine is not None and quarantine.inode == original
    if name_is_original:
        if quarantine is None:
            return ORIGINAL
        return LINKED if quarantine_is_original else STRANGE
    if not quarantine_is_original:
        return STRANGE
    if entry.is_pidfile:
        return ASIDE
    if named is not None and named.inode == copy:
        return BACK_LINKED if temp is not None and temp.inode == copy else SWAPPED
    return ASIDE


def unexpected(journal: Journal, name: str, during: str, then: str) -> CheckFailedError:
    """Return the error for a name that stands for something else than the last call should have made it.

    Args:
        journal: of its directory.
        name: the file's.
        during: what is under way.
        then: the command to run afterwards.
    """
    return CheckFailedError(
        "unexpected_inode",
        "{} is not what it should be in the middle of its {}".format(journal.beside(name), during),
        "someone else changes these names: stop it, look with ls -li {}, then run {}".format(journal.directory, then),
    )
