"""What hypervisors list, and several of them asked at once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlatch.crash_sources.xend import PLUGIN as XEND
from unlatch.errors import ConfigError, TransientError, UnlatchError
from unlatch.models import DomainChange, DomainFact, Guest, Hypervisor, HypervisorLog
from unlatch.transport.hypervisor_domains import ask_each
from unlatch.transport.hypervisor_log import LogHypervisorWatch
from unlatch.transport.ssh import RemoteAnswer

GUEST = Guest("dbvrtg4037", "hv01", "c", (r"^\d+_dbvrtg4037$",))
LOG = "UNLATCH-LOG-1\nT\n"
LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
LIST = ("sudo", "xl", "list")
XL = """Name                                        ID   Mem VCPUs\tState\tTime(s)
Domain-0                                     0  4096     4     r-----   81000.1
2130_dbvrtg4037                             12  8192     4     -b----     500.0
"""
VIRSH = """ Id   Name              State
----------------------------------
 3    2130_dbvrtg4037   running

"""
CREATED = "[2014-10-18 05:54:58 1] DEBUG (X:117) XendDomainInfo.create_from_dict({'name_label': '2130_dbvrtg4037'})\n"


class Shells:
    """One answer per hypervisor and program; an exception is raised."""

    def __init__(self, answers: Mapping[str, Any]) -> None:
        self.answers = answers
        self.asked: list[tuple[str, Sequence[str]]] = []

    def of(self, _: str, name: str) -> Shell:
        return Shell(self, name)


class Shell:
    def __init__(self, shells: Shells, name: str) -> None:
        self.shells, self.name = shells, name

    def run(self, argv: Sequence[str], *, timeout_s: float) -> RemoteAnswer:
        assert timeout_s > 0
        self.shells.asked.append((self.name, argv))
        if "id" in argv:
            return RemoteAnswer(0, b"unlatch\n", b"")
        given = self.shells.answers[self.name]
        if isinstance(given, dict):
            log = "busy" if any("/busy" in word for word in argv) else "log"
            answer = given.get(log if argv[0] == "sh" else "list")
        else:
            answer = given
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, RemoteAnswer) else RemoteAnswer(0, str(answer).encode(), b"")


def watch(shells: Shells, **domains: tuple[str, ...]) -> LogHypervisorWatch:
    log = HypervisorLog("xend", PurePosixPath("/var/log/xend.log"), "Europe/Zurich")
    hypervisors = {name: Hypervisor(name, "c", (log,), domains.get(name, ())) for name in shells.answers}
    return LogHypervisorWatch(hypervisors, shells.of, {"xend": XEND})


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (XL, True),
        (VIRSH, True),
        ("2130_dbvrtg4037\n", True),
        (XL.replace("2130_dbvrtg4037", "2130_dbvrtg4038"), False),
        (XL.replace("2130_dbvrtg4037", "2130_dbvrtg40370"), False),
        (XL.replace("-b----", "--p---"), True),
        ("\n", False),
        ("", False),
    ],
)
def test_a_guest_is_found_in_any_list(output: str, expected: bool) -> None:
    """It should find the guest's name in the lists of xl, xm and virsh and among plain names, and no similar one."""
    shells = Shells({"hv01": output})
    assert watch(shells, hv01=LIST).running_on(GUEST) == {"hv01": expected}
    assert shells.asked == [("hv01", ["env", "LC_ALL=C", *LIST])]


@pytest.mark.parametrize(
    ("command", "is_told"),
    [
        (("virsh", "list", "--name"), False),
        (("/usr/bin/virsh", "list"), False),
        (("virsh", "-c", "qemu:///system", "list"), True),
        (("virsh", "--connect=qemu:///system", "list"), True),
        (("sudo", "-n", "virsh", "list"), True),
    ],
)
def test_list_of_a_users_own_session_tells_nothing(command: tuple[str, ...], is_told: bool) -> None:
    """It should not take the list that libvirt shows to a user who names no hypervisor: its own one, always empty."""
    asked = watch(Shells({"hv01": "\n"}), hv01=command)
    if is_told:
        assert asked.running_on(GUEST) == {"hv01": False}
        return
    with pytest.raises(ConfigError, match="lists what unlatch itself has started") as found:
        asked.running_on(GUEST)
    assert "hypervisors.hv01.domains" in found.value.next_step


def test_without_a_command_nothing_is_asked() -> None:
    """It should say None, and not connect."""
    shells = Shells({"hv01": XL, "hv02": XL})
    assert watch(shells, hv02=LIST).running_on(GUEST) == {"hv01": None, "hv02": True}
    assert [name for name, _ in shells.asked] == ["hv02"]


@pytest.mark.parametrize(
    ("answer", "kind", "words", "then"),
    [
        (RemoteAnswer(1, b"", b"sudo: a password is required\n"), ConfigError, "run xl list as root",
         "unlatch ALL=(root) NOPASSWD: xl list"),
        (RemoteAnswer(127, b"", b"sh: xl: not found"), ConfigError, "not found", "hypervisors.hv02.domains"),
        (RemoteAnswer(1, b"", b"failed to connect to the hypervisor"), TransientError, "failed to connect", "by hand"),
        (TransientError("hv02 is gone."), TransientError, "hv02 is gone.", ""),
        (ConfigError("wrong key"), ConfigError, "wrong key", ""),
    ],
)  # fmt: skip
def test_one_that_does_not_answer_hides_no_other(answer: Any, kind: type[UnlatchError], words: str, then: str) -> None:
    """It should ask them all, and tell with the error what the others said."""
    shells = Shells({"hv01": "", "hv02": answer, "hv03": XL})
    with pytest.raises(kind, match=words) as found:
        watch(shells, hv01=LIST, hv02=LIST, hv03=LIST).running_on(GUEST)
    assert then in found.value.next_step
    assert found.value.detail["answers"] == {"hv01": False, "hv03": True}
    assert list(found.value.detail["unanswered"]) == ["hv02"]


def test_logs_of_the_others_are_read() -> None:
    """It should tell what every other hypervisor's log says of the guest, and not ask the guest's own."""
    log = {"log": LOG + CREATED}
    shells = Shells({"hv01": log, "hv02": log, "hv03": {"log": LOG + CREATED.replace("4037", "4038")}})
    found = watch(shells).facts_elsewhere(GUEST, LONG_AGO)
    assert {name: [fact.change for fact in facts] for name, facts in found.items()} == {
        "hv02": [DomainChange.CREATED],
        "hv03": [],
    }


def test_an_empty_log_is_not_a_silent_one() -> None:
    """It should not take a log that is not there for one that says nothing, and still tell what the others say."""
    shells = Shells({"hv01": {}, "hv02": {"log": LOG}, "hv03": {"log": LOG + CREATED}})
    with pytest.raises(ConfigError, match="nothing in it") as found:
        watch(shells).facts_elsewhere(GUEST, LONG_AGO)
    (fact,) = found.value.detail["answers"]["hv03"]
    assert DomainFact.from_dict(fact).change is DomainChange.CREATED
    json.dumps(found.value.detail)


def test_a_busy_log_that_does_not_reach_back_is_not_a_silent_one() -> None:
    """It should not say that nothing runs there when lines since the death were not read; unless they tell of it."""
    died = datetime(2014, 10, 18, 3, 54, 52, tzinfo=UTC)
    noise = "[2014-10-18 05:54:57 1] DEBUG (X:1) nothing of interest, but a lot of it\n" * 100
    before = "[2014-10-18 05:54:51 1] DEBUG (X:1) the last line before the death\n"

    def found(log: str) -> object:
        shells = Shells({"hv01": {}, "hv02": {"log": LOG + log}})
        one = HypervisorLog("xend", PurePosixPath("/var/log/xend.log"), "Europe/Zurich")
        of = {name: Hypervisor(name, "c", (one,)) for name in shells.answers}
        busy = LogHypervisorWatch(of, shells.of, {"xend": XEND}, tail_bytes=len(noise))
        return busy.facts_elsewhere(GUEST, LONG_AGO, (), died)

    with pytest.raises(ConfigError, match="does not reach back to the death") as error:
        found(noise)
    assert "hypervisors.hv02.domains" in error.value.next_step
    assert found(before + noise) == {"hv02": ()}
    assert found(noise[:-500]) == {"hv02": ()}, "the whole log was read"
    assert len(found(noise + CREATED)["hv02"]) == 1  # type: ignore[index]


def test_a_log_that_does_not_reach_back_proves_nothing() -> None:
    """It should not tell what one log says of a death while another, which was cut, may tell of a migration before."""
    died = datetime(2014, 10, 18, 3, 54, 52, tzinfo=UTC)
    noise = "[2014-10-18 05:54:57 1] DEBUG (X:1) nothing of interest, but a lot of it\n" * 100
    before = "[2014-10-18 05:54:51 1] DEBUG (X:1) the last line before the death\n"

    def facts(busy: str, back_to: datetime | None = died) -> tuple[DomainFact, ...]:
        shells = Shells({"hv01": {"log": LOG + CREATED, "busy": LOG + busy}})
        logs = tuple(HypervisorLog("xend", PurePosixPath(f"/{name}"), "Europe/Zurich") for name in ("log", "busy"))
        of = {"hv01": Hypervisor("hv01", "c", logs)}
        return LogHypervisorWatch(of, shells.of, {"xend": XEND}, tail_bytes=len(noise)).domain_facts(
            GUEST, LONG_AGO, back_to
        )

    with pytest.raises(ConfigError, match=r"/busy on hv01 does not reach back to the death") as error:
        facts(noise)
    assert "answer the question" in error.value.next_step
    assert facts(noise, None) == facts(before + noise[len(before) :]) == facts(noise[:-500])
    assert facts(noise, None)


OUTCOMES = st.dictionaries(
    st.text("abc", min_size=1, max_size=3), st.sampled_from([True, False, None, "gone", "wrong"]), max_size=6
)


@given(OUTCOMES)
def test_every_answer_is_kept(outcomes: dict[str, Any]) -> None:
    """It should keep each hypervisor's answer or error, whatever the others do, and be worth a retry if one helps."""
    errors = {"gone": TransientError("gone"), "wrong": ConfigError("wrong")}

    def ask(hypervisor: Hypervisor) -> Any:
        outcome = outcomes[hypervisor.name]
        if outcome in errors:
            raise errors[outcome]
        return outcome

    answered = {name: o for name, o in outcomes.items() if o not in errors}
    hypervisors = [Hypervisor(name, "c", ()) for name in outcomes]
    if answered == outcomes:
        assert ask_each(hypervisors, ask) == outcomes
        return
    with pytest.raises(UnlatchError) as found:
        ask_each(hypervisors, ask)
    assert found.value.detail["answers"] == answered
    assert set(found.value.detail["unanswered"]) == set(outcomes) - set(answered)
    assert isinstance(found.value, TransientError) is ("gone" in outcomes.values())


def test_names_of_a_guest() -> None:
    """It should take the guest's own name, with patterns beside it, and patterns only in full."""
    plain = Guest("dbvrtg4037", "hv01", "c")
    assert plain.is_called("dbvrtg4037")
    assert not plain.is_called("2130_dbvrtg4037")
    numbered = Guest("dbvrtg4037", "hv01", "c", (r"\d+_dbvrtg4037",))
    assert numbered.is_called("2130_dbvrtg4037")
    assert numbered.is_called("dbvrtg4037"), "moved by hand, it has its plain name elsewhere: a sign of life"
    assert not numbered.is_called("2130_dbvrtg4037b")
