"""What one kind of NAS does: ONTAP's pages, moods and certificates, Linux's NFSv4 clients, a site's own commands."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from tests.contract.lock_clearers import ontap as ontap_samples
from tests.contract.lock_clearers.samples import GUEST, volume
from unlatch.errors import CheckFailedError, ConfigError, RefusedError, TransientError
from unlatch.lock_clearers import NasAccess
from unlatch.lock_clearers.command import SiteCommands
from unlatch.lock_clearers.linux_nfsd import LinuxNfsd
from unlatch.lock_clearers.ontap import Ontap
from unlatch.models import NasLock, NasView, Reach
from unlatch.ports import CommandAnswer
from unlatch.root_commands import NAS_CLEAR, NAS_LIST


@pytest.fixture
def ontap(tmp_path: Path) -> Iterator[ontap_samples.OntapNas]:
    with ontap_samples.nas(tmp_path) as nas:
        yield nas


class TestOntap:
    """Over real TLS, with answers as its reference describes them."""

    def test_all_pages_are_read(self, ontap: ontap_samples.OntapNas) -> None:
        """It should follow the next links to the end."""
        ontap.records = [ontap_samples.record(f"voms/t{n}.ibd", GUEST, n) for n in range(7)]
        view = Ontap(ontap.access).list([])
        assert len(view.locks) == 7
        assert len({lock.id for lock in view.locks}) == 7
        assert len(ontap.requests) == 4

    @pytest.mark.parametrize(
        "href", ["https://127.0.0.2/api/protocols/locks?start=2", "//evil/api/protocols/locks", "/x"]
    )
    def test_the_password_goes_to_no_other_server(self, ontap: ontap_samples.OntapNas, href: str) -> None:
        """It should follow no next link to elsewhere."""
        ontap.next_href = href
        with pytest.raises(CheckFailedError, match="next page"):
            Ontap(ontap.access).list([])

    def test_a_busy_server_is_asked_again(self, ontap: ontap_samples.OntapNas) -> None:
        """It should wait as long as it is told, else longer each time, and then go on."""
        pauses: list[float] = []
        clearer = Ontap(ontap.access, pauses.append)
        ontap.busy = [(429, "3"), (503, None), (429, "86400")]
        assert len(clearer.list([]).locks) == 3
        assert pauses == [3.0, 2.0, 10.0]
        ontap.busy = [(429, None)]
        assert clearer.clear(clearer.list([]).locks[:1]).freed == 1

    def test_a_server_that_stays_busy(self, ontap: ontap_samples.OntapNas) -> None:
        """It should give up after a few requests with an error that is worth another try, and break nothing."""
        ontap.busy = [(429, None)] * 9
        locks = (NasLock(None, None, "nfsv3", id=ontap.records[0]["uuid"]),)
        with pytest.raises(TransientError, match="429"):
            Ontap(ontap.access, lambda _: None).clear(locks)
        assert len(ontap.busy) == 4
        assert len(ontap.records) == 3

    def test_an_unknown_certificate_is_refused(self, ontap: ontap_samples.OntapNas) -> None:
        """It should send no password to a server whose certificate nobody vouches for, unless it is told to."""
        assert ontap.access.http is not None
        unknown = dataclasses.replace(ontap.access.http, verify=True)
        with pytest.raises(ConfigError, match="certificate") as refused:
            Ontap(dataclasses.replace(ontap.access, http=unknown)).list([])
        assert "verify" in refused.value.next_step
        assert ontap.requests == []
        missing = dataclasses.replace(ontap.access.http, verify="/nonexistent/ca.pem")
        with pytest.raises(ConfigError, match=r"ca\.pem"):
            Ontap(dataclasses.replace(ontap.access, http=missing)).list([])

    def test_no_password_in_the_clear(self, ontap: ontap_samples.OntapNas) -> None:
        """It should refuse plain HTTP, and a volume without an HTTP connection, before it sends anything."""
        assert ontap.access.http is not None
        plain = dataclasses.replace(ontap.access.http, base_url="http://127.0.0.1:1")
        for http, words in ((plain, "in the clear"), (None, "needs HTTPS")):
            with pytest.raises(ConfigError, match=words):
                Ontap(dataclasses.replace(ontap.access, http=http))

    def test_a_wrong_password(self, ontap: ontap_samples.OntapNas) -> None:
        """It should say how the user is made, try once, and not show the password."""
        assert ontap.access.http is not None
        wrong = dataclasses.replace(ontap.access.http, password="not-it")
        access = dataclasses.replace(ontap.access, http=wrong)
        with pytest.raises(ConfigError, match="refused the login of unlatch") as refused:
            Ontap(access).list([])
        assert "security login create -vserver vs1 -user-or-group-name unlatch" in refused.value.next_step
        assert "not-it" not in f"{refused.value}{access!r}"
        assert len(ontap.requests) == 1

    def test_listing_needs_less_than_breaking(self, ontap: ontap_samples.OntapNas) -> None:
        """It should ask for read-only access when listing is what is refused."""
        ontap.forbid_all()
        with pytest.raises(ConfigError) as refused:
            Ontap(ontap.access).list([])
        assert "-api /api/protocols/locks -access readonly" in refused.value.next_step

    def test_what_is_not_told_stays_untold(self, ontap: ontap_samples.OntapNas) -> None:
        """It should give NFSv4 locks no address, leave caches out, and map no path outside the volume."""
        ontap.records = [
            ontap_samples.record("voms/ibdata1", None, 1, protocol="nfsv4.1"),
            ontap_samples.record("voms/ibdata1", "0.0.0.0", 2, protocol="nfsv4"),
            ontap_samples.record("voms/a", GUEST, 3, type="delegation"),
            ontap_samples.record("voms/b", GUEST, 4, type="op_lock", protocol="cifs"),
            ontap_samples.record("voms/c", GUEST, 5, type="share_level", protocol="cifs"),
            ontap_samples.record("voms/d", GUEST, 6, type="new in 9.20", protocol="rdma"),
            ontap_samples.record("voms/e", GUEST, 7, path="/junction/dbs030/voms/e"),
            ontap_samples.record("voms/f", GUEST, 8, path="/junction/dbs03/../dbs04/voms/f"),
        ]
        locks = Ontap(ontap.access).list([]).locks
        assert [(lock.protocol, lock.address, lock.path and lock.path.name) for lock in locks] == [
            ("nfsv4", None, "ibdata1"),
            ("nfsv4", None, "ibdata1"),
            ("smb", GUEST, "c"),
            ("unknown", GUEST, "d"),
            ("nfsv3", GUEST, None),
            ("nfsv3", GUEST, None),
        ]

    def test_a_lock_without_an_id_is_not_broken(self, ontap: ontap_samples.OntapNas) -> None:
        """It should break none when one of them cannot be named."""
        locks = (*Ontap(ontap.access).list([]).locks, NasLock(PurePosixPath("/x"), None, "nfsv3"))
        with pytest.raises(RefusedError, match="no id"):
            Ontap(ontap.access).clear(locks)
        assert len(ontap.records) == 3

    def test_an_id_stays_one_path_segment(self, ontap: ontap_samples.OntapNas) -> None:
        """It should not let an odd id reach another part of the interface."""
        answer = Ontap(ontap.access).clear([NasLock(None, None, "nfsv3", id="../../storage/volumes/1?x")])
        assert answer.freed == 0
        assert ontap.requests == ["DELETE /api/protocols/locks/..%2F..%2Fstorage%2Fvolumes%2F1%3Fx"]

    @pytest.mark.parametrize(
        ("privileges", "ok", "words"),
        [
            ({"/api/protocols/locks": "all"}, True, "access all"),
            ({"/api": "all"}, True, "access all"),
            ({"/api": "all", "/api/protocols/locks": "readonly"}, False, "access readonly"),
            ({"/api/protocols": "read_create_modify"}, False, "access read_create_modify"),
            ({"/api/storage": "all", "/api/protocols/lock": "all"}, False, "access none"),
            ({"DEFAULT": "none", "vserver locks": "all"}, None, "commands and no REST paths"),
            (None, None, "does not let unlatch read /api/security/accounts"),
        ],
    )
    def test_the_right_to_break_is_told_without_breaking(
        self, ontap: ontap_samples.OntapNas, privileges: dict[str, str] | None, ok: bool | None, words: str
    ) -> None:
        """It should read the login's own role, with the grant where that lacks the right, and delete nothing."""
        ontap.privileges = privileges
        leave = Ontap(ontap.access).may_clear()
        assert leave.ok is ok
        assert words in leave.why
        if ok is False:
            assert "-role locks -api /api/protocols/locks -access all (modify" in (leave.grant or "")
        if privileges is None:
            assert (leave.grant or "").count("-access readonly") == 2
        assert ok is not None or leave.why.startswith("cannot be told without clearing")
        assert {request.split()[0] for request in ontap.requests} == {"GET"}
        assert len(ontap.records) == 3

    def test_whose_account_it_is(self, ontap: ontap_samples.OntapNas) -> None:
        """It should take the account of the volume's SVM, and not guess between others."""
        ontap.account_owners = ("cluster1", "vs1")
        assert Ontap(ontap.access).may_clear().ok is True
        for owners in ((), ("cluster1", "vs2")):
            ontap.account_owners = owners
            assert Ontap(ontap.access).may_clear().ok is None

    def test_a_wrong_password_is_no_unknown_right(self, ontap: ontap_samples.OntapNas) -> None:
        """It should be an error, as it is when locks are listed."""
        assert ontap.access.http is not None
        wrong = dataclasses.replace(ontap.access.http, password="not-it")
        with pytest.raises(ConfigError, match="refused the login"):
            Ontap(dataclasses.replace(ontap.access, http=wrong)).may_clear()


CLIENTS = [
    {"id": "4", "address": GUEST, "name": "Linux NFSv4.2 dbvrtg4037", "status": "courtesy",
     "seconds_since_renewal": 140, "version": "4.2", "opens": 2, "delegations": 0},
]  # fmt: skip


def _locked(inode: int, protocol: str, client: str | None, **more: Any) -> dict[str, Any]:
    return {"inode": inode, "path": None, "protocol": protocol, "client": client, "type": "write"} | more


class LinuxAnswers:
    """A NAS that gives prepared answers, in order, and remembers the commands."""

    def __init__(self, *answers: CommandAnswer | dict[str, Any]) -> None:
        self.answers = list(answers)
        self.asked: list[Sequence[str]] = []
        self.clearer = LinuxNfsd(NasAccess(volume("/srv/dbod/dbs03"), self.run))

    def run(self, argv: Sequence[str]) -> CommandAnswer:
        self.asked.append(list(argv))
        answer = self.answers.pop(0)
        if isinstance(answer, CommandAnswer):
            return answer
        whole = {"schema": 1, "ok": True, **answer}
        return CommandAnswer(answer.get("code", 0), f"sudo: unable to resolve host nas\n{json.dumps(whole)}\n")


def _listed(*locks: dict[str, Any]) -> dict[str, Any]:
    return {"verb": "nas-list", "lease_s": 90, "locks": list(locks), "clients": CLIENTS, "connections": [GUEST]}


class TestLinuxNfsd:
    """NFSv4 clients have names; NFSv3 ones have none."""

    def test_a_v4_lock_is_its_clients(self) -> None:
        """It should carry the client's id and address, the lease, and the guest's path where the NAS found one."""
        lock = _locked(77, "nfsv4", "4", path="/srv/dbod/dbs03/voms/ibdata1")
        view = LinuxAnswers(_listed(lock)).clearer.list([])
        assert view.locks == (NasLock(PurePosixPath("/ORA/dbs03/voms/ibdata1"), 77, "nfsv4", "4", GUEST),)
        assert (view.lease_s, view.connections) == (90, (GUEST,))
        assert (view.clients[0].status, view.clients[0].seconds_since_renewal) == ("courtesy", 140)

    def test_reach(self) -> None:
        """It should be one client's only when every lock names one: anything else takes the whole volume."""
        reach = LinuxAnswers().clearer.reach
        four, three = NasLock(None, 1, "nfsv4", "4"), NasLock(None, 1, "nfsv3")
        assert reach(NasView((four, four))) is Reach.CLIENT
        assert reach(NasView((four, three))) is Reach.VOLUME
        assert reach(NasView((NasLock(None, 1, "nfsv4"),))) is Reach.VOLUME
        assert reach(NasView(())) is Reach.VOLUME

    def test_a_client_is_expired_alone(self) -> None:
        """It should touch nothing else of the volume when all locks are one client's."""
        nas = LinuxAnswers({"verb": "nas-clear", "locks_before": 9, "locks_after": 7})
        answer = nas.clearer.clear([NasLock(None, 77, "nfsv4", "4", GUEST), NasLock(None, 78, "nfsv4", "4", GUEST)])
        assert answer.freed == 2
        assert nas.asked == [["sudo", "-n", NAS_CLEAR, "--json", "/srv/dbod/dbs03", "--client", "4"]]

    def test_a_client_that_renews_is_refused(self) -> None:
        """It should pass the NAS's refusal on as one, and never insist."""
        error = {"code": "renewing", "message": "client 4 renewed its lease 3 s ago", "next": "wait"}
        nas = LinuxAnswers({"ok": False, "code": 3, "error": error})
        with pytest.raises(RefusedError, match="renewed its lease 3 s ago"):
            nas.clearer.clear([NasLock(None, 77, "nfsv4", "4", GUEST)])
        assert not any("--confirmed" in argv for argv in nas.asked)

    def test_a_lock_of_the_nas_itself_is_refused(self) -> None:
        """It should not try to clear what no NFS client holds."""
        nas = LinuxAnswers()
        with pytest.raises(RefusedError, match="process of the NAS"):
            nas.clearer.clear([NasLock(None, 77, "local")])
        assert nas.asked == []

    def test_a_missing_command_names_both_lines(self) -> None:
        """It should say how to install it and which sudoers line is missing, for the login user that there is."""
        nas = LinuxAnswers(CommandAnswer(127, "sh: 1: not found"), CommandAnswer(0, "dbod\n"))
        with pytest.raises(ConfigError) as missing:
            nas.clearer.list([])
        assert f"install -o root -g root -m 0755 unlatch-agent.pyz {NAS_LIST}" in missing.value.next_step
        assert f"dbod ALL=(root) NOPASSWD: {NAS_LIST}" in missing.value.next_step

    @pytest.mark.parametrize(
        "output", ["", "Killed", '{"schema": 1, "ok": true, "locks": [', '{"schema": 2, "ok": true}']
    )
    def test_half_an_answer_is_none(self, output: str) -> None:
        """It should try again rather than take a cut-off list for a short one."""
        with pytest.raises(TransientError, match="did not answer with its JSON document"):
            LinuxAnswers(CommandAnswer(0, output)).clearer.list([])


class TestSiteCommands:
    """The site's own commands."""

    def _of(self, output: str, **nas: Any) -> SiteCommands:
        declared = volume("/vol/dbs03", **{"list": ["list-locks"], "clear": ["clear-locks"], **nas})
        return SiteCommands(NasAccess(declared, lambda _: CommandAnswer(0, output)))

    def test_paths_of_either_side(self) -> None:
        """It should take names as the NAS sees them, and names as the guest sees them."""
        lines = [{"path": "/vol/dbs03/voms/a"}, {"path": "/ORA/dbs03/voms/b"}, {"path": "/etc/c"}, {"path": None}]
        view = self._of("\n".join(map(json.dumps, lines))).list([])
        assert [str(lock.path) for lock in view.locks] == ["/ORA/dbs03/voms/a", "/ORA/dbs03/voms/b", "None", "None"]
        assert {lock.protocol for lock in view.locks} == {"unknown"}

    @pytest.mark.parametrize(
        "line",
        ["no locks", "[]", "{}", '{"path": 3}', '{"path": "/a", "inode": "x"}', '{"path": "/a", "protocol": "nfs"}'],
    )
    def test_every_line_must_be_a_lock(self, line: str) -> None:
        """It should stop at the first line that is none, and quote it."""
        good = json.dumps({"path": "/vol/dbs03/a"})
        with pytest.raises(CheckFailedError, match="Line 2") as found:
            self._of(f"{good}\n{line}\n").list([])
        assert line[:20] in str(found.value)

    def test_without_ids_the_whole_volume_is_cleared(self) -> None:
        """It should say so beforehand, and give the command no arguments."""
        asked: list[Sequence[str]] = []

        def run(argv: Sequence[str]) -> CommandAnswer:
            asked.append(argv)
            return CommandAnswer(0, "")

        declared = volume("/vol/dbs03", list=["list-locks"], clear=["clear-locks", "--yes"])
        clearer = SiteCommands(NasAccess(declared, run))
        locks = (NasLock(None, 1, "nfsv3"), NasLock(None, 2, "nfsv3"))
        assert clearer.reach(NasView(locks)) is Reach.VOLUME
        clearer.clear(locks)
        assert asked == [("clear-locks", "--yes")]
        with pytest.raises(RefusedError, match="some have none"):
            clearer.clear((*locks, NasLock(None, 3, "nfsv3", id="3")))

    def test_no_clear_command(self) -> None:
        """It should list without one, and say what is missing when it is to clear."""
        clearer = self._of("", clear=[])
        assert clearer.list([]).locks == ()
        with pytest.raises(ConfigError) as missing:
            clearer.clear([NasLock(None, 1, "nfsv3", id="3")])
        assert "volumes.dbs03.nas.clear" in missing.value.next_step
