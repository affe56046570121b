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
# What the file's grammar takes for itself, and what the match of arguments would take for a pattern.
_SPECIAL = re.compile(r"([,:=#*?\[\]^])")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")
_WITH_VALUE = "CDghpRrtTUu"
_LONG_WITH_VALUE = frozenset(
    f"--{name}"
    for name in (
        "close-from", "chdir", "group", "host", "prompt", "chroot", "role", "type", "command-timeout", "other-user",
        "user",
    )
)  # fmt: skip


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
    words = " ".join(_typed(word) for word in argv)
    login = login_user.replace("\\", r"\\")
    return f"{login} ALL=({run_as}) NOPASSWD: {words}"


def _typed(word: str) -> str:
    """One word of a command as sudoers needs it; of backslashes the file takes half, and the match half of the rest."""
    return _SPECIAL.sub(r"\\\1", word.replace("\\", r"\\\\"))


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
        named, value = _option(option, words)
        if named in {"-u", "--user"}:
            user = value
    while words and _ASSIGNMENT.match(words[0]):
        del words[0]
    return user, words


def _option(option: str, words: list[str]) -> tuple[str, str]:
    """The last option of a word such as `-nu`, and its value, which may be the next word: then it is taken."""
    if option.startswith("--"):
        named, sign, value = option.partition("=")
        takes = not sign and named in _LONG_WITH_VALUE
    else:
        at = next((n for n, letter in enumerate(option) if n and letter in _WITH_VALUE), len(option) - 1)
        named, value = f"-{option[at]}", option[at + 1 :]
        takes = not value and option[at] in _WITH_VALUE
    return named, words.pop(0) if takes and words else value
