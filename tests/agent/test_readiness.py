"""What preflight says of the volume's abilities, the notification, the unit and crash dumps."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.agent.agent_runner import Agent
from tests.agent.test_nas_texts import RECORD
from unlatch_agent import hostrows, mounts, readiness

TABLE = "1 0 254:0 / / rw - {} /dev/a rw,{}\n"


def mount(fstype: str, options: str = "") -> mounts.Mount:
    """A mount of a kind."""
    (found,) = mounts.parse_mountinfo(TABLE.format(fstype, options).replace("/dev/a", "nas:/srv"))
    return found


@pytest.fixture
def host(tmp_path: Path) -> hostrows.Places:
    """A database host with statd, sm-notify and unlatch-notify."""
    for name in ("proc/77", "proc/sys/kernel", "sys/kernel", "nfs/sm", "bin", "etc", "run/systemd/system", "lib"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "proc/77/comm").write_text("rpc.statd\n")
    (tmp_path / "proc/cmdline").write_text("root=/dev/a quiet\n")
    (tmp_path / "proc/sys/kernel/core_pattern").write_text("core\n")
    (tmp_path / "nfs/sm/nas").write_text(RECORD)
    for name in ("bin/sm-notify", "bin/unlatch-notify"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    return hostrows.Places(
        proc=str(tmp_path / "proc"),
        sys=str(tmp_path / "sys"),
        statd=(str(tmp_path / "statd"), str(tmp_path / "nfs")),
        notify=str(tmp_path / "bin/unlatch-notify"),
        tools=(str(tmp_path / "bin"),),
        units=(str(tmp_path / "transient"), str(tmp_path / "etc")),
        masks=str(tmp_path / "run/systemd/system"),
    )


def untold(_: Any) -> None:
    """Tell nobody."""


@pytest.mark.parametrize(
    ("fstype", "options", "clone", "server"),
    [
        ("nfs4", "vers=4.2", "possible if", "may copy by itself"),
        ("nfs4", "vers=4.1", "has no clones", "through this host"),
        ("nfs", "vers=3", "has no clones", "through this host"),
        ("xfs", "", "without reflink", "no server"),
        ("ext4", "", "has no clones", "no server"),
    ],
)
def test_copies(fstype: str, options: str, clone: str, server: str) -> None:
    """It should say what the file system can do, and never yes to what only a write would show."""
    rows = readiness.copying_rows("/d", mount(fstype, options))
    assert [(row["privilege"], row["ok"]) for row in rows] == [("clone support", None), ("server-side copy", None)]
    assert clone in rows[0]["why"]
    assert server in rows[1]["why"]


@pytest.mark.parametrize("reflink", [0, 1])
def test_a_real_xfs(tmp_path: Path, reflink: int) -> None:
    """It should ask XFS itself whether it was made for clones."""
    if shutil.which("mkfs.xfs") is None:
        pytest.skip("mkfs.xfs is not installed (package xfsprogs)")
    image, place = tmp_path / "image", tmp_path / "volume"
    image.touch()
    os.truncate(image, 320 << 20)
    place.mkdir()
    subprocess.run(["mkfs.xfs", "-q", "-m", f"reflink={reflink}", image], check=True)
    done = subprocess.run(["mount", "-o", "loop", image, place], check=False, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"no loop mounts here: {done.stderr}")
    try:
        can, _ = readiness._clones(str(place), mount("xfs"))
    finally:
        subprocess.run(["umount", place], check=True)
    assert can is bool(reflink)


class TestNotify:
    """Could this host tell the NAS?"""

    three = mount("nfs", "vers=3,local_lock=none")

    def test_yes(self, host: hostrows.Places) -> None:
        """It should say yes when tool, statd and root command are there, and whether statd has an entry."""
        assert readiness.notify_row("/d", self.three, host)["ok"] is True
        assert "monitors nas" in readiness.notify_row("/d", self.three, host)["why"]
        (Path(host.statd[1]) / "sm/nas").unlink()
        assert "no entry for nas" in readiness.notify_row("/d", self.three, host)["why"]

    @pytest.mark.parametrize(
        ("missing", "grant"),
        [
            ("bin/sm-notify", "nfs-common"),
            ("proc/77/comm", "systemctl enable --now rpc-statd"),
            ("bin/unlatch-notify", "NOPASSWD"),
        ],
    )
    def test_no(self, host: hostrows.Places, tmp_path: Path, missing: str, grant: str) -> None:
        """It should say no and how to get it when one of them is missing."""
        (tmp_path / missing).unlink()
        row = readiness.notify_row("/d", self.three, host)
        assert row["ok"] is False
        assert grant in row["grant"]

    @pytest.mark.parametrize("kind", [mount("nfs4", "vers=4.2"), mount("ext4"), None])
    def test_not_needed(self, host: hostrows.Places, tmp_path: Path, kind: mounts.Mount | None) -> None:
        """It should not ask for it where locks end by themselves."""
        (tmp_path / "bin/sm-notify").unlink()
        assert readiness.notify_row("/d", kind, host)["ok"] is True


class TestUnit:
    """Can the unit be held?"""

    def test_a_unit_of_a_package(self, host: hostrows.Places) -> None:
        """It should say yes when no file goes before the mask; a template of the same name does not."""
        (Path(host.units[1]) / "dbod-mysql@.service").write_text("[Service]\n")
        assert hostrows.unit_row("dbod-mysql@voms", host)["ok"] is True

    @pytest.mark.parametrize("name", ["mariadb", "mariadb.service"])
    def test_a_unit_of_the_administrator(self, host: hostrows.Places, name: str) -> None:
        """It should say no to a unit whose file systemd finds before the mask, and what to do."""
        (Path(host.units[1]) / "mariadb.service").write_text("[Service]\n")
        row = hostrows.unit_row(name, host)
        assert row["ok"] is False
        assert "/usr/local/lib/systemd/system" in row["grant"]

    def test_a_masked_unit(self, host: hostrows.Places) -> None:
        """It should say of a unit that is masked for good that it is."""
        (Path(host.units[1]) / "mariadb.service").symlink_to("/dev/null")
        row = hostrows.unit_row("mariadb", host)
        assert (row["ok"], row["grant"]) == (None, "systemctl unmask mariadb.service")

    def test_without_systemd(self, host: hostrows.Places) -> None:
        """It should not know where there is no systemd."""
        gone = host._replace(masks="/nonexistent/systemd/system")
        assert hostrows.unit_row("mariadb", gone)["ok"] is None


class TestDumps:
    """What would be left of a crash."""

    def test_nothing(self, host: hostrows.Places) -> None:
        """It should say plainly that nothing would be left, and what to install."""
        row = hostrows.dumps_row(host)
        assert row["ok"] is None
        assert "no crashkernel=, no kdump" in row["why"]
        assert "in the data directory" in row["why"]
        assert "kdump-tools" in row["grant"]

    @pytest.mark.parametrize(
        ("pattern", "words"),
        [
            ("|/usr/lib/systemd/systemd-coredump %P %u %g", "systemd-coredump"),
            ("/var/crash/core.%e.%p", "/var/crash/core.%e.%p"),
            ("|/usr/share/apport/apport -p%p", "go to /usr/share/apport/apport"),
        ],
    )
    def test_programs(self, host: hostrows.Places, pattern: str, words: str) -> None:
        """It should say where programs' cores go."""
        (Path(host.proc) / "sys/kernel/core_pattern").write_text(pattern + "\n")
        (Path(host.sys) / "kernel/kexec_crash_loaded").write_text("1\n")
        row = hostrows.dumps_row(host)
        assert words in row["why"]
        assert "kdump is loaded" in row["why"]
        assert row["ok"] is (True if "apport" not in pattern else None)

    def test_reserved_but_not_loaded(self, host: hostrows.Places) -> None:
        """It should see a kdump that is only half set up."""
        (Path(host.proc) / "cmdline").write_text("root=/dev/a crashkernel=256M\n")
        assert "kdump is not loaded" in hostrows.dumps_row(host)["why"]


def test_time_to_recover(tmp_path: Path) -> None:
    """It should count every file below, measure how fast the largest is read, and say so."""
    (tmp_path / "db").mkdir()
    (tmp_path / "db/small").write_bytes(b"x" * 1000)
    assert "assumed" in readiness.time_row(str(tmp_path), untold)["why"]
    (tmp_path / "ibdata1").write_bytes(os.urandom(3 << 20))
    row = readiness.time_row(str(tmp_path), untold)
    assert row["bytes"] == (3 << 20) + 1000
    assert "as read now" in row["why"]
    assert row["estimate_s"] > 0


def test_rows_of_preflight(few_agent: Agent, volume: Path) -> None:
    """It should have all of these in its answer, write nothing, and take no other name for a unit."""
    found = few_agent.run("preflight", "--unit", "mariadb@voms", volume).done().document["privileges"]
    assert {"clone support", "server-side copy", "notify", "time to recover", "unit can be masked", "crash dumps"} <= {
        row["privilege"] for row in found
    }
    assert all({"privilege", "path", "ok", "why", "grant"} <= set(row) for row in found)
    assert {path.name for path in volume.iterdir()} == {"ibdata1", "aria_log_control"}
    assert few_agent.run("preflight", "--unit", "../x", volume).code == 2
