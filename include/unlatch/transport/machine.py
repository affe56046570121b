"""One machine over SSH: plain commands there, and what sudo would allow, asked without running it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from unlatch.ports import CommandAnswer, Leave
from unlatch.transport import allowed, sudo, sudo_rules
from unlatch.transport.host_agent import SshHostAgent
from unlatch.transport.ssh import RemoteAnswer, SshSession

_COMMAND_S = 120.0


class SshMachine:
    """A machine, its login user, and the agent there."""

    def __init__(self, session: SshSession, name: str, agent_pyz: Path) -> None:
        """Take an SSH session to the machine, its name in the inventory, and the built agent."""
        self._session = session
        self._name = name
        self._login_user: str | None = None
        self._listing: str | None = None
        self.agent = SshHostAgent(session, name, agent_pyz)

    def login_user(self) -> str:
        """Who we are there.

        Raises:
            TransientError: out of reach.
            ConfigError: the connection is wrong, or the host key is not the pinned one.
        """
        if self._login_user is None:
            self._login_user = allowed.login_user(self._session, self._name)
        return self._login_user

    def run(self, argv: Sequence[str]) -> CommandAnswer:
        """Run a command, as the login user or as its sudo says.

        Raises:
            ConfigError: sudo does not allow it, with the line that would.
            TransientError: out of reach, or not done in time.
        """
        answer = self._run(argv, limit_s=_COMMAND_S)
        allowed.insist(self._session, argv, answer, host=self._name, login=self._login_user)
        return CommandAnswer(answer.code, answer.text if answer.code else answer.stdout.decode("utf-8", "replace"))

    def may_run(self, argv: Sequence[str], granted: Sequence[str] | None = None) -> Leave:
        """Ask whether a command may be run; it is not run.

        Args:
            argv: The command; one that begins with sudo is asked of sudo, any other is only looked for.
            granted: What the sudoers line should name, when that is less than the whole command.
        """
        user, inner = sudo.unwrapped(argv)
        if not user:
            return self._finds(inner[0])
        as_user = [] if user == "root" else ["-u", user]
        answer = self._run(["sudo", "-n", "-l", *as_user, "--", *inner])
        line = sudo.grant(self.login_user(), allowed.with_path(self._session, granted or inner), run_as=user)
        if answer.code != 0:
            return self._refused(answer, inner[0], line)
        resolved = answer.stdout.decode("utf-8", "replace").split(" ")[0].strip() or inner[0]
        asks = sudo_rules.asks_for_password(self._rules(), [resolved, *inner[1:]], run_as=user)
        if asks:
            return Leave(False, "sudo allows it only with a password, which nobody can give in a repair", line)
        if asks is None:
            return Leave(None, "sudo allows it; whether it asks for a password cannot be told from its rules", line)
        return Leave(True, f"sudo lets {self.login_user()} run it as {user}")

    def _refused(self, answer: RemoteAnswer, program: str, line: str) -> Leave:
        said = sudo.refusal(answer.stderr) or answer.text.strip()[:200]
        if answer.code in (126, 127):
            return Leave(False, f"there is no sudo: {said}", f"install the package sudo, then add: {line}", there=False)
        if "command not found" in said:
            return Leave(False, f"there is no {program}", line, there=False)
        said = said or f"sudo does not allow it to {self.login_user()}"
        # Whoever has no rule at all is not told what is not there; both are to be known at once.
        seen = self._run(["sh", "-c", 'test -e "$1" || ! test -x "${1%/*}"', "sh", program])
        if program.startswith("/") and seen.code == 1:
            return Leave(False, f"there is no {program}, and sudo would not allow it: {said}", line, there=False)
        return Leave(False, said, line)

    def _finds(self, program: str) -> Leave:
        answer = self._run(["sh", "-c", 'command -v -- "$1"', "sh", program])
        if answer.code == 0 and self.login_user() != "root":
            why = f"it is there; whether {self.login_user()} may do without sudo what it does, only its run would tell"
            return Leave(None, why)
        if answer.code == 0:
            return Leave(True, "it is there, and root runs it")
        return Leave(
            False, f"there is no {program} that {self.login_user()} may run", f"install {program}", there=False
        )

    def _rules(self) -> str:
        if self._listing is None:
            self._listing = self._run(["sudo", "-n", "-ll"]).stdout.decode("utf-8", "replace")
        return self._listing

    def _run(self, argv: Sequence[str], *, limit_s: float = allowed.QUESTION_S) -> RemoteAnswer:
        return self._session.run(["env", "LC_ALL=C", *argv], timeout_s=limit_s)
