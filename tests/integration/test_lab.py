"""The lab itself: that its crash leaves behind what the crash of 2014 did, and that nothing of it stays behind."""

import contextlib
import json
import re
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import yaml

from lab import Lab, LabError, locks, processes, unavailable_reason
from tests.integration.lab_looks import error_log, until
from unlatch.inventory import load as load_inventory

pytest_plugins = ("tests.lab_fixtures",)

# Copy, fsync, keep the original under another name, move the copy into place: what was done by hand in 2014.
RECREATE = """
set -eu
cp -a "$1" "$1.copy"
sync "$1.copy"
ln "$1" "$1.old"
mv "$1.copy" "$1"
"""


def mark_count(lab: Lab) -> int:
    return len(list(processes.strays(lab.root)))


@pytest.fixture(scope="module")
def untouched(lab_factory):
    """A lab after its crash, for tests that only look."""
    lab = lab_factory()
    lab.up()
    lab.crash()
    return lab


def mounts_of(lab: Lab) -> list[str]:
    """Return the mounts that any process of the host sees with the lab's directory in them."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/mountinfo"):
        with contextlib.suppress(OSError):
            found |= {line for line in path.read_text().splitlines() if str(lab.root) in line}
    return sorted(found)


class TestCrash:
    """After the crash, without Unlatch."""

    def test_databases_stay_down_and_say_why(self, untouched):
        """It should keep all three down: MariaDB for locked files, PostgreSQL for its pid file; the logs say so."""
        names = {str(path.relative_to(untouched.volume)) for path in untouched.last_crash.locked_files}
        assert names == {f"{name}/{file}" for name in ("voms", "alvmysql") for file in ("ibdata1", "aria_log_control")}
        until(lambda: 'lock file "postmaster.pid" already exists' in error_log(untouched, "lxr"))
        for name in ("voms", "alvmysql"):  # Aria retries for 30 seconds, InnoDB gives up at once
            until(lambda name=name: "Unable to lock ./ibdata1 error: 11" in error_log(untouched, name))
            assert "Can't lock aria control file" in error_log(untouched, name)
        for name in ("voms", "alvmysql", "lxr"):
            assert untouched.service("status", name, check=False).returncode == 3
        assert untouched.ghost_locks() == list(untouched.last_crash.locked_files)

    def test_locks_have_no_owner_in_the_guest(self, untouched):
        """It should show the guest a lock whose l_pid is 0 and that its /proc/locks does not list."""
        probe = (
            "import fcntl, os, struct, sys\n"
            "question = struct.pack('hhqqi4x', fcntl.F_WRLCK, 0, 0, 0, 0)\n"
            "answer = fcntl.fcntl(os.open(sys.argv[1], os.O_RDONLY), fcntl.F_GETLK, question)\n"
            "print(struct.unpack('hhqqi4x', answer)[0] == fcntl.F_WRLCK, struct.unpack('hhqqi4x', answer)[4])\n"
        )
        path = "/ORA/dbs03/voms/ibdata1"
        answer = untouched.guest(["python3", "-c", probe, path], user="mysql").stdout.split()
        assert answer == ["True", "0"]
        inode = str(untouched.host_path(path).stat().st_ino)
        assert f":{inode} " not in untouched.guest(["cat", "/proc/locks"]).stdout
        assert f":{inode} " in Path("/proc/locks").read_text()

    def test_recreating_the_files_by_hand_helps_and_no_row_is_lost(self, crashed_lab):
        """It should start voms and alvmysql from copies, lxr without its old pid file, with every acknowledged row."""
        for name in ("voms", "alvmysql", "lxr"):
            crashed_lab.service("hold", name)
        for path in crashed_lab.last_crash.locked_files:
            old_inode = path.stat().st_ino
            guest_path = str(crashed_lab.guest_path(path))
            crashed_lab.guest(["sh", "-c", RECREATE, "recreate", guest_path], user="mysql")
            assert path.stat().st_ino != old_inode
            assert locks.holder(path) is None
            assert locks.holder(path.with_name(f"{path.name}.old")) is not None, "the old inode stays locked"
        crashed_lab.guest(["mv", "/ORA/dbs03/lxr/postmaster.pid", "/ORA/dbs03/lxr/postmaster.pid.old"], user="postgres")
        for name in ("voms", "alvmysql", "lxr"):
            crashed_lab.service("release", name)
            crashed_lab.service("start", name)
        assert all(count > 0 for count in crashed_lab.last_crash.acknowledged.values())
        assert crashed_lab.writer().missing_after() == {"voms": [], "alvmysql": [], "lxr": []}
        assert {path.name for path in crashed_lab.ghost_locks()} == {"ibdata1.old", "aria_log_control.old"}

    def test_guest_boots_anew(self, running_lab):
        """It should have a new boot id, an uptime from zero and a boot time after the crash."""
        report = running_lab.crash(locks=False)
        boot_id = running_lab.guest(["cat", "/proc/sys/kernel/random/boot_id"]).stdout.strip()
        assert boot_id != report.old_boot_id
        assert boot_id != Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        assert float(running_lab.guest(["cat", "/proc/uptime"]).stdout.split()[0]) < 60
        boot_time = int(
            re.search(r"^btime (\d+)", running_lab.guest(["cat", "/proc/stat"]).stdout, re.MULTILINE).group(1)
        )
        assert datetime.fromtimestamp(boot_time, UTC) > report.crashed_at

    def test_crash_without_locks_needs_no_repair(self, running_lab):
        """It should come back by itself, with every acknowledged row, when nobody keeps the locks."""
        report = running_lab.crash(locks=False)
        assert report.locked_files == ()
        for name in ("voms", "alvmysql", "lxr"):
            running_lab.service("start", name)  # joins the start at boot
        assert running_lab.writer().missing_after() == {"voms": [], "alvmysql": [], "lxr": []}

    def test_released_locks_let_mariadb_start(self, crashed_lab):
        """It should start voms again once the locks are gone, as after clearing them on the storage."""
        crashed_lab.release_ghost()
        assert crashed_lab.ghost_locks() == []
        crashed_lab.service("hold", "voms")  # or its attempt would wait for its next look at the lock
        crashed_lab.service("release", "voms")
        crashed_lab.service("start", "voms")

    def test_xend_log_tells_the_story_of_2014(self, untouched):
        """It should log the lines of the incident, in the site's time zone, with domain ids that grow."""
        lines = untouched.xend_log.read_text().splitlines()
        crash = max(number for number, line in enumerate(lines) if "Domain has crashed" in line)
        domain_id = int(re.search(r"name=2130_dbvrtg4037 id=(\d+)\.$", lines[crash]).group(1))
        stamp = untouched.last_crash.crashed_at.astimezone(ZoneInfo("Europe/Zurich")).strftime("%Y-%m-%d %H:%M:%S")
        head = f"[{stamp} 4572] WARNING (image:490) domain 2130_dbvrtg4037: device model failure: pid "
        assert lines[crash - 1].startswith(head)
        assert lines[crash - 1].endswith("died due to signal 11; see /var/log/xen/qemu-dm-2130_dbvrtg4037.log ")
        after = "\n".join(lines[crash + 1 :])
        assert f"XendDomainInfo.destroy: domid={domain_id}" in after
        assert "'name_label': '2130_dbvrtg4037'" in after
        assert "XendDomainInfo.constructDomain" in after
        assert f"Domain 2130_dbvrtg4037 ({domain_id + 1}) unpaused" in after

    def test_crash_can_leave_the_guest_down(self, healthy_lab):
        """It should stay down until `boot`, and say so."""
        healthy_lab.crash(boot=False)
        with pytest.raises(LabError, match="dbvrtg4037 does not run"):
            healthy_lab.guest(["true"])
        with pytest.raises(LabError, match="can't crash"):
            healthy_lab.crash()
        healthy_lab.boot()
        assert healthy_lab.guest(["hostname"]).stdout.strip() == "dbvrtg4037"
        assert len(healthy_lab.ghost_locks()) == 4


class TestLifeCycle:
    """Up and down, also after the worst."""

    def test_down_leaves_nothing(self, lab_factory):
        """It should leave no process, mount or lock of the lab, and the data come back with the next up."""
        lab = lab_factory()
        lab.up()
        lab.crash()
        inodes = [str(path.stat().st_ino) for path in lab.ghost_locks()]
        assert len(inodes) == 4
        assert mounts_of(lab), "they are in the machines' own mount namespaces"
        assert str(lab.root) not in Path("/proc/self/mountinfo").read_text()
        lab.down()
        lab.down()
        assert mark_count(lab) == 0
        assert not mounts_of(lab)
        assert not [inode for inode in inodes if f":{inode} " in Path("/proc/locks").read_text()]
        lab.up()
        assert lab.writer().missing_after() == {"voms": [], "alvmysql": [], "lxr": []}
        lab.down()

    def test_two_labs_and_a_killed_one(self, lab, lab_factory):
        """It should run beside another lab, come down and up after everything of it was killed, and touch no other."""
        templates = {path: path.stat().st_mtime_ns for path in lab._cache.glob("voms-*")}
        other = lab_factory()
        other.up()
        assert {path: path.stat().st_mtime_ns for path in lab._cache.glob("voms-*")} == templates, "built once, copied"
        first, second = ({entry["port"] for entry in each.connections().values()} for each in (lab, other))
        assert not first & second
        for stray in list(processes.strays(other.root)):
            stray.kill()
        other.up()
        assert other.service("status", "voms", check=False).returncode == 0
        # A state file that knows nothing of what runs: as after a kill in the middle of a boot.
        state = other._site.state
        state.machines = {}
        state.save(other.root / "state.json")
        other.down()
        assert mark_count(other) == 0
        assert lab.guest(["true"]).returncode == 0

    def test_nothing_of_the_host_changes(self, lab):
        """It should leave the host's accounts alone: dbod exists in the guest only."""
        assert "dbod:" not in Path("/etc/passwd").read_text()
        assert "dbod" in lab.guest(["getent", "passwd", "dbod"]).stdout
        assert not Path("/ORA").exists()

    def test_inventory_is_complete(self, lab):
        """It should write an inventory whose connections all exist and whose paths are the guest's."""
        document = yaml.safe_load(lab.inventory_path.read_text())
        connections = lab.connections()
        assert set(load_inventory(lab.inventory_path).instances) == {"voms", "alvmysql", "lxr"}
        for instance in document["instances"].values():
            assert instance["login_conn_id"] in connections
            assert lab.host_path(instance["datadir"]).is_dir()
            assert lab.host_path(instance["error_log"]).is_file()
            assert shlex.join(instance["service"]["hold"]).startswith("sudo -n /usr/local/sbin/dbservice hold ")
        assert document["guests"]["dbvrtg4037"]["conn_id"] in connections
        assert document["hypervisors"]["hv01"]["conn_id"] in connections

    def test_log_lines_of_other_times(self, lab):
        """It should write a line with the time that the caller wants, in the log's zone."""
        lab.log("INFO (SrvDaemon:219) Xend exited with status 0.", at=datetime(2014, 10, 18, 3, 54, tzinfo=UTC))
        assert lab.xend_log.read_text().endswith(
            "[2014-10-18 05:54:00 4572] INFO (SrvDaemon:219) Xend exited with status 0.\n"
        )


def test_command_line(running_lab):
    """It should do by commands in separate processes what the object does, on the same lab."""
    lab = running_lab

    def command(*words):
        argv = [sys.executable, "-m", "lab", "--root", str(lab.root), "--voms-mb", "16", *words]
        return subprocess.run(argv, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])

    assert command("writer", "start").returncode == 0
    assert command("writer", "missing").returncode == 0
    crashed = command("crash")
    assert "still locked: /ORA/dbs03/voms/ibdata1" in crashed.stdout, crashed.stderr
    assert "locks whose owner is dead: alvmysql/aria_log_control" in command("status").stdout
    assert command("exec", "--user", "dbod", "--", "id", "-un").stdout == "dbod\n"
    assert len(lab.ghost_locks()) == 4
    assert command("down").returncode == 0
    assert "guest down" in command("status").stdout
    assert mark_count(lab) == 0
    assert command("crash").returncode == 1
    up = command("up")
    assert up.returncode == 0, up.stderr
    assert set(json.loads(command("connections").stdout)) == set(lab.connections())


def test_says_what_it_needs():
    """It should tell a user who is neither root nor may use sudo what is missing, with exit code 5."""
    reason = unavailable_reason()
    if reason:
        pytest.skip(f"the lab can't run here: {reason}")
    program = (
        "import os, sys, lab.__main__\n"  # read while still allowed to
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "sys.argv = ['lab', '--root', '/tmp/no-lab', 'up']\n"
        "sys.exit(lab.__main__.main())\n"
    )
    argv = [sys.executable, "-c", program]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 5, done.stderr
    assert "the lab needs root" in done.stderr
    assert not Path("/tmp/no-lab").exists()
