"""Processes as they go into tickets and the audit: recognisable, and without passwords."""

from __future__ import annotations

import pytest

from unlatch.transport.agent_answers import opener_scan


@pytest.mark.parametrize(
    ("cmdline", "shown"),
    [
        (["mariadbd", "--datadir=/ORA/dbs03/voms", "-p3306"], ["mariadbd", "--datadir=/ORA/dbs03/voms", "-p***"]),
        (["/usr/bin/mysqldump", "-uroot", "-phunter2", "-P3306"], ["/usr/bin/mysqldump", "-uroot", "-p***", "-P3306"]),
        (["backup", "--password=hunter2", "/ORA"], ["backup", "--password=***", "/ORA"]),
        (["backup", "--password", "hunter2", "/ORA"], ["backup", "--password", "***", "/ORA"]),
        (["postgres", "-D", "/ORA/lxr", "-p", "5432"], ["postgres", "-D", "/ORA/lxr", "-p", "5432"]),
        (["rsync", "-pt", "/a", "/b"], ["rsync", "-pt", "/a", "/b"]),
        ([], []),
    ],
)
def test_arguments_lose_their_passwords(cmdline: list[str], shown: list[str]) -> None:
    """It should hide what follows a word for a secret, and the short option of MySQL's programs."""
    opener = {"pid": 7, "why": ["descriptor"], "exe": "/x", "cmdline": cmdline, "fds": []}
    (found,) = opener_scan({"openers": [opener], "unchecked": []}).openers
    assert list(found.cmdline) == shown
