"""Walks the audit's chain and says which rows are not as they were written.

A row's hash covers its number and the hash of the row before. So a row that was moved still gives its hash under its
old number, one that was put in is skipped by the links around it, and one that was removed leaves a gap, or links that
lead to nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from json.encoder import encode_basestring as _quoted
from typing import NamedTuple

from unlatch.models import Value
from unlatch.store.audit_keys import AuditKeys, signer

MOST_FINDINGS = 20
_FARTHEST = 100  # rows that a row may have been moved over, to be recognised by its hash


class Link(NamedTuple):
    """A row as it is stored; `detail` is JSON text. The order is that of the columns."""

    sequence: int
    at: str
    incident: str
    instance: str
    step: str
    phase: str
    attempt: int
    actor: str
    detail: str
    previous_hash: str
    hash: str


@dataclass(frozen=True)
class Finding(Value):
    """Rows that are not as they were written, from the first to the last.

    `kind`: `changed`, `replaced`, `removed`, `inserted`, `moved`, `unsigned`, or `unknown_key`: it cannot be checked.
    """

    first: int
    last: int
    kind: str
    problem: str


@dataclass(frozen=True)
class AuditReport(Value):
    """What a walk over the whole chain found.

    Attributes:
        rows: How many rows were read.
        verified: Every row is as it was written, as far as the keys that are here can tell.
        first_bad: The first sequence that is not as it was written, or not there.
        problem: What is wrong with it.
        head: Sequence and hash of the last row, `(0, "")` when empty.
        findings: All that was found, at most 20.
        unsigned: How many rows have a hash, but no signature.
    """

    rows: int
    verified: bool
    first_bad: int | None
    problem: str | None
    head: tuple[int, str]
    findings: tuple[Finding, ...] = ()
    unsigned: int = 0


def content_of(row: Link, sequence: int | None = None) -> bytes:
    """What is hashed: the row's canonical JSON without its hash.

    It is put together from the stored text: taking `detail` apart and together again would take five times as long.

    Raises:
        TypeError: a value is of a kind that was never written (SQLite lets any into any column).
    """
    if type(row.attempt) is not int or type(row.sequence) is not int or not isinstance(row.detail, str):
        raise TypeError("no row of ours")
    return (
        f'{{"actor":{_quoted(row.actor)},"at":{_quoted(row.at)},"attempt":{row.attempt},"detail":{row.detail},'
        f'"incident":{_quoted(row.incident)},"instance":{_quoted(row.instance)},"phase":{_quoted(row.phase)},'
        f'"previous_hash":{_quoted(row.previous_hash)},'
        f'"sequence":{row.sequence if sequence is None else sequence},"step":{_quoted(row.step)}}}'
    ).encode()


class Chain:
    """One walk. Give it every row in the order of their numbers, then ask for the report."""

    def __init__(self, keys: AuditKeys, witness: tuple[int, str] | None, exists: Callable[[str], bool]) -> None:
        """Begin before the first row.

        Args:
            keys: verify signed rows.
            witness: a head that was kept elsewhere.
            exists: whether any row has that hash; asked only about rows that are not in their place.
        """
        self._keys, self._witness, self._exists = keys, witness, exists
        self._before: tuple[int, str] = (0, "")
        self._near: deque[tuple[int, str]] = deque([(0, "")], maxlen=_FARTHEST + 1)
        self._shift = 0  # rows stand so much higher than they were written: rows were put in before them
        self._rows = self._unsigned = 0
        self._signed_since: int | None = None
        self._full = False
        self._findings: list[Finding] = []

    def walk(self, rows: Iterable[Link]) -> AuditReport:
        """Look at all rows."""
        for row in rows:
            self._rows += 1
            if not self._full:
                self._look(row)
            self._before = (row.sequence, row.hash)
            self._near.append(self._before)
        return self._report()

    def _report(self) -> AuditReport:
        last = self._before[0]
        if self._witness is not None and self._witness[0] > last:
            lost = (last + 1, self._witness[0])
            self._found(*lost, "removed", f"{_rows(*lost)} are missing at the end")
        first = min(self._findings, key=lambda f: f.first, default=None)
        return AuditReport(
            rows=self._rows,
            verified=first is None,
            first_bad=first.first if first else None,
            problem=first.problem if first else None,
            head=self._before,
            findings=tuple(self._findings),
            unsigned=self._unsigned,
        )

    def _look(self, row: Link) -> None:
        here, expected = row.sequence, self._before[0] + 1
        if here < expected:
            self._found(here, here, "inserted", f"row {here} comes next, before the first: it was inserted")
            return
        if here > expected:
            lost = (expected, here - 1)
            what = f"row {expected} is" if expected == here - 1 else f"{_rows(*lost)} are"
            self._found(*lost, "removed", f"{what} missing: row {here} comes next")
        written_as = self._written_as(row)
        follows = here > expected or row.previous_hash == self._before[1]
        if written_as is None:
            self._changed(row)
        elif written_as != here - self._shift:
            self._displaced(row, written_as, follows=follows)
        elif not follows and not self._explained(row):
            before = self._before[0]
            self._found(
                before, before, "replaced", f"row {before} was replaced: row {here} does not follow it, but another row"
            )
        self._signature(row)
        if self._witness is not None and self._witness[0] == here and self._witness[1] != row.hash:
            words = f"row {here} is not the one that the witness saw: the chain was written anew"
            self._found(here, here, "replaced", words)

    def _written_as(self, row: Link) -> int | None:
        """The number under which the row was written; None when its content gives its hash under no number."""
        try:
            if self._keys.agrees(content_of(row, row.sequence - self._shift), row.hash) is not False:
                return row.sequence - self._shift
            for distance in range(_FARTHEST + 1):
                for number in {row.sequence - distance, row.sequence + distance}:
                    if self._keys.agrees(content_of(row, number), row.hash):
                        return number
        except (TypeError, ValueError, AttributeError):
            pass
        return None

    def _changed(self, row: Link) -> None:
        here = row.sequence
        if row.previous_hash != self._before[1] and not self._is_bad(self._before[0]) and here == self._before[0] + 1:
            words = f"row {here} was changed or inserted: its content does not give its hash, and it follows no row"
        else:
            words = f"row {here} was changed: its content does not give its hash"
        self._found(here, here, "changed", words)

    def _displaced(self, row: Link, written_as: int, *, follows: bool) -> None:
        """A genuine row under a number that is not its own."""
        here, shift = row.sequence, row.sequence - written_as
        last = self._findings[-1] if self._findings else None
        if last is not None and last.kind == "moved" and last.last == here - 1 and follows:
            moved = (last.first, here)
            self._findings[-1] = Finding(*moved, "moved", f"{_rows(*moved)} were written as others: they were moved")
            return
        put_in = (here - (shift - self._shift), here - 1)
        if shift > self._shift and (put_in[0] - 1, row.previous_hash) in self._near and not self._is_bad(put_in[0]):
            words = (
                f"{_rows(*put_in)} {'was' if put_in[0] == put_in[1] else 'were'} inserted: row {here} was written as"
            )
            self._found(*put_in, "inserted", f"{words} row {written_as}")
            self._shift = shift
        elif shift < self._shift and not self._exists(row.previous_hash):
            words = f"a row was removed before row {here}, and those behind it were given new numbers"
            self._found(here, here, "removed", f"{words}: it was written as row {written_as}")
            self._shift = shift
        else:
            self._found(here, here, "moved", f"row {here} was written as row {written_as}: it was moved")

    def _explained(self, row: Link) -> bool:
        """Whether a finding about the row before tells already why this one does not follow it."""
        return self._is_bad(self._before[0]) or any(row.previous_hash == known for _, known in list(self._near)[:-1])

    def _signature(self, row: Link) -> None:
        key_id = signer(str(row.hash))
        if key_id is None:
            self._unsigned += 1
            if self._signed_since is not None:
                words = f"row {row.sequence} is not signed, although row {self._signed_since} is"
                self._found(row.sequence, row.sequence, "unsigned", words)
            return
        if key_id not in self._keys.keys and not any(f.kind == "unknown_key" for f in self._findings):
            words = f"row {row.sequence} is signed with the key {key_id[:20]!r}, which is not among the audit's keys"
            self._found(row.sequence, row.sequence, "unknown_key", words)
        self._signed_since = self._signed_since or row.sequence

    def _is_bad(self, sequence: int) -> bool:
        return any(f.first <= sequence <= f.last for f in self._findings)

    def _found(self, first: int, last: int, kind: str, problem: str) -> None:
        self._findings.append(Finding(first, last, kind, problem))
        self._full = len(self._findings) >= MOST_FINDINGS


def _rows(first: int, last: int) -> str:
    return f"row {first}" if first == last else f"rows {first} to {last}"
