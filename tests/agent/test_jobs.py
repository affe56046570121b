"""prepare in the background, beside another agent, and ended by a signal."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from tests.agent.agent_runner import Agent
from tests.agent.test_prepare import INCIDENT, _reached, wait_until


def test_two_agents_at_once(few_agent: Agent, volume: Path, tmp_path: Path) -> None:
    """It should let one agent work on a directory at a time; looking is always possible."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    second = few_agent.another(tmp_path)
    few_agent.send("prepare", *INCIDENT, volume / "ibdata1", faults={"slow_copy": str(fifo)})
    wait_until(_reached(fifo))
    second.run("prepare", *INCIDENT, volume / "ibdata1").refused("busy", 6)
    second.run("purge", *INCIDENT, volume).refused("busy", 6)
    second.run("restore", *INCIDENT, volume).refused("busy", 6)
    status = second.run("status", *INCIDENT, volume).done().document
    assert status["repair"]["state"] == "preparing"
    assert status["repair"]["job"]["running"] is True
    fifo.write_text("go")
    few_agent.receive().done()
    status = second.run("status", *INCIDENT, volume).done().document["repair"]
    assert (status["state"], status["job"]["running"]) == ("prepared", False)
    second.stop()


def test_a_job(few_agent: Agent, volume: Path, tmp_path: Path) -> None:
    """It should detach, be visible to status, let a second call attach, and end with the copies."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    faults = {"slow_copy": str(fifo)}
    first = few_agent.run("prepare", *INCIDENT, "--job", volume / "ibdata1", faults=faults).done().document
    assert first["repair"]["job"]["running"] is True
    second = few_agent.run("prepare", *INCIDENT, "--job", volume / "ibdata1").done().document
    assert second["repair"]["job"]["pid"] == first["repair"]["job"]["pid"]
    wait_until(_reached(fifo))
    fifo.write_text("go")

    def status() -> dict[str, Any]:
        return few_agent.run("status", *INCIDENT, volume).done().document["repair"]

    wait_until(lambda: not status()["job"]["running"])
    assert status()["state"] == "prepared"
    assert status()["bytes_done"] == status()["bytes_total"] == 300_000
    assert status()["error"] is None


def test_a_job_that_fails(few_agent: Agent, volume: Path) -> None:
    """It should tell a job's error through status."""
    os.link(volume / "ibdata1", volume / "second-name")
    few_agent.run("prepare", *INCIDENT, "--job", volume / "ibdata1").done()
    ended: dict[str, Any] = {}

    def has_ended() -> bool:
        ended.update(few_agent.run("status", *INCIDENT, volume).done().document["repair"])
        return not ended["job"]["running"]

    wait_until(has_ended)
    assert ended["error"]["code"] == "hard_linked"
    few_agent.run("prepare", *INCIDENT, "--job", volume / "gone" / "x").refused("no_such_path", 5)


def test_ended_by_a_signal(few_agent: Agent, volume: Path, tmp_path: Path) -> None:
    """It should leave a state to go on from when a job gets SIGTERM."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    paths = (volume / "ibdata1", volume / "aria_log_control")
    faults = {"slow_copy": str(fifo)}
    repair = few_agent.run("prepare", *INCIDENT, "--job", *paths, faults=faults).done().document["repair"]
    wait_until(_reached(fifo))
    os.kill(repair["job"]["pid"], signal.SIGTERM)
    wait_until(lambda: not few_agent.run("status", *INCIDENT, volume).done().document["repair"]["job"]["running"])
    status = few_agent.run("status", *INCIDENT, volume).done().document
    assert status["repair"]["error"]["code"] == "interrupted"
    files = few_agent.run("prepare", *INCIDENT, *paths).done().files
    assert [Path(entry["temp"]).read_bytes() == Path(entry["path"]).read_bytes() for entry in files] == [True, True]
