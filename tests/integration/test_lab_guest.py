"""The lab's guest: what can be seen and done in it, and how its services behave."""

import os
import re

import pytest

from lab import LabError, locks
from tests.integration.lab_looks import ssh, until

pytest_plugins = ("tests.lab_fixtures",)


class TestGuest:
    """The guest as programs find it."""

    def test_sees_only_its_own_processes(self, lab):
        """It should show in /proc only what its init started."""
        names = lab.guest(["ps", "-eo", "pid=,args="]).stdout
        assert re.search(r"^\s*1 /sbin/init", names, re.MULTILINE)
        assert len(names.splitlines()) < 60
        assert str(os.getpid()) not in {line.split()[0] for line in names.splitlines() if "pytest" in line}
        assert "pytest" not in names

    def test_host_key_is_pinned(self, lab, tmp_path):
        """It should answer with the connection's host key, and a client that expects another one must not get in."""
        for conn_id, user in (("unlatch_guest_dbvrtg4037", "dbod"), ("unlatch_hv_hv01", "logreader")):
            done = ssh(lab, conn_id, "id -un; python3 -c 'import sys; print(sys.executable)'", tmp_path / "known")
            assert done.stdout.split() == [user, "/usr/bin/python3"], done.stderr
        other = lab.connections()["unlatch_hv_hv01"]["extra"]["host_key"]
        refused = ssh(lab, "unlatch_guest_dbvrtg4037", "true", tmp_path / "wrong", host_key=other)
        assert refused.returncode == 255
        assert "HOST IDENTIFICATION HAS CHANGED" in refused.stderr

    def test_hypervisor_serves_its_log(self, lab, tmp_path):
        """It should let the log reader read xend.log, and not write to it."""
        done = ssh(lab, "unlatch_hv_hv01", "tail -n 1 /var/log/xen/xend.log", tmp_path / "known")
        assert done.stdout == lab.xend_log.read_text().splitlines()[-1] + "\n"
        assert ssh(lab, "unlatch_hv_hv01", "echo x >> /var/log/xen/xend.log", tmp_path / "known").returncode != 0

    @pytest.mark.parametrize(
        "command",
        [
            "sudo -n /usr/local/sbin/dbservice release voms",
            "sudo -n /usr/local/sbin/dbservice reset-failed lxr",
            "sudo -n -u mysql test -r /ORA/dbs03/voms/ibdata1",
            "sudo -n -u postgres test -r /ORA/dbs03/lxr/PG_VERSION",
        ],
    )
    def test_dbod_may(self, lab, tmp_path, command):
        """It should let dbod do what a repair needs."""
        done = ssh(lab, "unlatch_guest_dbvrtg4037", command, tmp_path / "known")
        assert done.returncode == 0, done.stderr

    @pytest.mark.parametrize(
        "command",
        [
            "sudo -n id",
            "sudo -n /usr/local/sbin/dbservice status other",
            "sudo -n /usr/local/sbin/dbservice stop voms lxr",
            "sudo -n /bin/cat /etc/shadow",
            "sudo -n -u dbod -g root id",
            "test -r /ORA/dbs03/voms/ibdata1",
            "kill -0 1",
            "touch /usr/local/sbin/unlatch-openers",
        ],
    )
    def test_dbod_may_not(self, lab, tmp_path, command):
        """It should refuse dbod everything else."""
        done = ssh(lab, "unlatch_guest_dbvrtg4037", command, tmp_path / "known")
        assert done.returncode not in (0, 255), done.stdout

    def test_opener_scan_is_the_agent(self, lab, tmp_path):
        """It should have the agent under the name that only scans for openers, owned by root."""
        path = "/usr/local/sbin/unlatch-openers"
        assert lab.guest(["stat", "-c", "%U %a", path]).stdout.split() == ["root", "755"]
        done = ssh(lab, "unlatch_guest_dbvrtg4037", f"sudo -n {path} --help", tmp_path / "known")
        assert done.returncode == 0, done.stderr

    def test_server_that_dropped_its_privileges_hides_its_files(self, running_lab):
        """It should run voms so that even mysql can't read its descriptors, as daemons that began as root do."""
        for name, readable in (("voms", False), ("alvmysql", True)):
            pid = running_lab.guest(["cat", f"/run/db/{name}.pid"]).stdout.strip()
            done = running_lab.guest(["ls", f"/proc/{pid}/fd"], user="mysql", check=False)
            assert (done.returncode == 0) is readable

    def test_local_holder_is_a_process_of_the_guest(self, lab):
        """It should hold a lock that the guest sees with its pid, until it is killed."""
        path = lab.volume / "lxr/PG_VERSION"
        holder = lab.start_local_holder(path, user="postgres")
        assert locks.holder(path)
        assert path.name in lab.guest(["sh", "-c", "ls -l /proc/[0-9]*/fd 2>/dev/null"]).stdout
        with pytest.raises(LabError, match="got no lock"):
            lab.start_local_holder(path, user="postgres")
        holder.kill()
        holder.wait()
        assert locks.holder(path) is None


class TestService:
    """The guest's dbservice."""

    def test_codes_and_hold(self, running_lab):
        """It should report 0 for running, 3 for stopped, and refuse to start what is held."""

        def service(verb):
            return running_lab.service(verb, "alvmysql", check=False)

        assert service("status").returncode == 0
        assert service("stop").returncode == 0
        assert service("status").returncode == 3
        assert service("hold").returncode == 0
        refused = service("start")
        assert refused.returncode == 1
        assert "held" in refused.stderr
        assert "dbservice release alvmysql" in refused.stderr
        assert service("status").returncode == 3
        assert service("release").returncode == 0
        assert service("start").returncode == 0
        assert "already" in service("start").stdout
        assert running_lab.guest(["dbservice", "start", "nonsense"], check=False).returncode == 2

    def test_hold_leaves_a_running_server_alone(self, running_lab):
        """It should not stop what runs, yet keep it from being started again when it dies."""
        pid = running_lab.guest(["cat", "/run/db/alvmysql.pid"]).stdout.strip()
        assert "left running" in running_lab.service("hold", "alvmysql").stdout
        running_lab.guest(["kill", "-9", pid])
        until(lambda: "failed" in running_lab.service("status", "alvmysql", check=False).stdout)
        running_lab.service("reset-failed", "alvmysql")
        assert running_lab.service("status", "alvmysql", check=False).returncode == 3

    def test_hold_ends_a_retrying_start(self, crashed_lab):
        """It should end an attempt that waits for its lock, leave no process of it, and hold until the next boot."""
        assert "starting" in crashed_lab.service("status", "voms", check=False).stdout
        crashed_lab.service("hold", "voms")
        assert "voms.sock" not in crashed_lab.guest(["ps", "-eo", "args"]).stdout
        assert crashed_lab.service("status", "voms", check=False).stdout.strip() == "voms: stopped, held"
        crashed_lab.crash()
        assert "held" not in crashed_lab.service("status", "voms", check=False).stdout

    def test_failed_start_prints_the_error_log(self, running_lab):
        """It should end with 1 and the server's own words, and not try again on its own."""
        running_lab.service("stop", "lxr")
        conf = running_lab.volume / "lxr/postgresql.conf"
        before = conf.read_text()
        conf.write_text(before + "no_such_setting = 1\n")
        failed = running_lab.service("start", "lxr", check=False)
        conf.write_text(before)
        assert failed.returncode == 1
        assert 'unrecognized configuration parameter "no_such_setting"' in failed.stderr
        status = running_lab.service("status", "lxr", check=False)
        assert (status.returncode, "failed" in status.stdout) == (3, True)

    def test_server_that_dies_is_started_again(self, running_lab):
        """It should restart a server that ended on its own."""
        pid = running_lab.guest(["cat", "/run/db/alvmysql.pid"]).stdout.strip()
        running_lab.guest(["kill", "-9", pid])
        until(lambda: running_lab.service("status", "alvmysql", check=False).returncode == 3)
        running_lab.service("start", "alvmysql")
        assert running_lab.guest(["cat", "/run/db/alvmysql.pid"]).stdout.strip() != pid
