"""A site's own fence that really cuts somebody off: a process outside the guest that still writes to the volume."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from lab import Lab
from tests.integration.repair import Repair, configure, fingerprint
from unlatch import fencing, wiring
from unlatch.errors import CheckFailedError, RefusedError

pytest_plugins = ["tests.lab_fixtures"]

INSTANCE = "alvmysql"

SURVIVOR = """
import sys, time
with open(sys.argv[1], "ab", buffering=0) as file:
    print("writing", flush=True)
    while True:
        file.write(b".")
        time.sleep(0.05)
"""

FENCE = """
import os, pathlib, signal, sys
home, pid, verb = pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
with open(home / "calls", "a") as calls:
    print(verb, file=calls)

def lives():
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False

if verb == "off":
    if (home / "die").exists():
        (home / "die").unlink()
        os.kill(os.getppid(), signal.SIGKILL)  # the worker is gone before the old holder is
        os._exit(0)
    if lives() and not (home / "broken").exists():
        os.kill(pid, signal.SIGKILL)
    (home / "cut").touch()
elif verb == "status":
    sys.exit(lives())
elif verb == "on":
    (home / "cut").unlink()
"""


@dataclass
class Fenced:
    """An incident of which no log tells, on a volume that somebody else still writes to."""

    repair: Repair[Lab]
    home: Path
    survivor: subprocess.Popen[str]

    def open(self) -> None:
        """The first step, with the fence; a person says when the guest died."""
        crash = self.repair.lab.last_crash
        assert crash is not None
        self.repair.incident = "inc-20260101-000000-dbvrtg4037"
        self.repair.open(crashed_at=crash.crashed_at.isoformat(), incident=self.repair.incident, instances=[INSTANCE])

    def calls(self) -> list[str]:
        """What the site's command was asked for."""
        return (self.home / "calls").read_text().split()


@pytest.fixture
def fenced(crashed_lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fenced]:
    """A crashed lab whose hypervisor's log is silent, with a fence for its guest."""
    log = crashed_lab.xend_log.read_bytes()
    file = crashed_lab.volume / "still-written"
    survivor = subprocess.Popen([sys.executable, "-c", SURVIVOR, str(file)], stdout=subprocess.PIPE, text=True)
    try:
        assert survivor.stdout is not None
        assert survivor.stdout.readline() == "writing\n"
        crashed_lab.xend_log.write_bytes(b"")
        (tmp_path / "fence.py").write_text(textwrap.dedent(FENCE))
        configure(crashed_lab, tmp_path, monkeypatch)
        known = yaml.safe_load(crashed_lab.inventory_path.read_text())
        words = [sys.executable, str(tmp_path / "fence.py"), str(tmp_path), str(survivor.pid)]
        verbs = {"apply": "off", "verify": "status", "undo": "on"}
        fence = {"on": "worker", **{key: [*words, verb] for key, verb in verbs.items()}}
        known["guests"]["dbvrtg4037"]["fence"] = fence
        (tmp_path / "inventory.yaml").write_text(yaml.safe_dump(known))
        monkeypatch.setenv("UNLATCH_INVENTORY", str(tmp_path / "inventory.yaml"))
        yield Fenced(Repair(crashed_lab), tmp_path, survivor)
    finally:
        survivor.kill()
        survivor.wait()
        assert survivor.stdout is not None
        survivor.stdout.close()
        crashed_lab.xend_log.write_bytes(log + crashed_lab.xend_log.read_bytes())
        file.unlink(missing_ok=True)


def test_fence_lets_a_repair_go_on_that_no_log_allows(fenced: Fenced) -> None:
    """It should cut the old holder off, see that, repair without a person, and let it in again at the end."""
    fenced.open()
    assert fenced.survivor.wait(timeout=20) == -signal.SIGKILL
    assert (fenced.home / "cut").exists()
    fenced.repair.lane(INSTANCE)
    verdict = fenced.repair.results[INSTANCE, "verdict"]
    assert (verdict["verdict"]["kind"], verdict["plan"]["needs_person"]) == ("dead", None)
    assert verdict["verdict"]["reasons"] == ["fence: the old dbvrtg4037 was cut off, and that was verified"]
    assert len(fenced.repair.results[INSTANCE, "recreate_files"]["files"]) == 2
    wiring.update_ticket(fenced.repair.incident, actor="test")
    assert fenced.calls() == ["off", "status", "on"]
    assert not (fenced.home / "cut").exists()


def test_fence_that_does_not_hold_is_a_veto(fenced: Fenced, monkeypatch: pytest.MonkeyPatch) -> None:
    """It should touch nothing while the old holder writes on, whoever approves, and still let it in again."""
    monkeypatch.setattr(fencing, "VERIFY_LIMIT_S", 0.5)
    (fenced.home / "broken").touch()
    with pytest.raises(CheckFailedError, match="not seen to hold"):
        fenced.open()
    assert fenced.survivor.poll() is None
    fenced.repair.lane(INSTANCE, until="hold_service")
    before = fingerprint(fenced.repair.lab, INSTANCE)
    with pytest.raises(RefusedError, match="fence"):
        fenced.repair.step("verdict", INSTANCE)
    with pytest.raises(RefusedError):
        wiring.approve(fenced.repair.incident, INSTANCE, approved=True, by="eva", comment=None)
    for step in ("clear_locks", "recreate_files", "restart_database"):
        with pytest.raises(RefusedError):
            fenced.repair.step(step, INSTANCE)
    assert fingerprint(fenced.repair.lab, INSTANCE) == before
    with pytest.raises(CheckFailedError):
        wiring.update_ticket(fenced.repair.incident, actor="test")
    assert fenced.calls()[-1] == "on"


def test_worker_that_is_killed_inside_the_fence(fenced: Fenced) -> None:
    """It should take a fence that nobody saw to its end for a failed one, and apply it anew when it runs again."""
    (fenced.home / "die").touch()
    crash = fenced.repair.lab.last_crash
    assert crash is not None
    conf = {"guest": "dbvrtg4037", "crashed_at": crash.crashed_at.isoformat(), "instances": [INSTANCE],
            "incident": "inc-20260101-000000-dbvrtg4037"}  # fmt: skip
    script = f"from unlatch import wiring; wiring.detect_crash({conf!r}, run_id='manual', actor='test')"
    died = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert fenced.survivor.poll() is None
    assert fencing.in_force(wiring.store(), conf["incident"]) is False
    fenced.repair.incident = conf["incident"]
    fenced.repair.lane(INSTANCE, until="hold_service")
    with pytest.raises(RefusedError, match="fence"):
        fenced.repair.step("verdict", INSTANCE)
    fenced.open()
    assert fenced.survivor.wait(timeout=20) == -signal.SIGKILL
    fenced.repair.lane(INSTANCE, start="verdict", until="verdict")
    assert fenced.repair.results[INSTANCE, "verdict"]["verdict"]["kind"] == "dead"
