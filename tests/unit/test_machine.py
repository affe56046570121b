"""What sudo's words mean: asked without running anything."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from unlatch.errors import ConfigError
from unlatch.transport.machine import SshMachine
from unlatch.transport.ssh import RemoteAnswer

START = ("sudo", "-n", "/usr/local/sbin/dbservice", "start", "voms")
LINE = "dbod ALL=(root) NOPASSWD: /usr/local/sbin/dbservice start voms"
LISTING = b"""
Sudoers entry:
    RunAsUsers: root
    Options: !authenticate
    Commands:
\t/usr/local/sbin/dbservice start voms
"""


class Session:
    """Answers by the first words of a command; what it does not know fails."""

    def __init__(self, **answers: RemoteAnswer) -> None:
        self.answers = {"id -un": RemoteAnswer(0, b"dbod\n", b""), "sudo -n -ll": RemoteAnswer(0, LISTING, b"")}
        self.answers |= {words.replace("_", " "): answer for words, answer in answers.items()}
        self.ran: list[str] = []

    def run(self, argv: Sequence[str], **_: object) -> RemoteAnswer:
        words = " ".join(argv).removeprefix("env LC_ALL=C ")
        self.ran.append(words)
        known = [answer for start, answer in self.answers.items() if words.startswith(start)]
        return known[-1] if known else RemoteAnswer(0, b"/usr/local/sbin/dbservice start voms\n", b"")


def machine(session: Session) -> SshMachine:
    return SshMachine(session, "db", Path("none.pyz"))  # type: ignore[arg-type]  # only `run` is used


def test_allowed_is_asked_and_not_run() -> None:
    """It should ask sudo about exactly the command."""
    session = Session()
    leave = machine(session).may_run(START)
    assert (leave.ok, leave.grant) == (True, None)
    assert "sudo -n -l -- /usr/local/sbin/dbservice start voms" in session.ran
    assert not any(words.startswith("sudo -n /") for words in session.ran)


@pytest.mark.parametrize(
    ("code", "stderr", "there", "words"),
    [
        (1, b"", True, "does not allow it to dbod"),
        (1, b"sudo: a password is required\n", True, "a password is required"),
        (1, b"sudo: /usr/local/sbin/dbservice: command not found\n", False, "there is no /usr/local/sbin/dbservice"),
        (127, b"env: 'sudo': No such file or directory\n", False, "there is no sudo"),
    ],
)
def test_refusals(code: int, stderr: bytes, there: bool, words: str) -> None:
    """It should tell what is not there from what is not allowed, and give the line for each."""
    leave = machine(Session(**{"sudo_-n_-l_--": RemoteAnswer(code, b"", stderr)})).may_run(START)
    assert (leave.ok, leave.there) == (False, there)
    assert words in leave.why
    assert LINE in (leave.grant or "")


@pytest.mark.parametrize(("code", "there"), [(0, True), (1, False)])
def test_a_refusal_hides_whether_the_program_is_there(code: int, there: bool) -> None:
    """It should find out by itself: sudo tells a user without any rule only that a password is required."""
    refused = RemoteAnswer(1, b"", b"sudo: a password is required\n")
    session = Session(**{"sudo_-n_-l_--": refused, "sh_-c_test": RemoteAnswer(code, b"", b"")})
    leave = machine(session).may_run(START)
    assert (leave.ok, leave.there, leave.grant) == (False, there, LINE)
    assert ("there is no /usr/local/sbin/dbservice" in leave.why) is not there


def test_grant_may_name_less_than_the_command() -> None:
    """It should give the line for the program alone, where its arguments do not matter."""
    session = Session(**{"sudo_-n_-l_--": RemoteAnswer(1, b"", b"")})
    leave = machine(session).may_run(START, granted=("/usr/local/sbin/dbservice",))
    assert leave.grant == "dbod ALL=(root) NOPASSWD: /usr/local/sbin/dbservice"


def test_rules_that_cannot_be_read() -> None:
    """It should not know whether a password is asked for when sudo lists no rules."""
    leave = machine(Session(**{"sudo_-n_-ll": RemoteAnswer(0, b"no such option", b"")})).may_run(START)
    assert leave.ok is None


def test_other_user() -> None:
    """It should ask and grant for the user that the command names."""
    session = Session(**{"sudo_-n_-l_-u": RemoteAnswer(1, b"", b"")})
    leave = machine(session).may_run(("sudo", "-n", "-u", "mysql", "--", "/bin/true"))
    assert leave.grant == "dbod ALL=(mysql) NOPASSWD: /bin/true"


@pytest.mark.parametrize(("code", "user", "ok"), [(0, b"dbod", None), (0, b"root", True), (127, b"dbod", False)])
def test_command_without_sudo(code: int, user: bytes, ok: bool | None) -> None:
    """It should look for a program that is run without sudo, and not take its being there for the right it needs."""
    session = Session(sh=RemoteAnswer(code, b"", b""), id=RemoteAnswer(0, user, b""))
    assert machine(session).may_run(("/opt/site/dbctl", "start")).ok is ok
    assert not any(words.startswith("/opt/site") for words in session.ran)


def test_run_that_sudo_refuses() -> None:
    """It should raise with the line, its program's whole path in it, and with the login for others' advice."""
    session = Session(**{"sudo_-n_xl": RemoteAnswer(1, b"", b"sudo: a password is required\n")})
    session.answers["sh -c PATH"] = RemoteAnswer(0, b"/usr/sbin/xl\n", b"")
    with pytest.raises(ConfigError) as caught:
        machine(session).run(["sudo", "-n", "xl", "list"])
    assert caught.value.next_step.endswith("dbod ALL=(root) NOPASSWD: /usr/sbin/xl list")
    assert caught.value.detail == {"login": "dbod"}


def test_account_that_runs_no_commands() -> None:
    """It should say what is wrong with a login that has a forced command or talks before it answers."""
    with pytest.raises(ConfigError, match="does not run commands"):
        machine(Session(id=RemoteAnswer(0, b"Welcome to db, dear user\n", b""))).login_user()
