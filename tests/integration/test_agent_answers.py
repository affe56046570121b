"""The agent's verbs over SSH: what each answer becomes, and users and rights on the way."""

from __future__ import annotations

import json
import pwd
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from lab.private_sshd import LOGIN_USER, PrivateSshd, missing
from tests.integration.ssh_guest import FACTS, GUEST, Answers, instance
from unlatch.errors import CheckFailedError, ConfigError, RefusedError, TransientError, UnlatchError
from unlatch.models import LockKind, Permit, PermitFile, Service
from unlatch.transport.host_agent import SshHostAgent
from unlatch.transport.ssh import SshSession

pytest_plugins = ["tests.integration.ssh_fixtures"]
pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))


PERMIT = Permit(
    incident="inc-1",
    instance="voms",
    boot_id="b00",
    expires_boottime_s=99.5,
    evidence_digest="d" * 64,
    files=(PermitFile(PurePosixPath("/ORA/dbs03/voms/ibdata1"), 11, 22, 33, 44),),
)


class TestAnswers:
    """What the agent says, as values and errors."""

    def test_facts(self, agent: SshHostAgent, answers: Answers) -> None:
        """It should understand times with Z and the mounts of the paths."""
        answers({"facts": {"body": FACTS}})
        found = agent.facts([PurePosixPath("/ORA/dbs03")])
        assert (found.boot_id, found.uptime_s, found.booted_at.isoformat()) == (
            "b00",
            12.25,
            "2026-01-02T03:04:05.500000+00:00",
        )
        assert found.paths[0].fstype == "nfs4"
        assert agent.version() == "9.9"

    @pytest.mark.parametrize("beside", [True, False])
    def test_check_locks(self, agent: SshHostAgent, answers: Answers, beside: bool) -> None:
        """It should understand locks, and what a pid file records, in the lock or beside it."""
        sample = {"size_bytes": 5, "mtime_ns": 6, "ctime_ns": 7, "head_sha256": None}
        base = {"inode": 1, "dev": 2, "size_bytes": 5, "sample": sample, "openers": [], "unchecked": []}
        recorded: dict[str, Any] = {"process": {"pid": 88, "exe": "/bin/sleep"}, "content_sha256": "c"}
        if beside:
            pid_lock: dict[str, Any] = {"kind": "pidfile", "type": "excl", "pid": None}
            recorded |= {"recorded_pid": 88, "recorded_started_at": "2026-01-01T00:00:00Z"}
        else:
            pid_lock = {"kind": "pidfile", "type": "excl", "pid": 88, "started_at": "2026-01-01T00:00:00Z", **recorded}
            recorded = {}
        remote = {"path": "/d/ibdata1", "lock": {"kind": "remote", "type": "write", "pid": None}, **base}
        pid_file = {"path": "/d/postmaster.pid", "lock": pid_lock, **base, **recorded}
        answers({"check-locks": {"body": {"files": [remote, pid_file]}}})
        first, second = agent.check_locks(instance(), [PurePosixPath("/d")], [PurePosixPath("/d/postmaster.pid")])
        assert (first.lock.kind, first.lock.pid) == (LockKind.REMOTE, None)
        assert (second.lock.kind, second.lock.pid, second.lock.content_sha256) == (LockKind.PIDFILE, 88, "c")
        assert second.lock.started_at is not None
        assert second.lock.process is not None
        assert second.lock.process.exe == "/bin/sleep"

    def test_own_leftovers_are_no_files_of_the_instance(self, agent: SshHostAgent, answers: Answers) -> None:
        """It should leave out quarantined originals, which keep their stale lock, unless a local process has one."""
        sample = {"size_bytes": 5, "mtime_ns": 6, "ctime_ns": 7, "head_sha256": None}
        base = {"inode": 1, "dev": 2, "size_bytes": 5, "sample": sample, "openers": [], "leftover": "quarantine"}
        stale = {"path": "/d/.unlatch-a.orig", "lock": {"kind": "remote", "type": "write", "pid": None}, **base}
        alive = {"path": "/d/.unlatch-b.orig", "lock": {"kind": "local", "type": "write", "pid": 9}, **base}
        answers({"check-locks": {"body": {"files": [stale, alive]}}})
        found = agent.check_locks(instance(), [PurePosixPath("/d")], ())
        assert [str(f.path) for f in found] == ["/d/.unlatch-b.orig"]

    def test_a_path_that_is_not_there_has_no_mount(self, agent: SshHostAgent, answers: Answers) -> None:
        """It should not take the root file system for the mount of a volume that is not mounted."""
        paths = [{"path": "/ORA/dbs03", "exists": False, "mountpoint": "/", "fstype": "ext4"}, {"path": "/x"}]
        answers({"facts": {"body": {**FACTS, "paths": paths}}})
        assert agent.facts([PurePosixPath("/ORA/dbs03")]).paths == ()

    def test_answer_of_another_version(self, agent: SshHostAgent, answers: Answers) -> None:
        """It should say that agent and controller do not fit, not end in a KeyError."""
        answers({"*": {"body": {"files": [{"path": "/d"}]}}})
        with pytest.raises(CheckFailedError, match="lacks something"):
            agent.check_locks(instance(), [PurePosixPath("/d")], ())
        with pytest.raises(CheckFailedError, match="lacks something"):
            agent.facts()

    def test_permit_travels_through_standard_input(self, agent: SshHostAgent, answers: Answers) -> None:
        """It should send the whole permit to commit and set-aside, and understand their answers."""
        swapped = {
            "path": "/ORA/dbs03/voms/ibdata1",
            "inode_before": 11,
            "inode_after": 12,
            "quarantine": "/ORA/dbs03/voms/.unlatch-x.orig",
            "content_equal": True,
            "old_inode_still_locked": True,
        }
        answers({"*": {"stdin": True, "body": {"files": [swapped]}}})
        assert agent.commit(instance(), PERMIT)[0].inode_after == 12
        assert agent.set_aside(instance(), PERMIT) == (PurePosixPath("/ORA/dbs03/voms/.unlatch-x.orig"),)
        seen = agent._ask(None, "commit", "--permit", "-", limit_s=20, stdin=json.dumps(PERMIT.as_dict()).encode())
        assert Permit.from_dict(json.loads(seen["seen"])) == PERMIT

    def test_status(self, agent: SshHostAgent, answers: Answers) -> None:
        """It should understand a repair that has just begun, with half of its figures unknown."""
        repair = {"incident": "i", "state": "preparing", "job": {"running": True, "pid": 4}, "bytes_done": 1}
        answers({"status": {"body": {"repair": {**repair, "bytes_total": None, "eta_s": None, "error": None}}}})
        found = agent.status("i", instance(), [PurePosixPath("/d")])
        assert (found.state, found.running, found.bytes_done, found.bytes_total) == ("preparing", True, 1, 0)

    def test_verify_tells_what_changed(self, agent: SshHostAgent, answers: Answers) -> None:
        """It should give the late writer's file as a finding, not as a failure of the call."""
        bad = {
            "path": "/d/ibdata1",
            "state": "committed",
            "quarantine": "/d/.q",
            "quarantine_changed": True,
            "ok": False,
        }
        error = {"code": "late_writer", "message": "m", "next": "n"}
        answers({"verify": {"code": 4, "body": {"ok": False, "files": [bad], "error": error}}})
        assert agent.verify("i", instance(), [PurePosixPath("/d")]) == (
            "/d/ibdata1: its original /d/.q was changed after it was set aside",
        )
        answers({"verify": {"body": {"files": [{"path": "/d/ibdata1", "ok": True}]}}})
        assert agent.verify("i", instance(), [PurePosixPath("/d")]) == ()

    @pytest.mark.parametrize(
        ("code", "kind"),
        [(2, ConfigError), (3, RefusedError), (4, CheckFailedError), (5, ConfigError), (6, TransientError)],
    )
    def test_errors_by_exit_code(
        self, agent: SshHostAgent, answers: Answers, code: int, kind: type[UnlatchError]
    ) -> None:
        """It should raise the class that the exit code means, with the agent's own words and next step."""
        error = {"code": "local_holder", "message": "pid 7 holds ibdata1", "next": "stop pid 7"}
        answers({"prepare": {"code": code, "body": {"ok": False, "error": error}}})
        with pytest.raises(kind, match=f"{GUEST}: pid 7 holds ibdata1 \\(local_holder\\)") as caught:
            agent.prepare("inc-1", instance(), [PurePosixPath("/d/ibdata1")])
        assert type(caught.value) is kind
        assert caught.value.next_step == "stop pid 7"
        assert caught.value.detail["agent"]["code"] == "local_holder"

    @pytest.mark.parametrize(
        ("answer", "kind"),
        [
            ({"stdout": "Welcome to dbtest01!\n" + "x" * 999}, CheckFailedError),
            ({"stdout": 'Welcome!\n{"schema": 1, "ok": true}'}, CheckFailedError),
            ({"stdout": '{"schema": 1, "ok": tr', "code": 1}, TransientError),
            ({"stdout": "", "code": 1, "stderr": ["Traceback: boom"]}, TransientError),
            ({"stdout": '{"schema": 2, "ok": true}'}, CheckFailedError),
            ({"stdout": "[]"}, CheckFailedError),
            ({"stdout": '{"schema": 1, "ok": true}', "kill": True}, TransientError),
        ],
    )
    def test_nonsense(
        self, agent: SshHostAgent, answers: Answers, answer: dict[str, Any], kind: type[UnlatchError]
    ) -> None:
        """It should never take anything but one whole document for an answer, and show how the nonsense begins."""
        answers({"facts": answer})
        with pytest.raises(kind) as caught:
            agent.facts()
        assert len(caught.value.what) < 500

    def test_progress(self, connected: SshSession, fake_pyz: Path, answers: Answers) -> None:
        """It should pass progress objects on and ignore other lines of standard error."""
        seen: list[Any] = []
        lines = ["warning: x", '{"progress": {"path": "/d", "bytes_done": 1}}', "[1]", "{"]
        answers({"facts": {"body": FACTS, "stderr": lines}})
        SshHostAgent(connected, GUEST, fake_pyz, on_progress=seen.append).facts()
        assert seen == [{"path": "/d", "bytes_done": 1}]


class TestPrivileges:
    """Users, sudo, and what is said when a right is missing."""

    def test_runs_without_sudo_as_the_login_user(self, agent: SshHostAgent) -> None:
        """It should need no sudo when the login user is the instance's user."""
        assert agent.check_locks(instance(LOGIN_USER), [PurePosixPath("/d")], ()) == ()

    def test_sudo_refused(self, agent: SshHostAgent) -> None:
        """It should give the very line that the sudoers file needs."""
        with pytest.raises(ConfigError, match="does not let Unlatch work as mysql") as caught:
            agent.check_locks(instance("mysql"), [PurePosixPath("/d")], ())
        assert f"{LOGIN_USER} ALL=(mysql) NOPASSWD: ALL" in caught.value.next_step

    def test_runs_as_the_instances_user(self, sshd: PrivateSshd, through: Any, fake_pyz: Path) -> None:
        """It should reach another user through sudo, who can read the uploaded agent."""
        agent = SshHostAgent(through(sshd.connection(login="root")), GUEST, fake_pyz)
        found = agent._ask(LOGIN_USER, "facts", limit_s=20)
        assert found["uid"] == pwd.getpwnam(LOGIN_USER).pw_uid

    def test_opener_scan_that_is_not_allowed_is_unchecked(self, agent: SshHostAgent) -> None:
        """It should say what was not looked at and how to allow it, never that nothing was found."""
        scan = agent.openers(instance(), ("mariadbd",))
        assert scan.openers == ()
        assert "/usr/local/sbin/unlatch-openers" in scan.unchecked[0].why
        assert f"{LOGIN_USER} ALL=(root) NOPASSWD: /usr/local/sbin/unlatch-openers" in scan.unchecked[0].why

    def test_service_that_sudo_refuses(self, agent: SshHostAgent) -> None:
        """It should be a ConfigError with the exact line, not a failed start."""
        words = ("sudo", "-n", "/usr/bin/systemctl", "start", "dbod-mysql@voms")
        service = Service(start=words, stop=words, status=words, hold=words, release=words)
        with pytest.raises(ConfigError) as caught:
            agent.service(instance(service=service), "start")
        line = f"{LOGIN_USER} ALL=(root) NOPASSWD: /usr/bin/systemctl start dbod-mysql@voms"
        assert line in caught.value.next_step

    def test_service_answers(self, agent: SshHostAgent) -> None:
        """It should give exit code and words of the site's command."""
        words = ("sh", "-c", "echo out; echo err >&2; exit 3")
        service = Service(start=words, stop=words, status=words, hold=words, release=words)
        answer = agent.service(instance(service=service), "status")
        assert (answer.code, answer.output) == (3, "out\nerr\n")

    def test_command_that_does_not_exist(self, agent: SshHostAgent) -> None:
        """It should be an answer like any other: 127 and the shell's words."""
        answer = agent.command(["/no/such/program"])
        assert answer.code == 127
        assert "/no/such/program" in answer.output

    def test_tail(self, agent: SshHostAgent, connected: SshSession) -> None:
        """It should give the last lines, nothing for a missing file, and never more than fits a ticket."""
        connected.run(["sh", "-c", "seq 1 100000 >/var/tmp/log"], timeout_s=20)
        assert agent.tail(instance(), PurePosixPath("/var/tmp/log"), 2) == "99999\n100000"
        assert agent.tail(instance(), PurePosixPath("/var/tmp/none"), 2) == ""
        assert len(agent.tail(instance(), PurePosixPath("/var/tmp/log"), 10**6)) <= 64 << 10

    def test_tail_of_an_unreadable_file(self, agent: SshHostAgent) -> None:
        """It should say who cannot read what."""
        with pytest.raises(ConfigError, match=f"{LOGIN_USER} cannot read /etc/shadow"):
            agent.tail(instance(), PurePosixPath("/etc/shadow"), 2)
