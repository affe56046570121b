"""The drill of guests and instances, on fakes: what each answer of a machine becomes."""

from __future__ import annotations

import pytest

from tests.unit.drill_site import INSTALL, LINE, NFS, Known, Site
from tests.unit.world_parts import GUEST, instance
from unlatch.errors import CheckFailedError, ConfigError, TransientError
from unlatch.models import (
    Drill,
    DrillCheck,
    OpenerScan,
    Policy,
    Probe,
    RemedyPolicy,
    Unchecked,
)
from unlatch.ports import CommandAnswer, Leave


@pytest.fixture
def site() -> Site:
    return Site()


@pytest.fixture
def nfs() -> Site:
    return Site(known=Known(volume=NFS))


def test_all_there(site: Site) -> None:
    """It should find every privilege, and an estimate with its parts, under the objective."""
    found = site.drill()
    assert [c for c in found.checks() if c.ok is not True] == []
    ((drilled,),) = ([g.instances for g in found.guests],)
    assert drilled[0].estimate_s == sum(drilled[0].estimate.values()) == 81.0
    assert set(drilled[0].estimate) == {"detection", "evidence", "copy", "start", "login"}
    assert drilled[0].objective_s == 900


def test_every_check_has_its_own_name(nfs: Site) -> None:
    """It should give no two checks of one subject the same key, so that drills can be compared."""
    nfs.known.instances = (instance(), instance("alvmysql"))
    found = nfs.drill()
    for checks in (found.guests[0].checks, *(i.checks for i in found.guests[0].instances)):
        keys = [(c.privilege, c.host, c.path) for c in checks]
        assert len(keys) == len(set(keys))


def test_a_drill_is_a_plain_value(nfs: Site) -> None:
    """It should come back from JSON as it was, with the counts in the document."""
    nfs.host().refused["start"] = Leave(False)
    nfs.engine.answer = TransientError("no connection")
    found = nfs.drill()
    document = found.as_dict()
    assert Drill.from_dict(document) == found
    assert (document["schema"], document["missing"], document["unchecked"]) == (1, 1, 1)
    (guest,) = document["guests"]
    assert {"guest", "checks", "instances"} <= guest.keys()
    assert {"instance", "checks", "estimate_s", "objective_s"} <= guest["instances"][0].keys()


@pytest.mark.parametrize("action", ["start", "stop", "hold", "release"])
def test_a_service_command_that_sudo_refuses(site: Site, action: str) -> None:
    """It should name the command, and give the exact line."""
    site.host().refused[f"dbservice {action} voms"] = Leave(False, "sudo does not allow it")
    check = site.check(f"service {action}")
    assert (check.ok, check.why) == (False, "sudo does not allow it")
    assert check.grant == f"{LINE}dbservice {action} voms"


def test_a_password_that_might_be_asked_for(site: Site) -> None:
    """It should not take what cannot be told for a yes."""
    site.host().refused["dbservice start"] = Leave(None, "whether it asks cannot be told")
    assert site.check("service start").ok is None


@pytest.mark.parametrize(("code", "ok"), [(0, True), (3, True), (1, False), (4, False)])
def test_service_status(site: Site, code: int, ok: bool) -> None:
    """It should take running and stopped for answers, and nothing else."""
    site.host().answers["status"] = CommandAnswer(code, "words")
    assert site.check("service status").ok is ok


def test_rows_of_the_agent(site: Site) -> None:
    """It should take over whatever rows the agent's preflight has, but for the scan that root does."""
    row = {"privilege": "new row", "path": "/ORA", "ok": None, "why": "not known", "grant": "try", "more": 1}
    site.host().answers["preflight"] = [row]
    assert site.check("new row") == DrillCheck("new row", None, "not known", "try", "/ORA", GUEST.name)


def test_what_is_only_good_to_have(site: Site) -> None:
    """It should show whether clones and crash dumps are there, and miss neither."""
    site.host().answers["preflight"] = [
        {"privilege": "clone support", "path": "/ORA", "ok": None, "why": "ext4", "grant": "nothing to do"},
        {"privilege": "crash dumps", "path": None, "ok": False, "why": "no kdump", "grant": "apt install"},
    ]
    found = site.drill()
    assert (found.missing, found.unchecked) == ((), ())
    assert site.check("crash dumps").grant == "apt install"


def test_root_command_that_the_agent_misses(nfs: Site) -> None:
    """It should tell one missing root command once, with the line for the real login user."""
    grant = "sudoers: USER ALL=(root) NOPASSWD: /usr/local/sbin/unlatch-notify"
    nfs.host().answers["preflight"] = [{"privilege": "notify", "path": "/ORA", "ok": False, "why": "", "grant": grant}]
    nfs.host().refused["unlatch-notify"] = Leave(False, there=False)
    assert [c.privilege for c in nfs.drill().missing] == ["notify the NAS"]


def test_work_as_the_instances_user(site: Site) -> None:
    """It should take the sudoers line out of the error's advice when sudo does not let the agent run."""
    line = "dbod ALL=(mysql) NOPASSWD: ALL"
    site.host().answers["preflight"] = ConfigError("sudo refuses", next_step=f"grant with visudo on db: {line}")
    check = site.check("work as mysql")
    assert (check.ok, check.grant) == (False, line)


@pytest.mark.parametrize(
    ("leave", "grant"),
    [
        (Leave(False), f"{LINE}/usr/local/sbin/unlatch-openers"),
        (
            Leave(False, there=False),
            f"{INSTALL} /usr/local/sbin/unlatch-openers\n{LINE}/usr/local/sbin/unlatch-openers",
        ),
    ],
)
def test_opener_scan(site: Site, leave: Leave, grant: str) -> None:
    """It should say how to install and grant the scan of all processes, whatever of it is missing."""
    site.host().refused["unlatch-openers"] = leave
    check = site.check("see every process")
    assert (check.ok, check.grant) == (False, grant)


def test_incomplete_opener_scan(site: Site) -> None:
    """It should believe the scan itself more than sudo's word."""
    site.host().answers["openers"] = OpenerScan((), (Unchecked(17, "permission denied"),))
    assert site.check("see every process").ok is False


@pytest.mark.parametrize(
    ("answer", "ok"),
    [
        (TransientError("refused"), None),
        (CheckFailedError("wrong password", next_step="correct it"), False),
        (ConfigError("no such connection", next_step="airflow connections add"), False),
        (RuntimeError("a bug"), None),
    ],
)
def test_database_login(site: Site, answer: Exception, ok: bool | None) -> None:
    """It should tell a database that is down from a login that is refused."""
    site.engine.answer = answer
    check = site.check("database login", host=None)
    assert check.ok is ok
    assert str(answer.args[0]) in check.why


def test_write_probe_that_a_repair_would_make(site: Site) -> None:
    """It should not let a login that only reads stand for a write probe, and say nothing where none is declared."""
    assert all(c.privilege != "write probe" for c in site.drill().checks())
    site.known.instances = (instance(write_probe=True),)
    check = site.check("write probe", host=None)
    assert (check.ok, site.drill().missing) == (None, ())
    assert "not tried" in check.why


def test_error_log(site: Site) -> None:
    """It should tell a log that may not be read from one that is empty; none is asked for where none is declared."""
    site.host().answers["tail"] = ConfigError("mysql cannot read it", next_step="chmod")
    assert site.check("read the error log").grant == "chmod"
    site.host().answers["tail"] = ""
    assert site.check("read the error log").ok is None
    site.known.instances = (instance(error_log=None),)
    assert all(c.privilege != "read the error log" for c in site.drill().checks())


@pytest.mark.parametrize(
    "probe", [Probe(tcp="db:3306"), Probe(http="http://db/ready"), Probe(command=("curl", "--version"))]
)
def test_application_probe(site: Site, probe: Probe) -> None:
    """It should run the probe on the guest, when one is declared."""
    site.known.instances = (instance(probe=probe),)
    assert site.check("application probe").ok is True
    site.host().answers["run curl"] = CommandAnswer(7, "connection refused")
    assert "connection refused" in site.check("application probe").why


def test_recovery_objective(site: Site) -> None:
    """It should miss an objective that all parts together would exceed, at the rate that the agent has measured."""
    site.policy = Policy(objective_s=79)
    check = site.check("recovery objective")
    assert check.ok is False
    assert "copy 6" in check.why
    measured = {"privilege": "time to recover", "path": None, "ok": True, "why": "", "bytes": 10**9, "estimate_s": 2.0}
    site.host().answers["preflight"] = [measured]
    assert "copy 2" in site.check("recovery objective").why


def test_estimate_of_a_stopped_instance(site: Site) -> None:
    """It should take every file for locked while nothing is, as the server that would lock them is stopped."""
    site.host().answers["check_locks"] = ()
    measured = {"privilege": "time to recover", "path": None, "ok": True, "why": "", "bytes": 10**9, "estimate_s": 20.0}
    site.host().answers["preflight"] = [measured]
    assert site.drill().guests[0].instances[0].estimate["copy"] == 21.0
    small = measured | {"bytes": 10**6, "estimate_s": 0.0}
    site.host().answers["preflight"] = [small]
    assert site.drill().guests[0].instances[0].estimate["copy"] == 1.0
    for rows in ([], [measured | {"ok": None, "bytes": 0, "estimate_s": None}]):
        site.host().answers["preflight"] = rows
        assert site.drill().guests[0].instances[0].estimate_s is None


def test_estimate_on_nfs(nfs: Site) -> None:
    """It should count every gentler remedy that may be tried before the copy, and not those that policy forbids."""
    only = nfs.drill().guests[0].instances[0].estimate
    assert (only["gentler remedies"], only["copy"]) == (20.0, 6.0)
    nfs.host().answers["facts"] = "4.2"
    assert nfs.drill().guests[0].instances[0].estimate["gentler remedies"] == 105.0
    nfs.policy = Policy(remedies=RemedyPolicy(forbid=("wait_lease", "recreate")))
    only = nfs.drill().guests[0].instances[0].estimate
    assert (only["gentler remedies"], only.get("copy")) == (5.0, None)


def test_volume_that_is_not_mounted(nfs: Site) -> None:
    """It should miss the NFS mount where the data directory is on something else."""
    nfs.host().answers["facts"] = None
    assert nfs.check("NFS mount").ok is False


def test_no_estimate_without_sizes(site: Site) -> None:
    """It should give no number when the locked files could not be listed."""
    site.host().answers["check_locks"] = ConfigError("no such directory", next_step="mount it")
    found = site.drill().guests[0].instances[0]
    assert (found.estimate_s, found.estimate) == (None, {})
    assert site.check("recovery objective").ok is None
