"""Reads sudo's refusals and writes the sudoers line that would have let a command pass."""

from __future__ import annotations

import re
from collections.abc import Sequence

_NOT_ALLOWED = re.compile(
    r"^sudo: (?:a password is required|a terminal is required|sorry, you must have a tty|no tty present)"
    r"|^Sorry, user |is not in the sudoers file|may not run sudo on|is not allowed to (?:run sudo|execute)",
    re.MULTILINE,
)
_NO_SUCH_USER = re.compile(r"^sudo: unknown (?:user|uid):? ", re.MULTILINE)
_NO_SUCH_COMMAND = re.compile(r"^sudo: .*command not found|sudo: (?:command )?not found", re.MULTILINE)
_SPECIAL = re.compile(r"([\\,:=])")


def refusal(stderr: bytes) -> str | None:
    """What sudo says against a command, in its own words; None when it says nothing."""
    text = stderr.decode("utf-8", "replace")
    for pattern in (_NOT_ALLOWED, _NO_SUCH_USER, _NO_SUCH_COMMAND):
        found = pattern.search(text)
        if found:
            start = text.rfind("\n", 0, found.start()) + 1
            return text[start:].split("\n", 1)[0].strip()
    return None


def grant(login_user: str, argv: Sequence[str], *, run_as: str = "root") -> str:
    """The sudoers line that lets `login_user` run exactly `argv` (without sudo and its options)."""
    words = " ".join(_SPECIAL.sub(r"\\\1", word) for word in argv)
    return f"{login_user} ALL=({run_as}) NOPASSWD: {words}"


def unwrapped(argv: Sequence[str]) -> tuple[str, list[str]]:
    """User and command of an argument vector that may begin with sudo; the user is "" when it does not."""
    words = list(argv)
    if not words or words[0].rsplit("/", 1)[-1] != "sudo":
        return "", words
    user = "root"
    del words[0]
    while words and words[0].startswith("-"):
        option = words.pop(0)
        if option == "--":
            break
        if option in {"-u", "--user"} and words:
            user = words.pop(0)
    return user, words
