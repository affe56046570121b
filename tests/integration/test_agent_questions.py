"""What is asked of hosts beside a repair: live locks, connections, samples, notifications."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from lab.private_sshd import LOGIN_USER, PrivateSshd, directory_for_all, missing
from tests.integration.ssh_guest import GUEST, Answers, instance
from unlatch.errors import CheckFailedError, ConfigError, RefusedError
from unlatch.models import LiveLock, NotifyAnswer, Service
from unlatch.transport.host_agent import SshHostAgent, _masked

pytest_plugins = ["tests.integration.ssh_fixtures"]
pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))


LIVE = {"pid": 4711, "command": "mariadbd", "inode": 7, "mountpoint": "/ORA/dbs03", "server": "nas", "path": None}
NOTIFY = "/usr/local/sbin/unlatch-notify"


class TestQuestions:
    """What helps to tell the living from the dead."""

    def test_samples(self, agent: SshHostAgent, answers: Answers) -> None:
        """It should give the files that exist, and not ask about none."""
        sample = {"size_bytes": 5, "mtime_ns": 1, "ctime_ns": 2, "head_sha256": "a"}
        lock = {"kind": "none", "type": None, "pid": None}
        entry = {"path": "/d/ib_logfile0", "inode": 3, "dev": 4, "size_bytes": 5, "lock": lock, "sample": sample}
        answers({"samples": {"body": {"files": [entry]}}})
        (file,) = agent.samples(instance(), [PurePosixPath("/d/ib_logfile*"), PurePosixPath("/d/none")])
        assert (file.path, file.lock.kind, file.sample.head_sha256) == (PurePosixPath("/d/ib_logfile0"), "none", "a")
        assert agent.samples(instance(), []) == ()

    def test_live_locks(self, agent: SshHostAgent, answers: Answers) -> None:
        """It should give the locks of that host's own processes."""
        answers({"live-locks": {"body": {"locks": [LIVE]}}})
        for asked in (None, PurePosixPath("/ORA/dbs03")):
            assert agent.live_locks(asked) == (LiveLock(4711, 7, "/ORA/dbs03", "mariadbd", "nas"),)

    @pytest.mark.parametrize("state", ["open", "refused", "silent"])
    def test_connects(self, agent: SshHostAgent, answers: Answers, state: str) -> None:
        """It should give the port's state as that host sees it."""
        answers({"connect": {"body": {"ports": [{"host": "dbtest02", "port": 3306, "state": state}]}}})
        assert agent.connects("dbtest02", 3306) == state

    @pytest.mark.parametrize("ports", [[], [{"state": "maybe"}], [{"port": 1}]])
    def test_no_state_at_all(self, agent: SshHostAgent, answers: Answers, ports: list[Any]) -> None:
        """It should not take an answer without a state for silence."""
        answers({"connect": {"body": {"ports": ports}}})
        with pytest.raises(CheckFailedError, match="lacks something"):
            agent.connects("dbtest02", 3306)


def test_the_unit_that_preflight_asks_about() -> None:
    """It should be the one that `hold` masks, and none when the site holds its service in a way of its own."""
    true = ("true",)
    mask = ("sudo", "-n", "/usr/bin/systemctl", "mask", "--runtime", "--now", "dbod-mysql@voms")
    for hold, units in ((mask, ["dbod-mysql@voms"]), (("/usr/local/bin/hold", "voms"), []), (("mask", "x"), [])):
        assert list(_masked(instance(service=Service(true, true, true, hold, true)))) == units


@pytest.fixture(scope="module")
def with_notify() -> Iterator[tuple[PrivateSshd, Path]]:
    """A host with the root command: it prints `answer`, its arguments are in `arguments`."""
    with directory_for_all() as directory:
        sbin = directory / "sbin"
        sbin.mkdir()
        command = sbin / "unlatch-notify"
        command.write_text(
            f'#!/bin/sh\necho "$@" >{directory}/arguments\ncat {directory}/answer\nexit $(cat {directory}/code)\n'
        )
        command.chmod(0o755)
        server = PrivateSshd(directory / "ssh", setup=(f"mount --bind {sbin} /usr/local/sbin",)).start()
        (directory / "ssh").chmod(0o755)
        yield server, directory
        server.stop()


class TestNotify:
    """The root command that frees a host's NFSv3 locks."""

    def asked(self, with_notify: Any, through: Any, pyz: Path, *, code: int, check: bool = False, **body: Any) -> Any:
        """Call it as root."""
        server, directory = with_notify
        document = {"schema": 1, "verb": "notify", "ok": code == 0, "files": [], "error": None, **body}
        (directory / "answer").write_text(json.dumps(document))
        (directory / "code").write_text(str(code))
        return SshHostAgent(through(server.connection(login="root")), GUEST, pyz).notify(check=check)

    def test_answer(self, with_notify: Any, through: Any, fake_pyz: Path) -> None:
        """It should tell which servers acknowledged and which did not."""
        body = {"servers": ["nas", "nas2"], "acknowledged": ["nas"], "unanswered": ["nas2"], "live_locks": []}
        found = self.asked(with_notify, through, fake_pyz, code=0, **body)
        assert found == NotifyAnswer(("nas", "nas2"), ("nas",), ("nas2",))
        assert (with_notify[1] / "arguments").read_text() == "--json\n"

    def test_check(self, with_notify: Any, through: Any, fake_pyz: Path) -> None:
        """It should only check when it is asked to."""
        self.asked(with_notify, through, fake_pyz, code=0, check=True, servers=["nas"])
        assert (with_notify[1] / "arguments").read_text() == "--json --check\n"

    def test_live_locks(self, with_notify: Any, through: Any, fake_pyz: Path) -> None:
        """It should refuse with the command's words when living processes would lose their locks."""
        error = {"code": "live_locks", "message": "this would free locks of 4711 (mariadbd)", "next": "stop those"}
        with pytest.raises(RefusedError, match="4711"):
            self.asked(with_notify, through, fake_pyz, code=3, servers=[], live_locks=[LIVE], error=error)

    def test_a_missing_tool(self, with_notify: Any, through: Any, fake_pyz: Path) -> None:
        """It should be a ConfigError with what to install."""
        error = {"code": "no_sm_notify", "message": "sm-notify is not installed", "next": "install it"}
        with pytest.raises(ConfigError, match="no_sm_notify"):
            self.asked(with_notify, through, fake_pyz, code=5, error=error)

    def test_sudo_refused(self, agent: SshHostAgent) -> None:
        """It should give the very lines that install and grant it."""
        with pytest.raises(ConfigError) as caught:
            agent.notify()
        assert f"install -o root -g root -m 0755 unlatch-agent.pyz {NOTIFY}" in caught.value.next_step
        assert f"{LOGIN_USER} ALL=(root) NOPASSWD: {NOTIFY}" in caught.value.next_step

    def test_not_installed(self, sshd: PrivateSshd, through: Any, fake_pyz: Path) -> None:
        """It should say how to install it where root finds none."""
        if Path(NOTIFY).exists():
            pytest.skip(f"{NOTIFY} is installed on this machine")
        with pytest.raises(ConfigError, match="cannot be told") as caught:
            SshHostAgent(through(sshd.connection(login="root")), GUEST, fake_pyz).notify(check=True)
        assert NOTIFY in caught.value.next_step
