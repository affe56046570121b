"""What the benchmark of detection does besides measuring: it counts, and refuses to time what is wrong."""

from __future__ import annotations

import asyncio
import io
import re
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench import first_task, killed_reader, log_speed
from unlatch import inventory
from unlatch.crash_logs import parse_log
from unlatch.discovery import crash_sources
from unlatch.models import Certainty, CrashEvent


def test_no_crash_is_lost_or_doubled_through_kills(tmp_path: Path) -> None:
    """It should keep every crash and every restart once, though the reader is killed and the logs are rotated."""
    told = killed_reader.run(tmp_path, 400, hypervisors=3, a_life=50)
    assert (told.lost, told.doubled, told.unended) == (0, 0, 0)
    assert told.kills > 3


def test_what_is_lost_or_doubled_is_counted(tmp_path: Path) -> None:
    """It should notice a crash that the reader never saw."""
    place = killed_reader.site(tmp_path, 1)
    log = tmp_path / "hv00.log"
    place.write(log, killed_reader.crash_of(0) + killed_reader.crash_of(1))
    place.read()
    told = killed_reader.counted(place, 4, 0, 0.0)
    assert (told.lost, told.doubled, told.unended) == (2, 0, 1)


def test_crashes_that_a_store_lacks_or_has_twice_are_counted() -> None:
    """It should count what is lost, what is there twice under other moments, and restarts that were missed."""

    def event(number: int, *, after_s: int = 0, restarted: bool = True) -> CrashEvent:
        at = killed_reader.BEGIN + timedelta(seconds=number + after_s)
        ended = at + timedelta(seconds=5) if restarted else None
        return CrashEvent(f"db{number:05d}", "hv01", at, "", (), Certainty.CERTAIN, restarted_at=ended)

    found = [event(0), event(1, restarted=False), event(2), event(2, after_s=9)]
    assert killed_reader.tally(found, 5) == (2, 1, 2)


def test_generated_log(tmp_path: Path) -> None:
    """It should be of its size, have the crashes that it names, and be searched by grep for the same words."""
    log = log_speed.write_log(tmp_path, 12_000_000)
    data = log.path.read_bytes()
    assert abs(len(data) - 12_000_000) < 300
    assert len(list(parse_log(io.BytesIO(data), "auto", "UTC", "hv01", crash_sources()))) == log.crashes > 0
    hints = {hint.encode() for source in crash_sources().values() for hint in source.hints}
    ours = sum(any(hint in line for hint in hints) for line in data.split(b"\n"))
    argv = ["grep", "-E", "-c", "-f", str(log.words), str(log.path)]
    assert int(subprocess.run(argv, check=True, capture_output=True, text=True).stdout) == ours


def test_a_wrong_answer_is_not_timed(tmp_path: Path) -> None:
    """It should refuse the time of a run that found another number of crashes."""
    log = log_speed.write_log(tmp_path, 100_000)
    with pytest.raises(RuntimeError, match=re.escape("0 events instead of 7")):
        log_speed.beside_grep(log._replace(crashes=7), 1)


def test_latencies() -> None:
    """It should get an event for each death that is written into the pipe."""
    assert len(log_speed.latencies_s(5)) == 5


def test_both_are_given_the_same(tmp_path: Path) -> None:
    """It should give Unlatch a correct inventory, and Event-Driven Ansible a rulebook whose source hears crashes."""
    (tmp_path / "inventory.yaml").write_text(first_task.INVENTORY.format(log=tmp_path / "xend.log"))
    known = inventory.load(tmp_path / "inventory.yaml")
    assert known.hypervisors["hv01"].logs[0].local
    (rules,) = yaml.safe_load(first_task.RULEBOOK.format(log="/x", playbook="/y"))
    (play,) = yaml.safe_load(first_task.PLAYBOOK.format(done="/z"))
    assert rules["sources"] == [{"crash_lines": {"path": "/x"}}]
    assert play["tasks"][0]["ansible.builtin.copy"]["dest"] == "/z"

    source: dict[str, Any] = {}
    exec(compile(first_task.SOURCE, "crash_lines", "exec"), source)
    log = tmp_path / "crashes.log"
    log.touch()

    async def heard() -> dict[str, str]:
        queue: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        listening = asyncio.create_task(source["main"](queue, {"path": str(log)}))
        await asyncio.sleep(0)
        assert log.with_suffix(".log.watched").exists()
        log.write_text(first_task.CRASH.format(at=killed_reader.BEGIN, name="db1"))
        try:
            return await asyncio.wait_for(queue.get(), 30)
        finally:
            listening.cancel()

    assert asyncio.run(heard()) == {"domain": "db1"}
