"""The drill of what guests share, on fakes; and that one bad machine spoils nothing."""

from __future__ import annotations

import dataclasses
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import pytest

from tests.unit.drill_site import INSTALL, LINE, NFS, Clearer, Host, Known, Site
from tests.unit.world_parts import GUEST, HYPERVISOR, LAB, instance
from unlatch.cli import drill as cli_drill
from unlatch.errors import ConfigError, RefusedError, TransientError
from unlatch.models import (
    Fence,
    HypervisorLog,
    Policy,
    RemedyPolicy,
)
from unlatch.ports import CommandAnswer, Leave


@pytest.fixture
def site() -> Site:
    return Site()


@pytest.fixture
def nfs() -> Site:
    return Site(known=Known(volume=NFS))


def test_hypervisor(site: Site) -> None:
    """It should read a byte of each log, and run the command that lists domains when one is declared."""
    site.known.hypervisors["hv01"] = dataclasses.replace(HYPERVISOR, domains=("xl", "list"))
    hypervisor = site.host("hv01")
    hypervisor.answers["run xl"] = CommandAnswer(0, "Domain-0 0\n2130_dbvrtg4037 12 8192\n")
    assert site.check("list running domains", host="hv01").ok is True
    hypervisor.answers["run head"] = CommandAnswer(1, "head: cannot open '/x.log': No such file or directory")
    hypervisor.answers["run xl"] = ConfigError("sudo refuses", next_step=f"grant with visudo on hv01: {LINE}xl list")
    assert "inventory" in (site.check("read the hypervisor's log", host="hv01").grant or "")
    assert site.check("list running domains", host="hv01").grant == f"{LINE}xl list"


@pytest.mark.parametrize(
    ("domains", "user", "printed", "ok", "words"),
    [
        (("xl", "list"), "dbod", "Domain-0 0\n2130_dbvrtg4037 12 8192\n", True, "without dbvrtg4038"),
        (("xl", "list"), "dbod", "Domain-0 0\n", None, "guests.dbvrtg4037.names"),
        (("virsh", "list", "--name"), "dbod", "dbvrtg4037\ndbvrtg4038\n", True, "it ran"),
        (("virsh", "list", "--name"), "dbod", "\n", False, "qemu:///system"),
        (("virsh", "list", "--name"), "root", "\n", None, "guests.dbvrtg4037.names"),
        (("sudo", "-n", "virsh", "list"), "dbod", "\n", None, "guests.dbvrtg4037.names"),
    ],
)
def test_list_of_domains_in_which_no_guest_is(
    site: Site, domains: tuple[str, ...], user: str, printed: str, *, ok: bool | None, words: str
) -> None:
    """It should not take an exit code of 0 for a list that tells: a repair has to find its guest in there."""
    site.known.hypervisors["hv01"] = dataclasses.replace(HYPERVISOR, domains=domains)
    site.known.guests["dbvrtg4038"] = dataclasses.replace(GUEST, name="dbvrtg4038", names=())
    site.host("hv01").user = user
    site.host("hv01").answers[f"run {domains[0]}"] = CommandAnswer(0, printed)
    check = site.check("list running domains", host="hv01")
    assert check.ok is ok
    assert words in f"{check.why} {check.grant}"


def test_core_dumps_are_good_to_have(site: Site) -> None:
    """It should tell what a hypervisor would keep of a crash, and let no repair depend on it."""
    site.host("hv01").answers["run sh"] = CommandAnswer(0, "|/bin/false")
    check = site.check("crash dumps", host="hv01")
    assert (check.ok, check.needed) == (False, False)


@pytest.mark.parametrize(
    ("answer", "ok", "words"),
    [
        (CommandAnswer(0, "Nov 23 05:54:52 hv01 libvirtd[1]: x"), True, ""),
        (
            CommandAnswer(0, "Hint: You are currently not seeing messages from other users"),
            False,
            "usermod -aG",
        ),
        (
            CommandAnswer(1, "No journal files were opened due to insufficient permissions."),
            False,
            "usermod -aG",
        ),
        (CommandAnswer(127, "env: journalctl: No such file or directory"), False, "name a log file"),
    ],
)
def test_journal_of_a_hypervisor(site: Site, answer: CommandAnswer, *, ok: bool, words: str) -> None:
    """It should ask for the right to read the journal, and leave out logs that are not on the hypervisor."""
    here = HypervisorLog("vsphere", PurePosixPath("/vc.log"), local=True)
    logs = (HypervisorLog("libvirtd", journal=("--unit=libvirtd",)), here)
    site.known.hypervisors["hv01"] = dataclasses.replace(HYPERVISOR, logs=logs)
    site.host("hv01").answers["run env"] = answer
    check = site.check("read the hypervisor's log", host="hv01")
    assert (check.ok, check.path) == (ok, "journal libvirtd")
    assert words in (check.grant or "")


@pytest.mark.parametrize(
    ("stdout", "stderr", "ok", "words"),
    [
        ("Nov 23 05:54:52 hv01 libvirtd[1]: x", "", True, ""),
        ("Nov 23 x", "Hint: You are currently not seeing messages from other users and the system.", False, "usermod"),
        ("-- No entries --", "", None, "unit"),
    ],
)
def test_journal_that_hides_entries(
    site: Site, tmp_path: Path, *, stdout: str, stderr: str, ok: bool | None, words: str
) -> None:
    """It should not take an exit code of 0 for the right to read: journalctl tells of it on standard error only."""
    program = tmp_path / "journalctl"
    program.write_text(f"#!/bin/sh\necho '{stdout}'\n[ -z '{stderr}' ] || echo '{stderr}' >&2\n")
    program.chmod(0o755)

    def run(argv: Sequence[str]) -> CommandAnswer:
        done = subprocess.run(
            argv, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True, text=True, check=False
        )
        return CommandAnswer(done.returncode, done.stdout)  # as a machine does: without stderr when all went well

    logs = (HypervisorLog("libvirtd", journal=("--unit=libvirtd",)),)
    site.known.hypervisors["hv01"] = dataclasses.replace(HYPERVISOR, logs=logs)
    site.hosts["hv01"] = host = Host("hv01")
    host.run = run  # type: ignore[method-assign]
    check = site.check("read the hypervisor's log", host="hv01")
    assert check.ok is ok
    assert words in (check.grant or "")


def test_hypervisor_is_asked_once(site: Site) -> None:
    """It should ask what guests share once, and show it with each of them."""
    site.known.guests["second"] = dataclasses.replace(GUEST, name="second", conn_id="unlatch_guest_second")
    found = site.drill()
    assert site.host("hv01").asked.count("run head") == 1
    assert all(any(c.host == "hv01" for c in g.checks) for g in found.guests)
    assert [c.privilege for c in found.checks() if c.host == "hv01"] == [
        "SSH login", "read the hypervisor's log", "crash dumps",
    ]  # fmt: skip


def test_other_hypervisors_matter_on_shared_storage(nfs: Site) -> None:
    """It should ask every hypervisor where the guest could run on any of them."""
    nfs.known.hypervisors["hv02"] = dataclasses.replace(HYPERVISOR, name="hv02", conn_id="unlatch_hv_hv02")
    assert nfs.check("read the hypervisor's log", host="hv02").ok is True
    nfs.known.volume = LAB
    assert all(c.host != "hv02" for c in nfs.drill().checks())


def test_peers(nfs: Site) -> None:
    """It should ask every other host that may mount the volume for its processes, also guests with instances there."""
    nfs.known.guests["second"] = dataclasses.replace(GUEST, name="second", conn_id="unlatch_guest_second")
    nfs.known.instances += (instance("other", guest="second"),)
    nfs.host("standby").refused["unlatch-openers"] = Leave(False)
    found = nfs.drill(GUEST.name)
    rows = {c.host: c.ok for c in found.guests[0].checks if c.privilege == "see every process"}
    assert rows == {"standby": False, "second": True}


def test_nobody_can_say_whose_locks_they_are(nfs: Site) -> None:
    """It should miss both peers and lock clearer, since without either no repair is automatic."""
    nfs.known.volume = dataclasses.replace(NFS, clearer=None, peers=None)
    check = nfs.check("tell whose locks they are", host=None)
    assert check.ok is False
    assert "volumes.dbs03.peers" in (check.grant or "")
    nfs.known.volume = dataclasses.replace(NFS, clearer=None, peers=())
    assert nfs.check("tell whose locks they are", host=None).ok is True


def test_nas(nfs: Site) -> None:
    """It should list, and only ask whether it may clear."""
    assert nfs.check("list locks on the NAS", host="nas").ok is True
    assert nfs.check("clear locks on the NAS", host="nas").ok is True
    nfs.host("nas").refused["unlatch-nas-clear"] = Leave(False, there=False)
    command = "/usr/local/sbin/unlatch-nas-clear"
    install = f"{INSTALL} {command}"
    assert nfs.check("clear locks on the NAS", host="nas").grant == f"{install}\n{LINE}{command}"
    advice = f"on nas: {install.replace('clear', 'list')} and grant with visudo: {LINE}/usr/local/sbin/unlatch-nas-list"
    nfs.clearer.view = ConfigError("it is not there", next_step=advice)
    assert (nfs.check("list locks on the NAS", host="nas").grant or "").count("\n") == 1


def test_clearer_that_cannot_be_asked_harmlessly(nfs: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """It should say that only clearing would tell, and ask nothing that policy forbids anyway."""
    monkeypatch.delattr(Clearer, "clear_command")
    check = nfs.check("clear locks on the NAS", host="nas")
    assert check.ok is None
    assert check.why.startswith("cannot be told without clearing")
    nfs.policy = Policy(remedies=RemedyPolicy(forbid=("clear",)))
    assert all(c.privilege != "clear locks on the NAS" for c in nfs.drill().checks())


@pytest.mark.parametrize(
    "leave", [Leave(True, "access all"), Leave(False, "readonly", "a role"), Leave(None, "hidden")]
)
def test_clearer_that_can_be_asked_itself(nfs: Site, monkeypatch: pytest.MonkeyPatch, leave: Leave) -> None:
    """It should take the clearer's own word, and not ask sudo for a command that it does not run."""
    monkeypatch.setattr(Clearer, "may_clear", lambda _: leave, raising=False)
    nfs.host("nas").refused["unlatch-nas-clear"] = Leave(False, there=False)
    check = nfs.check("clear locks on the NAS", host="nas")
    assert (check.ok, check.why, check.grant) == (leave.ok, leave.why, leave.grant)


def test_all_that_is_missing_is_named_in_one_run(nfs: Site) -> None:
    """It should name a missing right on the NAS and missing sudo entries in one drill, each with host and line."""
    nfs.host("nas").refused["unlatch-nas-clear"] = Leave(False)
    nfs.host().refused["unlatch-notify"] = Leave(False)
    nfs.host().refused["stop"] = Leave(False)
    drilled = nfs.drill()
    missing = {(c.privilege, c.host): c.grant for c in drilled.checks() if c.ok is False}
    assert missing["clear locks on the NAS", "nas"] == f"{LINE}/usr/local/sbin/unlatch-nas-clear"
    assert missing["notify the NAS", GUEST.name] == f"{LINE}/usr/local/sbin/unlatch-notify"
    assert ("service stop", GUEST.name) in missing


def test_notify(nfs: Site) -> None:
    """It should prove the right to notify: also by a refusal that only says that databases run."""
    assert nfs.check("notify the NAS").ok is True
    nfs.host().answers["notify"] = RefusedError("pid 4711 holds a lock (live_locks)")
    assert nfs.check("notify the NAS").ok is True
    nfs.host().answers["notify"] = ConfigError("sm-notify is missing", next_step="apt-get install nfs-common")
    assert nfs.check("notify the NAS").grant == "apt-get install nfs-common"
    nfs.host().refused["unlatch-notify"] = Leave(False)
    assert nfs.check("notify the NAS").grant == f"{LINE}/usr/local/sbin/unlatch-notify"
    nfs.host().answers["facts"] = "4.2"
    assert "not needed" in nfs.check("notify the NAS").why
    nfs.policy = Policy(remedies=RemedyPolicy(forbid=("notify",)))
    assert all(c.privilege != "notify the NAS" for c in nfs.drill().checks())


@pytest.mark.parametrize(("where", "host", "ok"), [("hypervisor", "hv01", False), ("nas", "nas", False)])
def test_fence(nfs: Site, where: str, host: str, ok: bool) -> None:
    """It should ask whether the fence may be applied where it runs, and never apply it."""
    fence = Fence(where, apply=("sudo", "-n", "fence", "off"), verify=("fence", "is-off"))
    nfs.known.guests[GUEST.name] = dataclasses.replace(GUEST, fence=fence)
    nfs.host(host).refused["fence off"] = Leave(False)
    assert nfs.check("fence: apply", host=host).ok is ok
    assert nfs.check("fence: verify", host=host).ok is True


def test_fence_on_the_worker(site: Site) -> None:
    """It should say that a fence of the worker's own is not tried."""
    site.known.guests[GUEST.name] = dataclasses.replace(GUEST, fence=Fence("worker", ("off",), ("is-off",), ("on",)))
    assert site.check("fence: undo", host=None).ok is None


def test_tickets(site: Site) -> None:
    """It should ask the ticket system harmlessly, or say that it cannot."""
    assert site.check("write tickets", host=None).ok is True
    site.tickets.answer = ConfigError("Tickets cannot be written", next_step="chmod")
    assert site.check("write tickets", host=None).ok is False
    site.tickets = object()
    assert site.check("write tickets", host=None).ok is None


def test_dead_guest(site: Site) -> None:
    """It should leave the others their answers, and say of its instances that they were not asked."""
    dead = dataclasses.replace(GUEST, name="dead", conn_id="unlatch_guest_dead")
    site.known.guests["dead"] = dead
    site.known.instances += (instance("lost", guest="dead"),)
    site.host("dead").answers["login"] = TransientError("dead does not answer")
    living, gone = site.drill().guests
    assert living.reached
    assert all(c.ok for c in living.instances[0].checks)
    assert not gone.reached
    assert [c.ok for c in gone.instances[0].checks] == [None]
    assert site.host("dead").asked == ["login"]


def test_dead_guests_do_not_delay_the_others(site: Site) -> None:
    """It should ask guests at the same time: one that hangs until another has answered ends all the same."""
    answered = threading.Event()
    site.known.guests["slow"] = dataclasses.replace(GUEST, name="slow", conn_id="unlatch_guest_slow")

    def hang() -> str:
        assert answered.wait(20), "the living guest was not asked meanwhile"
        raise TransientError("slow does not answer")

    site.host("slow").answers["login"] = hang
    site.host().answers["tail"] = lambda: (answered.set(), "a line")[1]
    slow = next(g for g in site.drill("slow", GUEST.name).guests if g.guest == "slow")
    assert not slow.reached


def test_guest_that_falls_silent(site: Site) -> None:
    """It should ask no more after two questions without an answer, also for the next instance."""
    site.known.instances = (instance(), instance("alvmysql"))
    for question in ("preflight", "openers", "check_locks", "status", "may_run", "tail"):
        site.host().answers[question] = TransientError("no answer within 180 s")
    first, second = site.drill().guests[0].instances
    asked = site.host().asked
    assert len([q for q in asked if q in {"preflight", "may_run", "openers"}]) == 2
    assert {c.ok for c in first.checks if c.host and c.privilege != "recovery objective"} == {None}
    assert "not asked" in next(c for c in second.checks if c.privilege == "service start").why


def test_wrong_host_key(site: Site) -> None:
    """It should be missing, not merely unknown, when a guest answers with a key that is not the pinned one."""
    site.host().answers["login"] = ConfigError("The host key is not the pinned one.", next_step="check the machine")
    assert site.check("SSH login").ok is False


def test_agent_that_does_not_run(site: Site) -> None:
    """It should ask nothing of the agent where it cannot run, and say what it lacks."""
    site.host().answers["version"] = ConfigError("no Python", next_step="apt-get install python3")
    assert site.check("agent").grant == "apt-get install python3"
    assert site.drill().guests[0].instances[0].checks[0].ok is None


def test_unknown_guest(site: Site) -> None:
    """It should be answered, since a form takes any name."""
    (guest,) = site.drill("nobody").guests
    assert (guest.guest, guest.reached, guest.checks[0].ok) == ("nobody", False, False)


@pytest.mark.parametrize(
    ("silent", "question"),
    [
        (GUEST.name, "login"),
        (GUEST.name, "version"),
        (GUEST.name, "preflight"),
        ("hv01", "login"),
        ("nas", "login"),
        ("standby", "login"),
        ("standby", "version"),
    ],
)
def test_a_machine_that_could_not_be_asked_is_no_success(nfs: Site, silent: str, question: str) -> None:
    """It should not end with 0 while whole machines have proven nothing."""
    nfs.host(silent).answers[question] = TransientError("no answer")
    if question == "preflight":  # a hung mount: what touches it is silent too
        nfs.host(silent).answers["check_locks"] = TransientError("no answer")
    if silent == "nas":
        nfs.clearer.view = TransientError("no answer")
        nfs.host("nas").answers["may_run"] = TransientError("no answer")
    found = nfs.drill()
    assert found.missing == ()
    assert cli_drill.exit_code(found) == 6
    assert not any("not reached" in check.why for check in found.checks()) or (silent, question) == (
        GUEST.name,
        "login",
    )


def test_one_open_check_is_no_machine_out_of_reach(nfs: Site) -> None:
    """It should end with 0 when only single questions stay open, such as a database that is stopped."""
    nfs.engine.answer = TransientError("stopped")
    nfs.tickets = object()
    found = nfs.drill()
    assert len(found.unchecked) == 2
    assert cli_drill.exit_code(found) == 0
