"""Who we are on a machine, what sudo there has refused, and the sudoers line that would have let it pass."""

from __future__ import annotations

from collections.abc import Sequence

from unlatch.errors import ConfigError
from unlatch.transport import sudo
from unlatch.transport.shell import FinishedCommand, Shell

QUESTION_S = 30.0
_POSIX = ("env", "LC_ALL=C")


def ask(shell: Shell, argv: Sequence[str], *, limit_s: float = QUESTION_S) -> FinishedCommand:
    """Run a command whose words will be read: in the C locale."""
    return shell.run([*_POSIX, *argv], timeout_s=limit_s)


def login_user(shell: Shell, host: str) -> str:
    """Who we are there.

    Raises:
        TransientError: out of reach.
        ConfigError: the connection is wrong, the host key is not the pinned one, or the login runs no commands.
    """
    answer = ask(shell, ["id", "-un"])
    said = answer.stdout.decode("utf-8", "replace").split()
    if answer.code != 0 or len(said) != 1:
        words = (answer.stdout + answer.stderr).decode("utf-8", "replace").strip()[:200]
        raise ConfigError(
            f"{host} does not run commands for us: {words or 'it answers nothing'}",
            next_step="the login user needs a POSIX shell, no forced command, and rc files that print nothing.",
        )
    return said[0]


def with_path(shell: Shell, argv: Sequence[str]) -> list[str]:
    """The command with its program's whole path, without which sudoers would be wrong as a whole."""
    if argv[0].startswith("/"):
        return list(argv)
    script = 'PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin; command -v -- "$1"'
    found = ask(shell, ["sh", "-c", script, "sh", argv[0]]).stdout.decode("utf-8", "replace").strip()
    return [found if found.startswith("/") else argv[0], *argv[1:]]


def insist(shell: Shell, argv: Sequence[str], answer: FinishedCommand, *, host: str, login: str | None = None) -> None:
    """Go on unless sudo has refused a command.

    Args:
        shell: The machine, which is asked more only after a refusal.
        argv: The command.
        answer: What came of it.
        host: The machine's name, for messages.
        login: Who we are there, where that is known.

    Raises:
        ConfigError: sudo has refused it, with the line that would let it pass; `detail` has the `login`.
    """
    user, inner = sudo.unwrapped(argv)
    refused = sudo.refusal(answer.stderr) if user and answer.code != 0 else None
    if refused is None:
        return
    login = login or login_user(shell, host)
    line = sudo.grant(login, with_path(shell, inner), run_as=user)
    raise ConfigError(
        f"sudo on {host} does not let {login} run {' '.join(inner)} as {user}: {refused}",
        next_step=f"grant with visudo on {host}: {line}",
        detail={"login": login},
    )
