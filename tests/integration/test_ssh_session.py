"""Commands over one SSH connection, and what is said when there is none."""

from __future__ import annotations

import hashlib
import socket
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lab.private_sshd import LOGIN_USER, PrivateSshd, free_port, make_key, missing
from tests.integration.ssh_guest import CONN_ID, GUEST
from unlatch.errors import CheckFailedError, ConfigError, TransientError
from unlatch.in_parallel import in_parallel
from unlatch.transport.ssh import SshSession

pytest_plugins = ["tests.integration.ssh_fixtures"]
pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))


class TestSession:
    """Commands over one connection."""

    def test_quotes_every_argument(self, connected: SshSession) -> None:
        """It should pass arguments on as they are, whatever a shell would make of them."""
        nasty = ["a b", "$(id)", "'", '"', "*", "\\", "-n", "", "é", "a\nb", ";true", "#"]
        answer = connected.run(["printf", "%s|", *nasty], timeout_s=20)
        assert answer.stdout.decode() == "|".join(nasty) + "|"
        assert answer.code == 0

    def test_keeps_one_connection(self, connected: SshSession) -> None:
        """It should run all commands of a session through one TCP connection."""
        first, second = (connected.run(["sh", "-c", "echo $SSH_CONNECTION"], timeout_s=20).stdout for _ in range(2))
        assert first == second != b""

    def test_gives_both_outputs_and_the_exit_code(self, connected: SshSession) -> None:
        """It should keep standard output and standard error apart, of any size."""
        script = "head -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2; exit 7"
        answer = connected.run(["sh", "-c", script], timeout_s=60)
        assert (answer.code, len(answer.stdout), len(answer.stderr)) == (7, 3_000_000, 3_000_000)

    def test_feeds_input(self, connected: SshSession) -> None:
        """It should send bytes unchanged and then the end of file."""
        data = bytes(range(256)) * 4096
        assert connected.run(["cat"], stdin=data, timeout_s=60).stdout == data

    def test_survives_a_program_that_does_not_read_its_input(self, connected: SshSession) -> None:
        """It should give the answer of a program that ends without reading."""
        assert connected.run(["sh", "-c", "exit 3"], stdin=b"x" * 5_000_000, timeout_s=60).code == 3

    def test_streams_lines_of_standard_error(self, connected: SshSession) -> None:
        """It should hand over each line while the program still runs: this one ends only after the line was seen."""
        seen = threading.Event()
        connected.run(["rm", "-f", "/var/tmp/go"], timeout_s=20)
        lines: list[str] = []

        def on_line(line: str) -> None:
            lines.append(line)
            if line == "first":
                seen.set()

        def release() -> None:
            assert seen.wait(30)
            with SshSession.through_airflow(CONN_ID, host=GUEST) as other:
                other.run(["touch", "/var/tmp/go"], timeout_s=20)

        helper = threading.Thread(target=release)
        helper.start()
        script = "echo first >&2; while [ ! -e /var/tmp/go ]; do sleep 0.05; done; printf last >&2"
        connected.run(["sh", "-c", script], timeout_s=40, on_stderr_line=on_line)
        helper.join()
        assert lines == ["first", "last"]

    def test_gives_up_at_the_time_limit(self, connected: SshSession) -> None:
        """It should say that the program may still run, and be usable afterwards."""
        with pytest.raises(TransientError, match="did not finish sleep 60 within"):
            connected.run(["sleep", "60"], timeout_s=0.5)
        assert connected.run(["true"], timeout_s=20).code == 0

    def test_does_not_wait_for_a_daemon_that_keeps_the_output_open(self, connected: SshSession) -> None:
        """It should end with the command, not with the server process that the command left behind."""
        answer = connected.run(["sh", "-c", "sleep 40 & echo started"], timeout_s=30)
        assert answer.stdout == b"started\n"

    def test_says_that_a_killed_program_is_worth_another_try(self, connected: SshSession) -> None:
        """It should not take a program that a signal ended for one that has answered."""
        with pytest.raises(TransientError, match="without an exit code"):
            connected.run(["sh", "-c", "kill -9 $$"], timeout_s=20)

    def test_connects_again_after_the_connection_was_lost(self, connected: SshSession) -> None:
        """It should be a TransientError once, then work: the guest may have rebooted."""
        with pytest.raises(TransientError):
            connected.run(["sh", "-c", "kill -9 $PPID"], timeout_s=20)
        assert connected.run(["true"], timeout_s=20).code == 0

    def test_upload_writes_whole_files_with_a_mode(self, connected: SshSession) -> None:
        """It should leave exactly these bytes under the name, and no other file."""
        data = b"\0\xff" * 500_000
        connected.run(["mkdir", "-p", "/var/tmp/up load"], timeout_s=20)
        connected.upload(data, "/var/tmp/up load/it's", mode=0o640)
        told = connected.run(
            ["sh", "-c", "cd '/var/tmp/up load'; ls -A; stat -c %a *; cat it* | sha256sum"], timeout_s=20
        )
        assert told.stdout.decode().split("\n")[:2] == ["it's", "640"]
        assert hashlib.sha256(data).hexdigest() in told.stdout.decode()

    def test_upload_to_nowhere_says_so(self, connected: SshSession) -> None:
        """It should name the path."""
        with pytest.raises(CheckFailedError, match="/nowhere/file could not be written"):
            connected.upload(b"x", "/nowhere/file", mode=0o600)

    def test_several_threads_share_a_connection(self, connected: SshSession) -> None:
        """It should run one command at a time, and give each thread the answer to its own question."""
        found = in_parallel({n: partial(connected.run, ["echo", str(n)], timeout_s=20) for n in range(12)}, at_once=6)
        assert [answer.stdout for answer in found.values()] == [f"{n}\n".encode() for n in range(12)]


class TestConnecting:
    """What can be wrong with a connection, and what is worth another try."""

    def test_changed_host_key(self, sshd: PrivateSshd, through: Any, tmp_path: Path) -> None:
        """It should refuse a machine whose key is not the pinned one, for good, and say what to check."""
        other = make_key(tmp_path / "other")
        with pytest.raises(ConfigError, match=f"host key of {GUEST} is not the pinned one. Nothing was done") as caught:
            through(sshd.connection(extra={"host_key": other})).run(["true"], timeout_s=20)
        assert CONN_ID in caught.value.next_step

    def test_pinned_key_goes_before_known_hosts(
        self, sshd: PrivateSshd, through: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It should refuse a machine that only the worker's known_hosts knows while another key is pinned."""
        (tmp_path / ".ssh").mkdir()
        (tmp_path / ".ssh" / "known_hosts").write_text(f"[127.0.0.1]:{sshd.port} {sshd.host_key}\n")
        monkeypatch.setenv("HOME", str(tmp_path))
        with pytest.raises(ConfigError, match="not the pinned one"):
            through(sshd.connection(extra={"host_key": make_key(tmp_path / "other")})).run(["true"], timeout_s=20)

    def test_unknown_host_key(self, sshd: PrivateSshd, through: Any) -> None:
        """It should refuse a machine whose key nobody has pinned, also when the connection says not to check."""
        for extra in ({}, {"no_host_key_check": "true"}):
            with pytest.raises(ConfigError, match=f"host key of {GUEST} is unknown"):
                through(sshd.connection(extra={"host_key": None, **extra})).run(["true"], timeout_s=20)

    def test_connection_that_allows_changed_keys(self, sshd: PrivateSshd, through: Any) -> None:
        """It should refuse such a connection as a whole."""
        with pytest.raises(ConfigError, match="allows changed host keys"):
            through(sshd.connection(extra={"allow_host_key_change": "true"})).run(["true"], timeout_s=20)

    def test_refused(self, sshd: PrivateSshd, through: Any) -> None:
        """It should be worth another try: the guest may be booting."""
        with pytest.raises(TransientError, match=f"{GUEST} refuses SSH connections"):
            through(sshd.connection(port=free_port())).run(["true"], timeout_s=20)

    def test_login_refused(self, sshd: PrivateSshd, through: Any, tmp_path: Path) -> None:
        """It should name connection and user, and nothing secret."""
        make_key(tmp_path / "stranger")
        with pytest.raises(ConfigError, match=f"{GUEST} refused the login of {LOGIN_USER}") as caught:
            through(sshd.connection(password="hunter2hunter2", extra={"key_file": str(tmp_path / "stranger")})).run(
                ["true"], timeout_s=20
            )
        assert CONN_ID in str(caught.value)
        assert "hunter2" not in str(caught.value)

    def test_missing_key_file(self, sshd: PrivateSshd, through: Any) -> None:
        """It should name the file."""
        with pytest.raises(ConfigError, match="/nowhere/key"):
            through(sshd.connection(extra={"key_file": "/nowhere/key"})).run(["true"], timeout_s=20)

    def test_unknown_name(self, sshd: PrivateSshd, through: Any) -> None:
        """It should be worth another try: a name service can be down."""
        with pytest.raises(TransientError, match=r"guest\.invalid"):
            through(sshd.connection(host="guest.invalid")).run(["true"], timeout_s=20)

    def test_not_an_ssh_server(self, sshd: PrivateSshd, through: Any) -> None:
        """It should not hang on a port that accepts and says nothing that SSH would say."""
        with socket.create_server(("127.0.0.1", 0)) as listener:

            def hang_up() -> None:
                listener.accept()[0].close()

            closer = threading.Thread(target=hang_up)
            closer.start()
            with pytest.raises(TransientError, match="No SSH connection"):
                through(sshd.connection(port=listener.getsockname()[1])).run(["true"], timeout_s=20)
            closer.join()

    def test_no_such_connection(self) -> None:
        """It should name the connection and how to add it."""
        with pytest.raises(ConfigError, match="unlatch_guest_nobody"):
            SshSession.through_airflow("unlatch_guest_nobody", host=GUEST).run(["true"], timeout_s=20)
