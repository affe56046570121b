"""Putting the agent's file onto a guest: once, whole, and only if it is the right one."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from lab.private_sshd import PrivateSshd, missing
from tests.integration.ssh_guest import CONN_ID, ENVIRONMENT, FACTS, GUEST, Answers
from unlatch.errors import ConfigError
from unlatch.transport.host_agent import SshHostAgent
from unlatch.transport.ssh import SshSession

pytest_plugins = ["tests.integration.ssh_fixtures"]
pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))


class TestDelivery:
    """The agent's file on the guest."""

    def test_uploads_once_per_content(self, agent: SshHostAgent, connected: SshSession, fake_pyz: Path) -> None:
        """It should leave one file, readable by others and writable by nobody, and not write it again."""
        agent.command(["true"])
        agent._placed()
        name = f"unlatch-agent-{hashlib.sha256(fake_pyz.read_bytes()).hexdigest()[:12]}.pyz"
        look = ["sh", "-c", f"stat -c '%a %i' ~/.unlatch ~/.unlatch/{name}"]
        before = connected.run(look, timeout_s=20)
        assert [line.split()[0] for line in before.stdout.decode().splitlines()] == ["711", "555"], before.text
        SshHostAgent(connected, GUEST, fake_pyz)._placed()
        assert connected.run(look, timeout_s=20).stdout == before.stdout

    def test_never_runs_a_changed_file(self, agent: SshHostAgent, connected: SshSession, answers: Answers) -> None:
        """It should replace a file that somebody changed after the upload, and run only the right one."""
        answers({"facts": {"body": FACTS}})
        path = agent._placed().path
        connected.run(["sh", "-c", 'chmod u+w "$1"; echo "raise SystemExit(0)" >"$1"', "x", path], timeout_s=20)
        assert agent.facts().host == GUEST

    def test_puts_a_removed_file_back(self, agent: SshHostAgent, connected: SshSession, answers: Answers) -> None:
        """It should not fail when a cleaner of temporary files took the agent away."""
        answers({"facts": {"body": FACTS}})
        connected.run(["rm", "-f", agent._placed().path], timeout_s=20)
        assert agent.facts().host == GUEST

    @pytest.mark.parametrize("spoil", ["chmod 0777 ~/.unlatch", "mv ~/.unlatch ~/.u; ln -s .u ~/.unlatch"])
    def test_refuses_a_directory_that_others_may_write(self, spoil: str, connected: SshSession, fake_pyz: Path) -> None:
        """It should not put a program where another user could replace it."""
        connected.run(["sh", "-c", f"rm -rf ~/.unlatch ~/.u; mkdir ~/.unlatch; {spoil}"], timeout_s=20)
        try:
            with pytest.raises(ConfigError, match="not a directory that only the login user can write"):
                SshHostAgent(connected, GUEST, fake_pyz).facts()
        finally:
            connected.run(["sh", "-c", "rm -rf ~/.unlatch ~/.u"], timeout_s=20)

    def test_notices_a_directory_that_was_opened_to_others_later(
        self, agent: SshHostAgent, connected: SshSession
    ) -> None:
        """It should check the directory before each run, not only at the upload."""
        agent._placed()
        connected.run(["sh", "-c", "chmod 0777 ~/.unlatch"], timeout_s=20)
        try:
            with pytest.raises(ConfigError, match="only the login user can write"):
                agent.facts()
        finally:
            connected.run(["sh", "-c", "rm -rf ~/.unlatch"], timeout_s=20)

    def test_goes_elsewhere_when_the_home_is_closed(self, connected: SshSession, fake_pyz: Path) -> None:
        """It should use a directory of its own below /var/tmp when the instance's user cannot enter the home."""
        connected.run(["sh", "-c", "chmod 0700 ~"], timeout_s=20)
        try:
            placed = SshHostAgent(connected, GUEST, fake_pyz)._placed()
        finally:
            connected.run(["sh", "-c", "chmod 0755 ~"], timeout_s=20)
        assert placed.path.startswith("/var/tmp/unlatch-agent-")

    def test_no_agent_built(self, connected: SshSession, tmp_path: Path) -> None:
        """It should say how to build it."""
        with pytest.raises(ConfigError, match="cannot be read") as caught:
            SshHostAgent(connected, GUEST, tmp_path / "none.pyz").facts()
        assert "make agent" in caught.value.next_step

    def test_python_missing(self, open_directory: Path, fake_pyz: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """It should name the host and the package."""
        every = "/usr/bin/python3* /usr/local/bin/python3*"
        hide = f'for p in {every}; do [ -f "$p" ] && mount --bind /dev/null "$p"; done; true'
        server = PrivateSshd(open_directory / "bare", setup=(hide,)).start()
        try:
            monkeypatch.setenv(ENVIRONMENT, server.connection())
            with (
                SshSession.through_airflow(CONN_ID, host=GUEST) as session,
                pytest.raises(ConfigError, match=f"{GUEST} has no Python") as caught,
            ):
                SshHostAgent(session, GUEST, fake_pyz).facts()
            assert "python3" in caught.value.next_step
        finally:
            server.stop()
