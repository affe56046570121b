"""--engine-check: InnoDB's own checksums over the copies, when they are asked for."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.agent.agent_runner import Agent, permit
from tests.agent.test_commit import commit
from tests.agent.test_prepare import INCIDENT, names_and_inodes

PAGE = 16384


@pytest.fixture
def tables(volume: Path) -> Path:
    """A volume with a tablespace whose pages are sound (empty ones are)."""
    if shutil.which("innochecksum") is None:
        pytest.skip("innochecksum is not installed (mariadb-server-core)")
    (volume / "ibdata1").unlink()
    (volume / "t1.ibd").write_bytes(bytes(4 * PAGE))
    return volume


def test_sound_pages(few_agent: Agent, tables: Path) -> None:
    """It should say which tool looked at which copy, and that there is none for other files."""
    paths = (tables / "t1.ibd", tables / "aria_log_control")
    files = few_agent.run("prepare", *INCIDENT, "--engine-check", *paths).done().files
    assert [(entry["engine_check"]["tool"], entry["engine_check"]["ok"]) for entry in files] == [
        ("innochecksum", True),
        (None, None),
    ]
    commit(few_agent, permit({"files": files})).done()


def test_by_hand(few_agent: Agent, tables: Path) -> None:
    """It should check before it swaps, and tell of it in the answer of recreate."""
    answer = few_agent.run("recreate", *INCIDENT, "--confirm", "inc-1", "--engine-check", tables / "t1.ibd").done()
    (entry,) = answer.files
    assert (entry["state"], entry["engine_check"]["ok"]) == ("committed", True)


def test_a_wrong_page(few_agent: Agent, tables: Path) -> None:
    """It should touch no name when the engine finds a wrong page, keep the copy, and go on when not asked to look."""
    (tables / "t1.ibd").write_bytes(os.urandom(4 * PAGE))
    before = names_and_inodes(tables)
    recreate = ("recreate", *INCIDENT, "--confirm", "inc-1")
    answer = few_agent.run(*recreate, "--engine-check", tables / "t1.ibd").refused("engine_check", 4)
    assert answer.files[0]["engine_check"]["ok"] is False
    assert "backup" in answer.document["error"]["next"]
    assert names_and_inodes(tables) == before
    few_agent.run(*recreate, tables / "t1.ibd").done()


def test_without_the_tool(one_agent: Agent, tables: Path) -> None:
    """It should say which package has the tool, before anything is copied."""
    missing = {"set": ["enginecheck", "_PLACES", "/nonexistent"]}
    answer = one_agent.run("prepare", *INCIDENT, "--engine-check", tables / "t1.ibd", faults=missing)
    answer.refused("tool_missing", 5)
    assert "mariadb-server-core" in answer.document["error"]["next"]
    assert not list(tables.glob(".unlatch-*"))
