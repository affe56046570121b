"""What is compared: each tool makes new copies of all files of a directory, and is undone afterwards, untimed."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

UNLATCH = "unlatch"


@dataclass(frozen=True)
class Tool:
    """One way to do the job.

    Attributes:
        name: in the table; ``unlatch`` is what the others are compared with.
        command: returns the argument vector for a case's directory and the number of the run.
        undo: brings everything back to where it was, untimed.
        environment: added to it.
    """

    name: str
    command: Callable[[Path, int], list[str]]
    undo: Callable[[Path, int], None]
    environment: dict[str, str] = field(default_factory=dict)


def _copy_of(files: Path) -> Path:
    return files.with_name(files.name + ".copy")


def _shell(text: str) -> Callable[[Path, int], list[str]]:
    """Return a command for the shell, with SOURCE and COPY for both directories."""

    def command(files: Path, _: int) -> list[str]:
        source, copy = shlex.quote(str(files)), shlex.quote(str(_copy_of(files)))
        return ["sh", "-ec", text.replace("SOURCE", source).replace("COPY", copy)]

    return command


def _remove_copy(files: Path, _: int) -> None:
    shutil.rmtree(_copy_of(files), ignore_errors=True)


def as_on_a_guest(agent: Path) -> list[str]:
    """Return how the controller starts the agent: by the system's Python, alone, with byte code beside the agent."""
    system = "/usr/bin/python3"
    start = [system if os.access(system, os.X_OK) else sys.executable, "-I"]
    made = subprocess.run([*start, agent, "precompile", "--json", agent.parent], check=True, capture_output=True)
    return [*start, json.loads(made.stdout)["precompiled"]["path"]]


def file_system_of(agent: Sequence[str], directory: Path) -> str:
    """Return what a directory is on, such as ``xfs`` or ``NFSv4.2``, as the agent sees it."""
    told = subprocess.run([*agent, "facts", "--json", directory], check=True, capture_output=True)
    (place,) = json.loads(told.stdout)["paths"]
    return f"NFSv{place['nfs_version']}" if place["nfs_version"] else str(place["fstype"])


def unlatch(agent: Sequence[str], state: Path, method: str = "auto") -> Tool:
    """Return the agent, by how it is started: recreate, verified; the originals are purged untimed."""
    environment = {"UNLATCH_AGENT_STATE": str(state)}

    def command(files: Path, number: int) -> list[str]:
        incident = f"bench-{number}"
        paths = [str(path) for path in sorted(files.iterdir())]
        return [*agent, "recreate", "--json", "--method", method, "--incident", incident, "--confirm", incident, *paths]

    def undo(files: Path, number: int) -> None:
        purge = [*agent, "purge", "--json", "--incident", f"bench-{number}", str(files)]
        subprocess.run(purge, check=True, capture_output=True, env={**os.environ, **environment})

    return Tool(UNLATCH, command, undo, environment)


_CP = "cp -a --reflink=auto SOURCE COPY && sync -f COPY"
# cmp compares two files: a process for each.
_CMP = 'for file in SOURCE/*; do cmp "$file" COPY/"${file##*/}"; done'


def others(data_bytes: int) -> Sequence[Tool]:
    """Return what an administrator would type, and the disk's own limit for so many bytes."""
    raw = "mkdir COPY; dd if=RAW of=COPY/raw bs=4M iflag=direct oflag=direct conv=fsync status=none".replace(
        "RAW", "SOURCE.raw"
    )
    return (
        Tool("cp, sync, cmp", _shell(f"{_CP} && {_CMP}"), _remove_copy),
        Tool("cp, sync, diff", _shell(f"{_CP} && diff -rq SOURCE COPY"), _remove_copy),
        Tool(
            "cp, sync, evict, diff",
            _shell(f"{_CP} && echo 3 > /proc/sys/vm/drop_caches && diff -rq SOURCE COPY"),
            _remove_copy,
        ),
        Tool("rsync --checksum, sync", _shell("rsync -aS --checksum SOURCE/ COPY/ && sync -f COPY"), _remove_copy),
        Tool("cp, sync (unverified)", _shell(_CP), _remove_copy),
        Tool(f"dd direct, {data_bytes / 1e6:.0f} MB (raw)", _shell(raw), _remove_copy),
    )


def make_raw(files: Path, data_bytes: int) -> None:
    """Write the file that dd copies: as many bytes as the case really stores, a multiple of dd's direct block."""
    block = os.urandom(4 << 20)
    with files.with_name(files.name + ".raw").open("wb") as file:
        for _ in range(max(1, data_bytes // len(block))):
            file.write(block)
