"""Where a hypervisor's crash lines come from: files there, files here, entries of its journal."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from unlatch.errors import ConfigError
from unlatch.inventory import load
from unlatch.models import HypervisorLog


def loaded(directory: Path, entry: str) -> HypervisorLog:
    """The log that an inventory with this one entry declares."""
    file = directory / "inventory.yaml"
    file.write_text(f"version: 1\nhypervisors:\n  hv01:\n    logs:\n      - {entry}\n")
    (log,) = load(file).hypervisors["hv01"].logs
    return log


@pytest.mark.parametrize(
    ("entry", "log", "where"),
    [
        (
            "{format: xend, path: /x.log, timezone: Europe/Zurich, silent_after_s: 60}",
            HypervisorLog("xend", PurePosixPath("/x.log"), "Europe/Zurich", silent_after_s=60),
            "/x.log",
        ),
        (
            "{format: vsphere, path: /x.log, timezone: UTC, local: true}",
            HypervisorLog("vsphere", PurePosixPath("/x.log"), "UTC", local=True),
            "/x.log",
        ),
        (
            "{format: libvirtd, journal: {unit: libvirtd}}",
            HypervisorLog("libvirtd", journal=("--unit=libvirtd",)),
            "journal libvirtd",
        ),
        (
            "{format: kernel, journal: {match: [_TRANSPORT=kernel, +, SYSLOG_IDENTIFIER=mce log]}, silent_after_s: 9}",
            HypervisorLog("kernel", journal=("_TRANSPORT=kernel", "+", "SYSLOG_IDENTIFIER=mce log"), silent_after_s=9),
            "journal _TRANSPORT=kernel + SYSLOG_IDENTIFIER=mce log",
        ),
    ],
)
def test_every_way_in(tmp_path: Path, entry: str, log: HypervisorLog, where: str) -> None:
    """It should take files and journals, and name each place as people do."""
    found = loaded(tmp_path, entry)
    assert found == log
    assert HypervisorLog.from_dict(found.as_dict()) == found
    assert found.where == where


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("{format: xend, path: /x}", "logs[0].timezone: is required"),
        ("{format: xend, timezone: UTC}", "logs[0].path: is required"),
        (
            "{format: xend, path: /x, timezone: UTC, silent_after: 3}",
            "logs[0].silent_after: unknown key; did you mean silent",
        ),
        ("{format: xend, path: /x, timezone: UTC, silent_after_s: 0}", "logs[0].silent_after_s: must be greater than"),
        ("{format: xend, path: /x, timezone: UTC, local: 'yes'}", "logs[0].local: must be true or false"),
        ("{format: xend, journal: {unit: x}, path: /x}", "logs[0].path: unknown key; known: format, journal, local"),
        ("{format: xend, journal: {unt: x}}", "logs[0].journal.unt: unknown key; did you mean unit?"),
        ("{format: xend, journal: {}}", "logs[0].journal: needs either unit, or match: [FIELD=value, …]"),
        ("{format: xend, journal: {unit: x, match: [A=1]}}", "logs[0].journal: needs either unit, or match"),
        ("{format: xend, journal: [A=1]}", "logs[0].journal: must be a mapping of keys to values"),
        ("{format: xend, journal: {match: [kernel]}}", "logs[0].journal.match[0]: must be a journal's field, as in"),
        ("{format: xend, journal: {match: [--vacuum-time=1s]}}", "logs[0].journal.match[0]: must be a journal's field"),
        ("{format: xend, journal: {unit: --flush}}", "logs[0].journal.unit: must be the name of a systemd unit"),
    ],
)
def test_what_is_wrong_is_told_with_line_and_key(tmp_path: Path, entry: str, told: str) -> None:
    """It should name the line and the key, and never hand an option to journalctl."""
    with pytest.raises(ConfigError) as raised:
        loaded(tmp_path, entry)
    assert f"inventory.yaml:5: hypervisors.hv01.{told}" in raised.value.what


def test_more_journals_than_sessions(tmp_path: Path) -> None:
    """It should say so before an sshd refuses the eleventh session again and again."""
    entry = "      - {format: kernel, journal: {match: [A=1]}}\n"
    file = tmp_path / "inventory.yaml"
    file.write_text("version: 1\nhypervisors:\n  hv01:\n    logs:\n" + 9 * entry)
    with pytest.raises(ConfigError, match=r"inventory.yaml:3: hypervisors.hv01: needs fewer journals"):
        load(file)
    file.write_text("version: 1\nhypervisors:\n  hv01:\n    logs:\n" + 8 * entry)
    assert len(load(file).hypervisors["hv01"].logs) == 8
