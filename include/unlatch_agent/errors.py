"""The agent's errors: one class per exit code, each with a code, a message and the next step."""

import contextlib
import errno
import os
from types import TracebackType
from typing import Any, Collection, Dict, List, Optional, Type

Json = Dict[str, Any]


class AgentError(Exception):
    """Something went wrong and a person or the controller must know what to do next.

    Attributes:
        exit_code: what the program exits with.
        code: short name for programs, such as ``source_changed``.
        message: what happened, and to what.
        next_step: what to do about it.
        files: entries for the files seen so far, for the answer's ``files``.
    """

    exit_code = 5

    def __init__(self, code: str, message: str, next_step: str, files: Optional[List[Json]] = None) -> None:
        """Keep the three texts that every error of the agent must have."""
        super().__init__(message)
        self.code = code
        self.message = message
        self.next_step = next_step
        self.files: Collection[Json] = files if files is not None else []

    def document(self) -> Json:
        """Return the answer's ``error`` object."""
        return {"code": self.code, "message": self.message, "next": self.next_step}


class UsageError(AgentError):
    """The command line or an input document makes no sense. Nothing was touched."""

    exit_code = 2


class RefusedError(AgentError):
    """Going on would not be safe. Nothing was touched by the step that refused."""

    exit_code = 3


class CheckFailedError(AgentError):
    """A check failed after something was done."""

    exit_code = 4


class HostError(AgentError):
    """A privilege, a tool or space is missing on this host."""

    exit_code = 5


class TryAgainError(AgentError):
    """The same command may succeed later."""

    exit_code = 6


_BY_EXIT_CODE = {
    kind.exit_code: kind for kind in (UsageError, RefusedError, CheckFailedError, HostError, TryAgainError)
}


def rebuilt(document: Json, exit_code: int, files: List[Json]) -> AgentError:
    """Make the error again that a child process has sent as JSON."""
    kind = _BY_EXIT_CODE.get(exit_code, HostError)
    return kind(document["code"], document["message"], document["next"], files)


class naming:  # noqa: N801 (reads as the words of a with statement; a plain class costs least in a loop over files)
    """Let an error of a call on an open file name the file; the call itself knows only a number."""

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int) -> None:
        """Take the open file."""
        self._descriptor = descriptor

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(
        self, _: Optional[Type[BaseException]], error: Optional[BaseException], __: Optional[TracebackType]
    ) -> None:
        """Add the file's present name to a system call's error."""
        if isinstance(error, OSError) and (error.filename is None or isinstance(error.filename, int)):
            with contextlib.suppress(OSError):
                error.filename = os.readlink("/proc/self/fd/{}".format(self._descriptor))


def of_system(error: OSError) -> AgentError:
    """Turn a refused system call into an error with a next step."""
    text = "{}: {}".format(error.filename, error.strerror) if error.filename else str(error)
    if error.errno == errno.EROFS:
        return HostError(
            "read_only",
            text,
            "the volume is mounted read-only, is a snapshot, or went read-only after an error (see mount and this "
            "host's kernel log): make it writable, then run the same command again. No permission helps here",
        )
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return HostError("too_many_files", text, "raise the number of open files (ulimit -n), then run it again")
    if error.errno in (errno.EACCES, errno.EPERM):
        return HostError(
            "permission",
            text,
            "run the agent as the owner of the files (the instance's OS user); preflight says what is missing",
        )
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return HostError("no_space", text, "make room on the volume, then run the same command again")
    return TryAgainError(
        "io_error",
        text,
        "look at the volume and this host's kernel log, then run the same command again: it goes on where it stopped",
    )
