"""The sudoers lines that are printed for pasting: a real sudo must take them for exactly the command, and no other."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from unlatch.transport import sudo, sudo_rules

PROGRAM = "/bin/echo"

needs_sudo = pytest.mark.skipif(
    os.geteuid() != 0 or not all(map(shutil.which, ("sudo", "unshare"))),
    reason="gives sudo rules of its own: needs root, sudo, unshare",
)


def with_rules(line: str, tmp_path: Path, *asked: str) -> subprocess.CompletedProcess[str]:
    """Ask sudo under these rules alone, which only this one process sees."""
    rules = tmp_path / "sudoers"
    rules.write_text(line + "\n")
    rules.chmod(0o440)
    script = 'mount --bind "$1" /etc/sudoers && visudo -cq && shift && exec env LC_ALL=C sudo -n "$@"'
    argv = ["unshare", "-m", "sh", "-c", script, "sh", str(rules), *asked]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


@needs_sudo
@pytest.mark.parametrize(
    ("words", "others"),
    [
        (["start", "voms"], [["stop", "voms"]]),
        (["restart", r"mariadb@my\x2ddb.service"], [["restart", "mariadb@myx2ddb.service"]]),
        (["#1", "power", "off"], [["anything"], []]),
        (["a#b"], [["a"]]),
        (["*"], [["x"], ["x", "y"]]),
        (["vm?"], [["vm1"]]),
        (["[q]emu"], [["qemu"]]),
        (["^a.*$"], [["ab"]]),
        (["-o", "a=b,c:d"], [["-o", "a"]]),
    ],
)
def test_a_line_grants_the_command_and_no_other(words: list[str], others: list[list[str]], tmp_path: Path) -> None:
    """It should be taken by visudo as typed, let exactly the command pass, and ask for no password."""
    line = sudo.grant("nobody", [PROGRAM, *words])

    def passes(asked: Sequence[str]) -> bool:
        return with_rules(line, tmp_path, "-l", "-U", "nobody", "--", PROGRAM, *asked).returncode == 0

    assert passes(words), line
    assert [other for other in others if passes(other)] == []
    listing = with_rules(line, tmp_path, "-ll", "-U", "nobody").stdout
    assert sudo_rules.asks_for_password(listing, [PROGRAM, *words]) is False


def test_a_login_of_a_directory_service() -> None:
    """It should write the login user's name so that sudo reads it as one."""
    assert sudo.grant(r"CORP\dbod", [PROGRAM]) == rf"CORP\\dbod ALL=(root) NOPASSWD: {PROGRAM}"


@pytest.mark.parametrize(
    ("options", "user"),
    [
        ("-n", "root"),
        ("-n -u mysql --", "mysql"),
        ("-nu mysql", "mysql"),
        ("-numysql", "mysql"),
        ("-n --user=mysql", "mysql"),
        ("--non-interactive --user mysql", "mysql"),
        ("-n -g dba", "root"),
        ("-n -H -D / -u mysql", "mysql"),
        ("-n LANG=C", "root"),
    ],
)
def test_a_command_behind_sudos_options(options: str, user: str) -> None:
    """It should find user and command behind whatever options sudo was given."""
    assert sudo.unwrapped(["/usr/bin/sudo", *options.split(), PROGRAM, "-u", "x=1"]) == (user, [PROGRAM, "-u", "x=1"])
