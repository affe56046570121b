"""The drill on the embedded lab: real sshd, sudo and databases. It finds what is missing, and it changes nothing."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab import Lab
from unlatch import wiring_drill
from unlatch.cli import drill as cli_drill
from unlatch.cli import main
from unlatch.models import Drill, DrillCheck

pytest_plugins = ["tests.lab_fixtures"]

GUEST = "dbvrtg4037"
AGENT = Path(__file__).resolve().parents[2] / "dist" / "unlatch-agent.pyz"
SUDOERS = "/etc/sudoers"
NAMES = ("voms", "alvmysql", "lxr")
POSTGRESQL = ("PG_VERSION", "postmaster.pid", "pg_control", "pg_hba.conf", "base", "global", "pg_wal")


@dataclass
class Place:
    """The lab as the drill sees it, with voms alone unless a test wants all of it."""

    lab: Lab
    inventory: Path

    def drill(self) -> Drill:
        """A drill of the one guest."""
        return wiring_drill.run_drill([GUEST])

    def missing(self) -> tuple[DrillCheck, ...]:
        """What a drill misses."""
        return self.drill().missing

    @contextmanager
    def sudoers(self, change: Callable[[str], str]) -> Iterator[Path]:
        """Other sudo rules for a while."""
        file = self.lab.host_path(SUDOERS)
        before = file.read_text()
        changed = change(before)
        assert changed != before
        try:
            self.write(file, changed)
            yield file
        finally:
            self.write(file, before)

    def write(self, file: Path, text: str) -> None:
        """Replace the rules; the guest's own visudo must find them right."""
        file.write_text(text)
        file.chmod(0o440)
        self.lab.guest(["visudo", "-c", "-f", SUDOERS])


@pytest.fixture
def place(running_lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    inventory = yaml.safe_load(running_lab.inventory_path.read_text())
    inventory["instances"] = {"voms": inventory["instances"]["voms"]}
    file = tmp_path / "inventory.yaml"
    file.write_text(yaml.safe_dump(inventory))
    for conn_id, fields in running_lab.connections().items():
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(fields))
    monkeypatch.setenv("UNLATCH_INVENTORY", str(file))
    monkeypatch.setenv("UNLATCH_TICKETS", str(tmp_path / "tickets"))
    monkeypatch.setenv("UNLATCH_AGENT", str(shutil.copy(AGENT, tmp_path)))  # whoever builds it meanwhile
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")  # `unlatch drill` sets it; here it must go again
    return Place(running_lab, file)


def without(rule: str) -> Callable[[str], str]:
    """Sudo rules without one command."""

    def change(text: str) -> str:
        for found in (f"{rule}, \\\n    ", f", \\\n    {rule}"):
            if found in text:
                return text.replace(found, "")
        return "".join(line for line in text.splitlines(keepends=True) if rule not in line)

    return change


def test_everything_is_there(place: Place) -> None:
    """It should find the healthy lab complete, as a program that reads the command's output does."""
    place.inventory.write_text(place.lab.inventory_path.read_text())
    done = subprocess.run([sys.executable, "-m", "unlatch.cli", "drill", "--json"], capture_output=True, check=False)
    found = json.loads(done.stdout)
    wrong = [c for c in Drill.from_dict(found).checks() if c.ok is False]
    assert (done.returncode, found["missing"], wrong) == (0, 0, []), done.stderr
    (guest,) = found["guests"]
    assert guest["reached"]
    by_name = {i["instance"]: i for i in guest["instances"]}
    assert set(by_name) == set(NAMES)
    for instance in by_name.values():
        answers = {c["privilege"]: c["ok"] for c in instance["checks"]}
        expected = {"service start", "service hold", "see every process", "list locks", "database login", "space"}
        assert {name for name in expected if answers.get(name) is True} == expected
        assert 0 < instance["estimate_s"] < instance["objective_s"]
    assert b"drill: dbvrtg4037: done" in done.stderr


def test_what_is_missing_and_its_cure(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It should name each of many things that are missing, and no other; what it prints makes the drill whole."""
    hold, start = (f"/usr/local/sbin/dbservice {verb} voms" for verb in ("hold", "start"))
    openers = "/usr/local/sbin/unlatch-openers"
    login = place.lab.connections()["unlatch_db_voms"]
    monkeypatch.setenv("AIRFLOW_CONN_UNLATCH_DB_VOMS", json.dumps(login | {"password": "wrong"}))
    (tmp_path / "tickets").write_text("no directory")
    place.lab.xend_log.chmod(0o600)
    place.lab.guest(["mv", openers, "/root/unlatch-agent.pyz"])

    def fewer(text: str) -> str:
        return without(openers)(without(hold)(without(start)(text))) + f"dbod ALL=(root) {start}\n"

    try:
        with place.sudoers(fewer) as file:
            said = place.lab.guest(["sudo", "-n", "-l", *start.split()], user="dbod").stdout.strip()
            assert said == start, "sudo calls it allowed, though it asks for a password"
            assert main(["drill", "--guest", GUEST]) == 4
            printed = capsys.readouterr().out
            expected = {
                "service hold", "service start", "see every process", "database login", "read the hypervisor's log",
                "write tickets",
            }  # fmt: skip
            assert f"{len(expected)} missing" in printed
            rules = [f"dbod ALL=(root) NOPASSWD: {command}" for command in (openers, start, hold)]
            assert f"\non {GUEST}, with visudo -f /etc/sudoers.d/unlatch:\n" + "\n".join(rules) + "\n" in printed
            install = f"install -o root -g root -m 0755 unlatch-agent.pyz {openers}"
            assert f"\non {GUEST}:\n{install}    # see every process\n" in printed

            place.write(file, f"{file.read_text()}{chr(10).join(rules)}\n")
            place.lab.guest(["sh", "-c", f"cd /root && {install}"])
            place.lab.xend_log.chmod(0o644)
            (tmp_path / "tickets").unlink()
            monkeypatch.setenv("AIRFLOW_CONN_UNLATCH_DB_VOMS", json.dumps(login))
            assert place.missing() == ()
            assert not (tmp_path / "tickets").exists(), "a drill makes no directory"
    finally:
        place.lab.xend_log.chmod(0o644)
        place.lab.guest(["mv", "/root/unlatch-agent.pyz", openers])


def test_user_of_the_databases(place: Place) -> None:
    """It should name the rule that lets the agent work as the instance's user."""
    with place.sudoers(without("dbod ALL=(mysql,postgres) NOPASSWD: ALL")) as file:
        missing = {check.privilege: check.grant for check in place.missing()}
        assert missing["work as mysql"] == "dbod ALL=(mysql) NOPASSWD: ALL"
        place.write(file, f"{file.read_text()}{missing['work as mysql']}\n")
        place.lab.guest(["sudo", "-n", "-u", "mysql", "true"], user="dbod")


def test_machines_that_must_not_be_used(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """It should do nothing on a machine whose key is not the pinned one, and say how to add a missing connection."""
    fields = place.lab.connections()
    fields[f"unlatch_guest_{GUEST}"]["extra"]["host_key"] = fields["unlatch_hv_hv01"]["extra"]["host_key"]
    monkeypatch.setenv(f"AIRFLOW_CONN_UNLATCH_GUEST_{GUEST.upper()}", json.dumps(fields[f"unlatch_guest_{GUEST}"]))
    monkeypatch.delenv("AIRFLOW_CONN_UNLATCH_HV_HV01")
    found = place.drill()
    grants = {(check.privilege, check.host): check.grant or "" for check in found.missing}
    assert set(grants) == {("SSH login", GUEST), ("SSH login", "hv01")}
    assert "host_key" in grants["SSH login", GUEST]
    assert "airflow connections add unlatch_hv_hv01" in grants["SSH login", "hv01"]
    assert cli_drill.exit_code(found) == 4, "it is missing, not silent"


def test_guest_out_of_reach(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """It should end with 6 when no guest answers, and still have asked the hypervisor."""
    fields = place.lab.connections()[f"unlatch_guest_{GUEST}"] | {"port": 1}
    monkeypatch.setenv(f"AIRFLOW_CONN_UNLATCH_GUEST_{GUEST.upper()}", json.dumps(fields))
    found = place.drill()
    assert cli_drill.exit_code(found) == 6
    assert any(check.host == "hv01" and check.ok for check in found.checks())


def test_shared_storage(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """It should ask peers and NAS too, and name what each lacks; with what it prints the notification runs."""
    declared = yaml.safe_load(place.inventory.read_text())
    declared["volumes"]["dbs03"] |= {
        "kind": "nfs",
        "server": "nas",
        "clearer": "command",
        "peers": ["standby"],
        "nas": {"export": "/srv/dbod", "list": ["true"], "clear": ["sudo", "-n", "/usr/local/sbin/clear-locks"]},
    }
    place.inventory.write_text(yaml.safe_dump(declared))
    fields = place.lab.connections()
    monkeypatch.setenv("AIRFLOW_CONN_UNLATCH_NAS_NAS", json.dumps(fields["unlatch_hv_hv01"]))
    monkeypatch.setenv("AIRFLOW_CONN_UNLATCH_GUEST_STANDBY", json.dumps(fields[f"unlatch_guest_{GUEST}"]))
    found = {(c.privilege, c.host): c for c in place.drill().checks()}
    assert found["list locks on the NAS", "nas"].ok
    assert found["see every process", "standby"].ok
    assert found["tell whose locks they are", None].ok
    lacking = {key for key, check in found.items() if check.ok is False}
    assert lacking == {("NFS mount", GUEST), ("notify the NAS", GUEST), ("clear locks on the NAS", "nas")}
    assert "logreader ALL=(root) NOPASSWD: /usr/local/sbin/clear-locks" in (
        found["clear locks on the NAS", "nas"].grant or ""
    )
    install, line = (found["notify the NAS", GUEST].grant or "").splitlines()
    home = place.lab.host_path("/root")
    shutil.copy(os.environ["UNLATCH_AGENT"], home / "unlatch-agent.pyz")
    place.lab.guest(["sh", "-c", f"cd /root && {install}"])
    try:
        with place.sudoers(lambda text: f"{text}{line}\n"):
            cured = {c.privilege: c for c in place.drill().checks()}["notify the NAS"]
    finally:
        place.lab.guest(["rm", "/usr/local/sbin/unlatch-notify", "/root/unlatch-agent.pyz"])
    assert cured.ok or "statd" in cured.why or "sm-notify" in cured.why, "not the command's own answer"


def test_nothing_is_changed_while_databases_run(place: Place) -> None:
    """It should leave inodes, locks, processes, services and everything outside the data directories as they are."""
    place.inventory.write_text(place.lab.inventory_path.read_text())
    assert place.missing() == ()  # once before: the agent's file is put there, and databases have read their tables
    before = fingerprint(place.lab, databases_run=True)
    place.drill()
    assert changes(before, fingerprint(place.lab, databases_run=True)) == {}


def test_nothing_is_changed_after_a_crash(place: Place) -> None:
    """It should leave every byte, time and lock as the crash left them."""
    place.inventory.write_text(place.lab.inventory_path.read_text())
    place.drill()  # once before: the agent's file is put there
    place.lab.crash()
    try:
        for name in NAMES:
            place.lab.service("hold", name)
        before = fingerprint(place.lab, databases_run=False)
        found = place.drill()
        assert changes(before, fingerprint(place.lab, databases_run=False)) == {}
        logins = {c.why: c.ok for c in found.checks() if c.privilege == "database login"}
        assert set(logins.values()) == {None}, logins
        assert cli_drill.exit_code(found) == 0
    finally:
        place.lab.reset()


def changes(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """What is different, before and after."""
    return {k: (before.get(k), after.get(k)) for k in before.keys() | after.keys() if before.get(k) != after.get(k)}


def fingerprint(lab: Lab, *, databases_run: bool) -> dict[str, Any]:
    """What a drill could have changed: files with inodes and times, services, the kernel's locks.

    Servers that run write to their own files at any time: of those only the inodes count then.
    """
    files: dict[str, Any] = {}
    for file in sorted(lab.volume.rglob("*")):
        if databases_run and ("lxr" in file.parts and file.name not in POSTGRESQL):
            continue  # it makes caches and temporary files anew whenever it likes
        found = file.lstat()
        files[str(file)] = found.st_ino
        if not databases_run and file.is_file():
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            files[str(file)] = (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns, digest)
    root = lab.host_path("/")
    for place in ("etc", "local", "opt", "root", "home", "srv", "var/tmp", "var/spool", "var/lib"):
        for file in sorted((root / place).rglob("*")):
            if ".unlatch" in file.parts:  # the agent's own directory
                continue
            found = file.lstat()
            files[str(file)] = (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_mode)
    services = {name: lab.service("status", name, check=False).stdout for name in NAMES}
    lines = Path("/proc/locks").read_text().splitlines()
    inodes = {str(file.stat().st_ino) for file in lab.volume.rglob("*") if file.is_file()}
    locks = sorted(words for line in lines if (words := " ".join(line.split()[1:])).split()[4].split(":")[2] in inodes)
    processes = sorted(
        pid for pid in lab.guest(["ls", "/proc"]).stdout.split() if pid.isdecimal() and _is_database(lab, pid)
    )
    return {**files, "services": services, "locks": locks, "processes": processes}


def _is_database(lab: Lab, pid: str) -> bool:
    name = lab.guest(["cat", f"/proc/{pid}/comm"], check=False).stdout.strip()
    return name in {"mariadbd", "postgres", "sleep", "python3"} and int(pid) < 1000
