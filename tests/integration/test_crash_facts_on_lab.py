"""What is kept of a real crash of the lab's guest: real lines of its hypervisor's log, and what the guest can tell."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab import Lab
from tests.integration.repair import ACTOR, Repair, configure
from unlatch import wiring

pytest_plugins = ["tests.lab_fixtures"]


def test_the_crash_of_the_lab(crashed_lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It should keep the log's lines around the death as they are there, without passwords, and say what is missing."""
    configure(crashed_lab, tmp_path, monkeypatch)
    crash = crashed_lab.last_crash
    assert crash is not None
    crashed_lab.log("DEBUG (XendDomainInfo:92) {'vnc': 1, 'vncpasswd': 'hunter2'}", at=crash.crashed_at)
    repair = Repair(crashed_lab)
    repair.open()
    told = wiring.keep_crash_facts(repair.incident, actor=ACTOR)
    assert [sorted(fact) for fact in told] == [["host", "what", "words"]] * 6

    row = repair.store.step(repair.incident, "", "keep_crash_facts")
    assert row is not None
    facts = {(fact["host"], fact["what"]): fact for fact in row.result["facts"]}
    log = facts["hv01", "log, 60 s before and after the death"]
    assert log["found"] is True
    for words in ("died due to signal 11", "Domain has crashed: name=2130_dbvrtg4037", "create_from_dict"):
        assert words in log["text"]
    assert "'vncpasswd': ***" in log["text"]
    written = crashed_lab.xend_log.read_text().splitlines()
    assert {line for line in log["text"].splitlines() if "***" not in line} <= set(written)

    guest = {what: fact for (host, what), fact in facts.items() if host == "dbvrtg4037"}
    assert set(guest) == {
        "kernel log of the previous boot",
        "kernel log of the present boot",
        "core and crash dumps",
        "crash kernel (kdump)",
    }
    assert all(fact["words"] for fact in facts.values())
    for dumps in (guest["core and crash dumps"], facts["hv01", "core and crash dumps"]):
        assert dumps["words"].startswith("none since shortly before the death in /"), dumps
        assert "core_pattern there is" in dumps["words"], dumps
    assert "What is known of the crash" in repair.ticket
    assert "hunter2" not in repair.ticket
    assert "hunter2" not in "".join(repair.store.export())
    assert repair.store.verify_audit().verified
