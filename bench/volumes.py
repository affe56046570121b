"""File systems to measure on: loop devices on this machine's disk, direct, so that nothing is cached twice."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MAKE = {
    "ext4": ["mkfs.ext4", "-q", "-F"],
    "xfs": ["mkfs.xfs", "-q", "-f", "-m", "reflink=1"],
    "btrfs": ["mkfs.btrfs", "-q"],
}
# The least that each of them can be made with.
_LEAST_BYTES = 400 << 20


class NotHereError(Exception):
    """This machine cannot have such a volume; the text says why."""


def run(command: list[str]) -> str:
    """Run a command and return what it printed.

    Raises:
        NotHereError: it failed.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotHereError(f"{command[0]}: {done.stderr.strip()}")
    return done.stdout.strip()


@contextmanager
def mounted(kind: str, size_bytes: int, base: Path) -> Iterator[Path]:
    """Make and mount a file system of a size, and yield its directory; removed afterwards.

    Raises:
        NotHereError: no such file system here, not root, or too little space.
    """
    if shutil.which(MAKE[kind][0]) is None:
        raise NotHereError(f"{MAKE[kind][0]} is not installed")
    size_bytes = max(size_bytes, _LEAST_BYTES)
    if shutil.disk_usage(base).free < size_bytes:
        raise NotHereError(f"{size_bytes >> 20} MiB of disk are not free")
    image, directory = base / f"{kind}.image", base / kind
    directory.mkdir(exist_ok=True)
    with image.open("wb") as file:  # whole, so that the disk's own allocation is not measured
        os.posix_fallocate(file.fileno(), 0, size_bytes)
    try:
        run([*MAKE[kind], str(image)])
        device = run(["losetup", "--find", "--show", "--direct-io=on", str(image)])
        try:
            run(["mount", device, str(directory)])
            try:
                yield directory
            finally:
                run(["umount", str(directory)])
        finally:
            run(["losetup", "--detach", device])
    finally:
        image.unlink()
        directory.rmdir()


def drop_caches() -> None:
    """Empty the page cache, so that every run reads from the disk."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")
