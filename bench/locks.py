"""check-locks beside lslocks, fuser and lsof, on the same files."""

from __future__ import annotations

import fcntl
import os
import resource
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.tools import UNLATCH, Tool

_FILES, _LOCKS = 20_000, 500
_SPARE_DESCRIPTORS = 64


@contextmanager
def locked_files(directory: Path, scale: float) -> Iterator[str]:
    """Make files, some of them locked by this process while the context lasts; yields the case's name."""
    count, locks = max(10, int(_FILES * scale)), max(2, int(_LOCKS * scale))
    directory.mkdir()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, locks + _SPARE_DESCRIPTORS)), hard))
    held: list[int] = []
    for number in range(count):
        path = directory / f"t{number:05}.ibd"
        path.write_bytes(b"x")
        if number % (count // locks) == 0 and len(held) < locks:
            held.append(os.open(path, os.O_RDWR))
            fcntl.lockf(held[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
    yield f"{count:,} files, {len(held)} locks"
    for descriptor in held:
        os.close(descriptor)


def _nothing(_: Path, __: int) -> None:
    pass


def _over(text: str) -> Callable[[Path, int], list[str]]:
    return lambda files, _: ["sh", "-c", text.replace("FILES", shlex.quote(str(files)))]


def tools(agent: Sequence[str], state: Path) -> Sequence[Tool]:
    """Return the programs that say who holds files."""
    return (
        Tool(
            UNLATCH,
            lambda files, _: [*agent, "check-locks", "--json", "--only-locked", str(files)],
            _nothing,
            {"UNLATCH_AGENT_STATE": str(state)},
        ),
        Tool("lslocks", _over("lslocks -n -o PID,PATH | grep -F FILES"), _nothing),
        # Both end with an error when some of the files have no user; that is an answer.
        Tool("fuser", _over("find FILES -type f -print0 | xargs -0 fuser; true"), _nothing),
        Tool("lsof +D", _over("lsof -w +D FILES; true"), _nothing),
    )
