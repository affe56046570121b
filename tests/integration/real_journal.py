"""A real journal, written by systemd-journal-remote and read by journalctl; and a program that shows it to readers."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

WRITER = "/usr/lib/systemd/systemd-journal-remote"
BOOT = "a" * 32
START_US = 1_413_604_490_000_000  # 2014-10-18 03:54:50 UTC


def missing() -> str | None:
    """Why this cannot run here, or None."""
    for program in (WRITER, "journalctl"):
        if shutil.which(program) is None:
            return f"{program} is not installed (make setup installs it)"
    return None


class Journal:
    """Its files, all written through the export format."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "journal"
        self.directory.mkdir(mode=0o755)
        self.number = 0
        self._file = 0
        self.rotate()

    def rotate(self) -> None:
        """Go on in a new file, as journald does."""
        self._file += 1

    def vacuum(self) -> None:
        """Delete all files but the present one."""
        for file in self.directory.glob("*.journal"):
            if file.name != f"{self._file}.journal":
                file.unlink()

    def write(
        self, *messages: str, unit: str = "libvirtd.service", boot: str = BOOT, step_us: int = 0, **more: str
    ) -> None:
        """Write entries a second apart; `step_us` moves the clock, `more` are further fields."""
        entries = []
        for message in messages:
            self.number += 1
            fields = {
                "__REALTIME_TIMESTAMP": str(START_US + self.number * 1_000_000 + step_us),
                "__MONOTONIC_TIMESTAMP": str(self.number * 1_000_000),
                "_BOOT_ID": boot,
                "_TRANSPORT": "journal",
                "_SYSTEMD_UNIT": unit,
                "SYSLOG_IDENTIFIER": unit.removesuffix(".service"),
                **more,
                "MESSAGE": message,
            }
            entries.append("".join(f"{key}={value}\n" for key, value in fields.items()))
        file = self.directory / f"{self._file}.journal"
        subprocess.run(
            [WRITER, "-o", file, "-"], input="\n".join(entries) + "\n", text=True, capture_output=True, check=True
        )
        file.chmod(0o644)

    def instead_of_the_hosts(self, directory: Path) -> tuple[str, ...]:
        """Shell lines that put this journal in the place of the host's, for a mount namespace."""
        host, real, shown = "/usr/bin/journalctl", directory / "real", directory / "shown"
        shutil.copy(host, real)
        shown.write_text(f'#!/bin/sh\nexec {real} -D {self.directory} "$@"\n')
        shown.chmod(0o755)
        return (f"mount --bind {shown} {host}",)

    def program(self, directory: Path) -> Path:
        """A directory for PATH in which `journalctl` is the real one, for this journal."""
        place = directory / "bin"
        place.mkdir(exist_ok=True)
        real = shutil.which("journalctl")
        (place / "journalctl").write_text(f'#!/bin/sh\nexec {real} -D {self.directory} "$@"\n')
        (place / "journalctl").chmod(0o755)
        return place
