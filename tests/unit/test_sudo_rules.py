"""Whether sudo would ask for a password, read from its own list."""

from __future__ import annotations

import pytest

from unlatch.transport.sudo_rules import asks_for_password, read

HEAD = """\
Matching Defaults entries for dbod on dbvrtg4037:
    env_reset, !lecture, secure_path=/usr/local/sbin\\:/usr/sbin

Runas and Command-specific defaults for dbod:
    Defaults!/usr/bin/env !authenticate

User dbod may run the following commands on dbvrtg4037:
"""
DATABASES = """
Sudoers entry:
    RunAsUsers: mysql, postgres
    Options: !authenticate
    Commands:
\tALL
"""
NAMED = """
Sudoers entry:
    RunAsUsers: root
    Options: noexec, !authenticate
    Commands:
\t/usr/local/sbin/unlatch-openers
\t/usr/local/sbin/dbservice start voms
\t/usr/bin/systemctl mask --runtime --now dbod-mysql@*
"""
ASKING = """
Sudoers entry: /etc/sudoers.d/humans
    RunAsUsers: root
    Commands:
\t/usr/bin/id
\t/usr/local/sbin/dbservice stop voms
\t/opt/tools/
\t/srv/*/clear
\t^/opt/[a-z]+/clear$
"""
EVERYTHING_WITH_A_PASSWORD = """
Sudoers entry:
    RunAsUsers: ALL
    RunAsGroups: ALL
    Commands:
\tALL
"""
MIXED = HEAD + DATABASES + NAMED + ASKING


def test_the_rules_are_read() -> None:
    """It should see as whom, with or without a password, and which commands."""
    databases, named, asking = read(MIXED)
    assert (databases.run_as, databases.asks, databases.commands) == (("mysql", "postgres"), False, ("ALL",))
    assert not named.asks
    assert named.commands[1] == "/usr/local/sbin/dbservice start voms"
    assert (asking.run_as, asking.asks, len(asking.commands)) == (("root",), True, 5)


@pytest.mark.parametrize(
    ("command", "run_as", "asks"),
    [
        ("/bin/mysql-tool", "mysql", False),
        ("/usr/local/sbin/dbservice stop voms", "root", True),
        ("/usr/bin/id", "root", True),
        ("/bin/anything at all", "mysql", False),
        ("/opt/tools/clear", "root", True),
        ("/srv/nas/clear all", "root", True),
        ("/opt/more/clear", "root", None),
    ],
)
def test_the_rule_that_allows_the_command_counts(command: str, run_as: str, asks: bool | None) -> None:
    """It should tell the commands that need a password from those that do not, and say when it cannot."""
    assert asks_for_password(MIXED, command.split(), run_as=run_as) is asks


@pytest.mark.parametrize(
    "command",
    [
        "/usr/local/sbin/dbservice start voms",
        "/usr/local/sbin/unlatch-openers --json /ORA/dbs03/voms",
        "/usr/bin/systemctl mask --runtime --now dbod-mysql@voms",
    ],
)
def test_a_rule_without_a_password_is_found_among_others(command: str) -> None:
    """It should find whole commands, programs with any arguments, and patterns."""
    plain = ASKING.replace("\t^/opt/[a-z]+/clear$\n", "")
    assert asks_for_password(HEAD + NAMED + plain, command.split()) is False


def test_the_last_rule_that_matches_wins() -> None:
    """It should decide as sudo does when two rules allow the same command."""
    words = ["/usr/local/sbin/dbservice", "start", "voms"]
    assert asks_for_password(HEAD + NAMED + EVERYTHING_WITH_A_PASSWORD, words) is True
    assert asks_for_password(HEAD + EVERYTHING_WITH_A_PASSWORD + NAMED, words) is False


def test_a_list_without_passwords_settles_it() -> None:
    """It should not need to find the rule when none of them asks."""
    assert asks_for_password(HEAD + DATABASES + NAMED, ["/opt/tools/clear"]) is False


def test_defaults_without_authentication() -> None:
    """It should know that no rule asks where the defaults do not, but not take one command's default for all."""
    open_to_all = HEAD.replace("env_reset,", "env_reset, !authenticate,")
    assert asks_for_password(open_to_all + ASKING, ["/usr/bin/id"]) is False
    assert asks_for_password(HEAD + ASKING, ["/usr/bin/id"]) is True


def test_no_list_tells_nothing() -> None:
    """It should not take an empty answer for a yes."""
    assert asks_for_password("", ["/usr/bin/id"]) is None
