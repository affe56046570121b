"""For whom the NAS lists a lock: every branch of `nas_locks`, and who is who among its clients."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.evidence_scene import DATADIR, NOW, FakeAgent, FakeClock, locked, scene
from unlatch.engines.postgresql import PLUGIN as POSTGRESQL
from unlatch.errors import TransientError
from unlatch.evidence import _clients, nas_locks
from unlatch.evidence._clients import Host, KnownHosts, Whose, addresses_of, host_names, plain_address
from unlatch.models import (
    Answer,
    Evidence,
    FileFact,
    Guest,
    HostFacts,
    LiveLock,
    LockKind,
    NasClient,
    NasLock,
    NasView,
    Volume,
    VolumeKind,
)
from unlatch.ports import Peer, Scene

GUEST, PEER, STRANGER = "10.77.0.37", "10.77.0.38", "10.77.0.99"
KNOWN = {"dbvrtg4037": GUEST, "dbvrtg4038": PEER}
VOLUME = Volume("dbs03", VolumeKind.NFS, PurePosixPath("/ORA/dbs03"), "nas", "ontap")
FILES: tuple[FileFact, ...] = (replace(locked("ibdata1"), inode=11), replace(locked("aria_log_control"), inode=12))
HOST: HostFacts = FakeAgent().host


@pytest.fixture(autouse=True)
def name_service(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A name service that knows two hosts."""
    known = dict(KNOWN)

    def look_up(host: str, *_: Any, **__: Any) -> list[Any]:
        if host not in known:
            raise socket.gaierror(-2, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (known[host], 0))]

    monkeypatch.setattr(_clients.socket, "getaddrinfo", look_up)
    return known


def held(name: str, address: str | None = None, client: str | None = None, **more: Any) -> NasLock:
    """A lock that the NAS lists by path."""
    return NasLock(DATADIR / name, None, more.pop("protocol", "nfsv3"), client, address, **more)


def by_inode(inode: int, client: str | None = None, protocol: str = "nfsv4") -> NasLock:
    return NasLock(None, inode, protocol, client)


def v4(**changes: Any) -> NasClient:
    made = {"id": "4", "address": GUEST, "name": "Linux NFSv4.2 dbvrtg4037", "status": "confirmed"}
    return NasClient(**{**made, "seconds_since_renewal": 200.0, **changes})


def at(view: NasView | Iterable[NasLock], *, files: tuple[FileFact, ...] = FILES, **changes: Any) -> Scene:
    """A scene whose NAS lists this; NOW is a minute after the death, and the guest booted 9 s after it."""
    shown = view if isinstance(view, NasView) else NasView(tuple(view))
    agent = FakeAgent(host=replace(HOST, host="dbvrtg4037"), files=[files])
    base = {
        "guest": Guest("dbvrtg4037", "hv01", "c"),
        "volume": VOLUME,
        "agent": agent,
        "nas": lambda: shown,
        "peers": (Peer("dbvrtg4038", FakeAgent()),),
    }
    return scene(**{**base, **changes})


def look(where: Scene) -> Evidence:
    return nas_locks.PLUGIN.collect(where)


BOTH = (held("ibdata1", GUEST), held("aria_log_control", GUEST))


class TestByAddress:
    """NFSv3 on a NAS that tells addresses."""

    def test_every_lock_is_the_guests(self) -> None:
        """It should be clear, and name the files and the address."""
        found = look(at(BOTH))
        assert found.answer is Answer.CLEAR
        assert found.summary == (
            "the NAS nas lists the locks on aria_log_control, ibdata1 for the dead guest alone: 10.77.0.37"
        )
        assert found.detail["locks_on_the_volume"] == 2

    @pytest.mark.parametrize(
        "address", ["::ffff:10.77.0.37", "10.77.0.37:843", "[::ffff:10.77.0.37]:843", "dbvrtg4037.example.org"]
    )
    def test_spellings_of_the_guests_address(self, address: str) -> None:
        """It should know the guest in every spelling."""
        assert look(at((held("ibdata1", address), BOTH[1]))).answer is Answer.CLEAR

    @pytest.mark.parametrize(
        ("address", "words"),
        [(PEER, "dbvrtg4038 (10.77.0.38)"), (STRANGER, "10.77.0.99, which is not this guest"), ("127.0.0.1", "127.0")],
    )
    def test_a_lock_of_another_client_is_a_veto(self, address: str, words: str) -> None:
        """It should name the other client, on any file of the instance, also beside the guest's own locks."""
        for name in ("ibdata1", "not_locked_for_the_guest.ibd"):
            found = look(at((*BOTH, held(name, address))))
            assert found.answer is Answer.ALIVE
            assert words in found.summary
            assert name in found.summary

    def test_a_veto_needs_no_guest(self) -> None:
        """It should see another client's lock by its path while the guest does not answer."""
        broken = FakeAgent(broken=TransientError("guest is gone"))
        assert look(at((held("ibdata1", PEER),), agent=broken)).answer is Answer.ALIVE
        assert look(at(BOTH, agent=broken)).answer is Answer.NOT_OBSERVED

    def test_locks_of_other_instances_say_nothing(self) -> None:
        """It should look at the instance's own files only."""
        other = NasLock(PurePosixPath("/ORA/dbs03/voms2/ibdata1"), None, "nfsv3", None, PEER)
        assert look(at((*BOTH, other, NasLock(None, 999, "nfsv3", None, PEER)))).answer is Answer.CLEAR

    def test_an_address_that_nobody_knows(self, name_service: dict[str, str]) -> None:
        """It should not guess while the guest's own address is not known here, but know a peer's."""
        del name_service["dbvrtg4037"]
        assert look(at(BOTH)).answer is Answer.NOT_OBSERVED
        assert look(at((held("ibdata1", PEER), BOTH[1]))).answer is Answer.ALIVE
        assert look(at(BOTH, guest_hosts=(GUEST,))).answer is Answer.CLEAR
        assert look(at(BOTH, guest_hosts=("127.0.0.1",))).answer is Answer.NOT_OBSERVED

    def test_an_address_of_two(self, name_service: dict[str, str]) -> None:
        """It should not attribute to the guest what a peer's name leads to as well."""
        name_service["dbvrtg4038"] = GUEST
        found = look(at(BOTH))
        assert found.answer is Answer.NOT_OBSERVED
        assert "can be the guest or dbvrtg4038" in found.summary

    def test_the_databases_own_address_is_not_the_guests(self, name_service: dict[str, str]) -> None:
        """It should not trust an address that may float to another host with the database."""
        base = at((held("ibdata1", STRANGER), BOTH[1]))
        name_service["dbod-voms"] = STRANGER
        found = look(replace(base, instance=replace(base.instance, host="dbod-voms")))
        assert found.answer is Answer.ALIVE


class TestGaps:
    """What keeps a list from attributing every lock."""

    def test_no_clearer(self) -> None:
        """It should say which entry is missing."""
        found = look(at((), nas=None))
        assert (found.answer, "volumes.dbs03.clearer" in found.summary) == (Answer.NOT_OBSERVED, True)

    @pytest.mark.parametrize(
        ("locks", "words"),
        [
            ((), "a lock on aria_log_control, ibdata1, but the NAS lists none there"),
            (BOTH[:1], "a lock on aria_log_control, but the NAS lists none"),
            ((*BOTH, held("ibdata1")), "does not say for whom"),
            ((*BOTH, NasLock(None, None, "nfsv3", None, GUEST)), "cannot be told"),
            ((by_inode(11, protocol="nfsv3"), by_inode(12, protocol="nfsv3")), "Linux tells no NFSv3 client"),
            ((*BOTH, held("ibdata1", client="0x7f")), "names the client only as 0x7f"),
            ((held("ibdata1", GUEST, protocol="nfsv4"), BOTH[1]), "not whether that still renews"),
        ],
    )
    def test_a_list_with_gaps(self, locks: tuple[NasLock, ...], words: str) -> None:
        """It should be not observed as long as one lock is nobody's for certain."""
        found = look(at(locks))
        assert found.answer is Answer.NOT_OBSERVED
        assert words in found.summary

    def test_many_files_are_one_sentence(self) -> None:
        """It should say what is the same for many files once, and not name them all."""
        files = tuple(replace(locked(f"t{n}.ibd"), inode=100 + n) for n in range(12))
        found = look(at([by_inode(100 + n, protocol="nfsv3") for n in range(12)], files=files))
        assert found.summary == (
            "the NAS lists a lock on t0.ibd, t1.ibd, t10.ibd, t11.ibd, t2.ibd and 7 more and does not say for whom: "
            "it does not tell the client (Linux tells no NFSv3 client)"
        )

    def test_a_process_of_the_nas_itself(self) -> None:
        """It should take a lock of the NAS's own for another holder."""
        found = look(at((*BOTH, by_inode(11, protocol="local"))))
        assert found.answer is Answer.ALIVE
        assert "ibdata1 by a process of the NAS itself" in found.summary

    def test_no_locks_attribute_nothing(self) -> None:
        """It should not be clear for an engine without locks, or when nothing is locked."""
        assert look(at((), files=())).answer is Answer.NOT_OBSERVED
        assert look(at((), engine=POSTGRESQL, files=())).answer is Answer.NOT_OBSERVED
        assert look(at((held("PG_VERSION", PEER),), engine=POSTGRESQL, files=())).answer is Answer.ALIVE

    def test_a_file_outside_the_volume(self) -> None:
        """It should not take the inode of another file system for the instance's."""
        outside = replace(FILES[0], path=PurePosixPath("/other/tablespace.ibd"))
        found = look(at((by_inode(11, "4"), BOTH[1]), files=(outside, FILES[1])))
        assert (found.answer, "not on the volume" in found.summary) == (Answer.NOT_OBSERVED, True)

    def test_a_lock_of_the_guests_present_boot(self) -> None:
        """It should not take the present incarnation's lock for the dead one's: both have the guest's address."""
        own_start = (replace(locked("ibdata1", LockKind.LOCAL), inode=11), FILES[1])
        for held_now in (True, False):
            found = look(at(BOTH, files=own_start, held=held_now))
            assert (found.answer, "runs on the guest now" in found.summary) == (Answer.NOT_OBSERVED, True)
        agent = FakeAgent(files=[FILES], locks=(LiveLock(77, 12, "/ORA/dbs03"),))
        assert look(at(BOTH, agent=agent)).answer is Answer.NOT_OBSERVED


class TestByClient:
    """NFSv4: clients have names and leases."""

    def _look(self, client: NasClient, lease_s: float | None = 90.0, **changes: Any) -> Evidence:
        locks = (by_inode(11, "4"), by_inode(12, "4"))
        return look(at(NasView(locks, (client,), (GUEST,), lease_s), **changes))

    @pytest.mark.parametrize(
        ("status", "silent_s", "lease_s", "expected"),
        [
            ("courtesy", 200.0, 90.0, "clear"),
            ("courtesy", None, 90.0, "clear"),
            ("courtesy", 3.0, 90.0, "alive"),
            ("confirmed", 200.0, 90.0, "clear"),
            ("confirmed", 70.0, 90.0, "not_observed"),
            ("confirmed", 70.0, None, "not_observed"),
            ("confirmed", None, 90.0, "not_observed"),
            ("confirmed", 51.0, 30.0, "clear"),
            ("confirmed", 49.0, 30.0, "alive"),
            ("confirmed", 3.0, 90.0, "alive"),
        ],
    )
    def test_the_guests_own_client(
        self, status: str, silent_s: float | None, lease_s: float | None, expected: str
    ) -> None:
        """It should be clear after a lease of silence, alive when it renewed after the death, else neither."""
        found = self._look(v4(status=status, seconds_since_renewal=silent_s), lease_s)
        assert found.answer == expected, found.summary
        assert "dbvrtg4037" in found.summary

    def test_without_a_time_of_death(self) -> None:
        """It should compare a renewal with nothing, and take only a lease that is over for silence."""
        assert self._look(v4(), died_at=None).answer is Answer.NOT_OBSERVED
        over = v4(status="courtesy", seconds_since_renewal=None)
        assert self._look(over, died_at=None).answer is Answer.CLEAR

    def test_a_start_attempt_of_a_dry_run(self) -> None:
        """It should not take the guest's own attempts to start for its former life while these are not stopped."""
        assert self._look(v4(seconds_since_renewal=3.0), held=False).answer is Answer.NOT_OBSERVED
        assert self._look(v4(seconds_since_renewal=3.0), held=True).answer is Answer.ALIVE

    def test_a_slow_answer_can_hide_a_renewal(self) -> None:
        """It should not be clear when a renewal after the death fits between question and answer."""

        class SlowClock(FakeClock):
            def now(self) -> Any:
                self.paused.append(4.0)
                return NOW + timedelta(seconds=sum(self.paused))

        found = self._look(v4(seconds_since_renewal=60.0), 30.0, clock=SlowClock())
        assert (found.answer, "may have renewed" in found.summary) == (Answer.NOT_OBSERVED, True)

    @pytest.mark.parametrize(
        ("name", "address", "expected"),
        [
            ("Linux NFSv4.2 dbvrtg4037.example.org", None, "clear"),
            ("Linux NFSv4.1 3f0c9d2e4b5a69788796a5b4c3d2e1f0/DBVRTG4037", GUEST, "clear"),
            ("Linux NFSv4.2 dbvrtg4037", STRANGER, "clear"),
            ("Linux NFSv4.0 10.77.0.37/10.77.0.10 tcp", GUEST, "clear"),
            (None, GUEST, "clear"),
            ("Linux NFSv4.2 dbvrtg4038", PEER, "alive"),
            ("Linux NFSv4.2 dbvrtg4038", None, "alive"),
            ("Linux NFSv4.2 dbvrtg40370", None, "alive"),
            ("Linux NFSv4.2 dbvrtg4037-standby", STRANGER, "alive"),
            ("Linux NFSv4.0 10.77.0.99/10.77.0.10 tcp", STRANGER, "alive"),
            (None, PEER, "alive"),
            ("Linux NFSv4.2 dbvrtg4037", PEER, "not_observed"),
            ("Linux NFSv4.2 oldname", GUEST, "not_observed"),
            (None, None, "not_observed"),
        ],
    )
    def test_names_and_addresses(self, name: str | None, address: str | None, expected: str) -> None:
        """It should know the guest by its whole name, anyone else as such, and not decide when the two disagree."""
        found = self._look(v4(name=name, address=address, status="courtesy"))
        assert found.answer == expected, found.summary

    def test_what_the_guest_calls_itself_now(self) -> None:
        """It should neither attribute nor accuse by the present host name: the connection may lead to another host."""
        agent = FakeAgent(host=replace(HOST, host="newname"), files=[FILES])
        found = self._look(v4(name="Linux NFSv4.2 newname", address=None, status="courtesy"), agent=agent)
        assert (found.answer, "calls itself now" in found.summary) == (Answer.NOT_OBSERVED, True)

    def test_a_client_that_is_not_listed(self) -> None:
        """It should not attribute a lock whose client has gone from the list."""
        assert self._look(v4(id="5")).answer is Answer.NOT_OBSERVED


LOCKS = st.builds(
    NasLock,
    path=st.sampled_from([DATADIR / "ibdata1", DATADIR / "aria_log_control", None]),
    inode=st.sampled_from([None, 11, 12, 13]),
    protocol=st.sampled_from(["nfsv3", "nfsv4", "smb", "local", "unknown"]),
    client=st.sampled_from([None, "4", "5"]),
    address=st.sampled_from([None, GUEST, PEER, STRANGER]),
)


@given(st.lists(LOCKS, max_size=5), st.lists(LOCKS, max_size=2))
def test_more_locks_never_make_it_clear_of_a_veto(locks: list[NasLock], more: list[NasLock]) -> None:
    """It should never become better by a lock that says something else, and keep a veto whatever is listed beside."""
    clients = (v4(), v4(id="5", name="Linux NFSv4.2 dbvrtg4038", address=PEER))
    few = look(at(NasView(tuple(locks), clients, None, 90.0))).answer
    many = look(at(NasView((*locks, *more), clients, None, 90.0))).answer
    if few is Answer.ALIVE:
        assert many is Answer.ALIVE
    if many is Answer.CLEAR:
        assert few is not Answer.ALIVE
        instances = [lock for lock in (*locks, *more) if lock.path or lock.inode in {11, 12}]
        assert all(lock.address in {GUEST, None} and lock.client != "5" for lock in instances if lock.client is None)
        assert not any(lock.protocol == "local" for lock in instances)
        assert not any(lock.address in {PEER, STRANGER} for lock in instances if lock.client is None)


class TestSpelling:
    """Names and addresses in the forms that servers write."""

    @given(st.ip_addresses(v=4), st.integers(1, 65535))
    def test_every_form_of_an_ipv4_address(self, address: ipaddress.IPv4Address, port: int) -> None:
        """It should find the same address in each."""
        for text in (
            f"{address}",
            f"{address}:{port}",
            f"::ffff:{address}",
            f"[::ffff:{address}]:{port}",
            f" {address}",
        ):
            assert plain_address(text) == str(address)

    @given(st.ip_addresses(v=6), st.integers(1, 65535))
    def test_every_form_of_an_ipv6_address(self, address: ipaddress.IPv6Address, port: int) -> None:
        """It should find the same address in each, with and without zone."""
        expected = plain_address(str(address))
        for text in (address.exploded, f"[{address}]:{port}", f"{address}%eth0", str(address).upper()):
            assert plain_address(text) == expected

    @pytest.mark.parametrize("text", [None, "", "nas", "10.77.0", "10.77.0.37/24", "dbvrtg4037:2049", "[]"])
    def test_no_address(self, text: str | None) -> None:
        """It should take nothing else for an address."""
        assert plain_address(text) is None

    @pytest.mark.parametrize(
        ("text", "names"),
        [
            ("Linux NFSv4.2 dbvrtg4037.cern.ch", {"dbvrtg4037"}),
            ("Linux NFSv4.2 db-1", {"db-1"}),
            ("Linux NFSv4.0 10.0.0.1/10.0.0.2 tcp", set()),
            ("4", set()),
            (None, set()),
        ],
    )
    def test_host_names(self, text: str | None, names: set[str]) -> None:
        """It should find the host's name and leave the words around it."""
        assert host_names(text) == names

    def test_addresses_that_every_machine_has(self, name_service: dict[str, str]) -> None:
        """It should know no machine by loopback, and survive names that nobody can look up."""
        name_service["forwarded"] = "127.0.0.1"
        assert addresses_of(["forwarded", "::1", "0.0.0.0", "nowhere", "x" * 300, "dbvrtg4037"]) == {GUEST}

    def test_a_name_service_that_hangs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It should go on without an address."""
        import threading  # noqa: PLC0415

        release = threading.Event()
        monkeypatch.setattr(_clients, "LOOK_UP_LIMIT_S", 0.05)
        monkeypatch.setattr(_clients.socket, "getaddrinfo", lambda *_, **__: release.wait(30) and [])
        assert addresses_of(["dbvrtg4037"]) == set()
        release.set()

    def test_a_hint_only_counts_when_it_is_known(self) -> None:
        """It should not take a NAS's own number for a stranger's name."""
        hosts = KnownHosts(Host(frozenset({"g"}), frozenset({GUEST})), {"p": Host(frozenset({"p"}))})
        assert hosts.owner(address=GUEST, hint="client-0815").whose is Whose.GUEST
        assert hosts.owner(hint="client-0815").whose is Whose.UNSURE
        assert hosts.owner(hint="g").whose is Whose.GUEST
        assert hosts.owner(address=GUEST, hint="p").whose is Whose.UNSURE
        assert hosts.owner(hint="p").whose is Whose.OTHER
