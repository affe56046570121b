"""Tickets as Markdown files, one per incident: for sites without a ticket system, and beside one that may be down.

What makes calls idempotent stands in the file itself, in comments that Markdown does not show:
`<!-- unlatch: ticket INCIDENT -->` and `<!-- unlatch: comment MARKER -->`, each on a line of its own.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath

from unlatch.errors import ConfigError
from unlatch.ticketing import STATES, TicketSettings
from unlatch.ticketing._turn import not_writable, turn

_LONGEST_NAME = 100
_STATE_LINE = "**State:** "
_ENDING = re.compile(r"\.[a-z0-9]{1,6}")
_SAFE = re.compile(r"[^A-Za-z0-9._-]")


class FileTicketing:
    """A directory of Markdown tickets. Writers may be many: one lock file for the directory, files replaced whole."""

    name = "file"

    def __init__(self, settings: TicketSettings) -> None:
        self._directory = settings.directory
        self._now = settings.now

    def open(self, incident: str, title: str, body: str, reference: str | None = None) -> str:
        """Write the incident's ticket, or find it.

        Args:
            incident: the ticket's file is named after it.
            title: one line.
            body: Markdown.
            reference: a ticket that people have opened elsewhere; it is named in the file.

        Returns:
            The file's path.

        Raises:
            TransientError: the disk is full or failing, or another writer does not finish.
            ConfigError: the directory cannot be written.
        """
        file = self._file(incident)
        with self._locked():
            if not file.exists():
                lines = [
                    f"# {_one_line(title)}",
                    "",
                    f"{_STATE_LINE}open",
                    "",
                    _mark("ticket", incident),
                    f"- Incident: `{_one_line(incident)}`",
                    f"- Opened: {self._time()}",
                    *([f"- Also known as: {_one_line(reference)}"] if reference else []),
                    "",
                    _quoted(body),
                    "",
                ]
                self._write(file, "\n".join(lines))
        return str(file)

    def comment(self, reference: str, marker: str, text: str) -> None:
        """Add a comment at the end, once per `marker`.

        Raises:
            TransientError: the disk is full or failing, or another writer does not finish.
            ConfigError: there is no such ticket.
        """
        file = self._file(reference)
        mark = _mark("comment", marker)
        with self._locked():
            content = self._read(file)
            if mark not in content.splitlines():
                self._write(file, f"{content.rstrip()}\n\n## {self._time()}\n\n{mark}\n{_quoted(text)}\n")

    def set_state(self, reference: str, state: str) -> None:
        """Write the state at the top: `open`, `in progress`, `waiting`, `resolved` or `closed`.

        Raises:
            ValueError: another state.
            TransientError: the disk is full or failing, or another writer does not finish.
            ConfigError: there is no such ticket.
        """
        if state not in STATES:
            raise ValueError(f"{state!r} is no state of a ticket; states are: {', '.join(STATES)}")
        file = self._file(reference)
        with self._locked():
            lines = self._read(file).split("\n")
            top = list(itertools.takewhile(lambda line: not line.startswith("## "), lines))
            where = next((number for number, line in enumerate(top) if line.startswith(_STATE_LINE)), None)
            if where is None:  # a person tidied it away
                lines[1:1] = ["", f"{_STATE_LINE}{state}"]
            elif lines[where] != f"{_STATE_LINE}{state}":
                lines[where] = f"{_STATE_LINE}{state}"
            else:
                return
            self._write(file, "\n".join(lines))

    def attach(self, reference: str, file_name: str, content: bytes, content_type: str) -> None:
        """Write the file into the ticket's directory `TICKET.files`, and name it in the ticket, once per name.

        Raises:
            TransientError: the disk is full or failing, or another writer does not finish.
            ConfigError: there is no such ticket.
        """
        ticket = self._file(reference)
        ending = PurePath(file_name).suffix if _ENDING.fullmatch(PurePath(file_name).suffix) else ""
        name = _safe(file_name.removesuffix(ending), ending)
        mark = _mark("file", file_name)
        with self._locked():
            text = self._read(ticket)
            if mark in text.splitlines():
                return
            folder = ticket.with_suffix(".files")
            folder.mkdir(exist_ok=True)
            _replace(folder / name, content)
            told = f"Attached: [{name}]({folder.name}/{name}) ({content_type}, {len(content)} bytes)"
            self._write(ticket, f"{text.rstrip()}\n\n## {self._time()}\n\n{mark}\n{told}\n")

    def link(self, reference: str) -> str:
        """The file's address."""
        return self._file(reference).absolute().as_uri()

    def check(self) -> str:
        """Whether tickets could be written, without writing one: for the drill.

        Raises:
            ConfigError: the directory, or the one in which it would be made, cannot be written.
        """
        there = next(d for d in (self._directory, *self._directory.absolute().parents) if d.exists())
        if not there.is_dir():
            raise not_writable(NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)), there)
        if not os.access(there, os.W_OK | os.X_OK):
            raise not_writable(PermissionError(errno.EACCES, os.strerror(errno.EACCES)), there)
        return f"tickets go to {self._directory}" + ("" if there == self._directory else ", which is made then")

    def _file(self, reference: str) -> Path:
        """The file of an incident's id, or of a path that `open` gave; always one of the directory's own."""
        name = PurePath(reference).name if reference.endswith(".md") else reference
        return self._directory / f"{_safe(name.removesuffix('.md'))}.md"

    def _time(self) -> str:
        return f"{self._now():%Y-%m-%d %H:%M:%S} UTC"

    def _read(self, file: Path) -> str:
        try:
            return file.read_text(encoding="utf-8", errors="surrogateescape")  # what people wrote is kept as it is
        except FileNotFoundError as error:
            raise ConfigError(
                f"There is no ticket {file}.",
                next_step="restore the file, or check UNLATCH_TICKETS: all workers need the same directory.",
            ) from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Be the directory's only writer; what its disk does not allow is told in plain words."""
        try:
            with turn(self._directory, self.name):
                yield
        except OSError as error:
            raise not_writable(error, self._directory) from error

    def _write(self, file: Path, content: str) -> None:
        """Replace the file whole: a reader, or a power cut, sees the old content or the new one."""
        _replace(file, content.encode("utf-8", "surrogateescape"))


def _replace(file: Path, content: bytes) -> None:
    temp = file.with_name(f".{file.name}.new")  # one name is enough under the lock, and a leftover is reused
    with temp.open("wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    temp.replace(file)
    directory = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _safe(plain: str, ending: str = "") -> str:
    """A name that any directory takes; two names do not meet in one for what both lost."""
    safe = _SAFE.sub("_", plain).lstrip(".")
    if safe == plain and len(safe) + len(ending) <= _LONGEST_NAME:
        return safe + ending
    digest = hashlib.sha256(plain.encode("utf-8", "backslashreplace")).hexdigest()[:8]
    return f"{safe[: _LONGEST_NAME - 9 - len(ending)]}-{digest}{ending}"


def _one_line(text: str) -> str:
    return _quoted(" ".join(text.split()))


def _mark(kind: str, value: str) -> str:
    """An invisible line. The value cannot end the comment, and different values stay different."""
    safe = "".join(c if c.isalnum() or c in "._/:@ -" else f"%{ord(c):02x}" for c in value)
    return f"<!-- unlatch: {kind} {safe.replace('--', '-%2d')} -->"


def _quoted(text: str) -> str:
    """Text from logs and people, which must not be able to look like one of our marks or hide what follows."""
    return text.replace("<!--", "&lt;!--").encode("utf-8", "backslashreplace").decode("utf-8")


PLUGIN = FileTicketing
