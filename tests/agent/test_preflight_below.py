"""preflight of a data directory with databases below it: a repair works there too, so that is where it has to look."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.agent.agent_runner import NOBODY, Agent


@pytest.fixture
def database(open_volume: Path) -> Path:
    """A directory of a database with one table, all the user nobody's."""
    directory = open_volume / "app"
    directory.mkdir()
    (directory / "t.ibd").write_bytes(b"table" * 100)
    for path in (directory, directory / "t.ibd"):
        os.chown(path, NOBODY, NOBODY)
    return directory


def row_of(agent: Agent, path: Path, privilege: str) -> dict[str, Any]:
    """The one row of that name."""
    rows = agent.run("preflight", path, uid=NOBODY).done().document["privileges"]
    (found,) = (row for row in rows if row["privilege"] == privilege)
    return dict(found)


def test_all_is_well_below(few_agent: Agent, database: Path) -> None:
    """It should say yes when the user may do it all in each directory."""
    for privilege in ("write in the directory", "space", "keep owner and mode", "probe locks"):
        assert row_of(few_agent, database.parent, privilege)["ok"] is True
    assert "3 files" in row_of(few_agent, database.parent, "probe locks")["why"]


def test_a_directory_below_that_may_not_be_written(one_agent: Agent, database: Path) -> None:
    """It should name the one directory in which no copy could be made, with the command that grants it."""
    os.chown(database, 0, 0)
    row = row_of(one_agent, database.parent, "write in the directory")
    assert (row["ok"], row["path"]) == (False, str(database.parent))
    assert f" {database}," in row["grant"]


def test_a_directory_below_that_may_not_be_listed(one_agent: Agent, database: Path) -> None:
    """It should say so, and say the rest all the same."""
    os.chown(database, 0, 0)
    database.chmod(0o700)
    row = row_of(one_agent, database.parent, "read the directory")
    assert row["ok"] is False
    assert str(database) in row["why"]
    assert row_of(one_agent, database.parent, "space")["ok"] is not None


def test_space_for_what_lies_below(one_agent: Agent, database: Path) -> None:
    """It should miss room for a table that is larger than what is free."""
    os.truncate(database / "t.ibd", 1 << 43)
    row = row_of(one_agent, database.parent, "space")
    assert row["ok"] is False
    assert str(1 << 43) in row["why"]


def test_owner_of_what_lies_below(one_agent: Agent, database: Path) -> None:
    """It should miss the right to keep the owner of somebody else's table."""
    os.chown(database / "t.ibd", 0, 0)
    row = row_of(one_agent, database.parent, "keep owner and mode")
    assert row["ok"] is False
    assert "t.ibd" in row["why"]


def test_a_table_that_cannot_be_read(one_agent: Agent, database: Path) -> None:
    """It should miss the look at a table's lock."""
    os.chown(database / "t.ibd", 0, 0)
    (database / "t.ibd").chmod(0o600)
    assert row_of(one_agent, database.parent, "probe locks")["ok"] is False


def test_a_directory_without_files(one_agent: Agent, database: Path) -> None:
    """It should not call proven what it has found no file to prove with: the volume may not be mounted."""
    for name in ("ibdata1", "aria_log_control", "app/t.ibd"):
        (database.parent / name).unlink()
    for privilege in ("probe locks", "keep owner and mode", "space", "time to recover"):
        assert row_of(one_agent, database.parent, privilege)["ok"] is None, privilege


def test_state_directory(one_agent: Agent, open_volume: Path) -> None:
    """It should prove, without making it, the directory in which a repair keeps its lock and its progress."""
    one_agent.scratch = open_volume.parent / "scratch"
    one_agent.scratch.mkdir()
    one_agent.scratch.chmod(0o1777)
    row = row_of(one_agent, open_volume, "state directory")
    assert (row["ok"], row["path"]) == (True, str(one_agent.state))
    assert not one_agent.state.exists()
    one_agent.state.mkdir(mode=0o700)
    row = row_of(one_agent, open_volume, "state directory")
    assert (row["ok"], row["grant"]) == (False, f"rm -r {one_agent.state}"), "it is another user's"
    os.chown(one_agent.state, NOBODY, NOBODY)
    assert row_of(one_agent, open_volume, "state directory")["ok"] is True
    one_agent.state.rmdir()
    one_agent.scratch.chmod(0o755)
    assert row_of(one_agent, open_volume, "state directory")["ok"] is False
