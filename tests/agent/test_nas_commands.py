"""unlatch-nas-list and unlatch-nas-clear: whose locks are told, and what is written into the kernel's control files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.agent.agent_runner import Agent
from tests.agent.conftest import need_root
from tests.agent.nas_tree import LOCKD, NFSD, PROCESS, NasTree, names
from unlatch_agent import nasclear, naslist
from unlatch_agent.errors import AgentError

LIMIT_S = 20.0


@pytest.fixture
def nas(tmp_path: Path) -> NasTree:
    """A NAS with one exported volume, and nobody on it."""
    need_root()
    return NasTree(tmp_path)


def listed(nas: NasTree) -> dict[str, object]:
    """What unlatch-nas-list says of the volume."""
    return naslist.run(str(nas.volume), LIMIT_S, nas.places)


def refused(nas: NasTree, directory: object) -> str:
    """The code of a refusal to list."""
    with pytest.raises(AgentError) as caught:
        naslist.run(str(directory), LIMIT_S, nas.places)
    assert caught.value.next_step
    return caught.value.code


class TestList:
    """Who holds what."""

    def test_nobody(self, nas: NasTree) -> None:
        """It should list nothing of other file systems, and say who is connected and how long a lease is."""
        assert listed(nas) == {
            "lease_s": 90,
            "export": str(nas.volume),
            "dev": "fe:10",
            "locks": [],
            "clients": [],
            "connections": ["10.77.0.37"],
        }

    def test_nfsv3(self, nas: NasTree) -> None:
        """It should know lockd's locks as NFSv3 locks of nobody in particular, and a process's as the NAS's own."""
        nas.locks((LOCKD, "POSIX", "voms/ibdata1"), (PROCESS, "POSIX", "voms/aria_log_control"))
        found = listed(nas)
        assert found["locks"] == [
            {
                "inode": nas.inode(name),
                "path": str(nas.volume / name),
                "protocol": protocol,
                "client": None,
                "type": "write",
                "range": [0, None],
            }
            for name, protocol in (("voms/ibdata1", "nfsv3"), ("voms/aria_log_control", "local"))
        ]

    def test_nfsv4(self, nas: NasTree) -> None:
        """It should attribute NFSv4 locks to their client, tell each once, and count opens and delegations."""
        nas.locks((NFSD, "POSIX", "voms/ibdata1"))
        nas.client(
            4, "courtesy", ("open", "voms/ibdata1"), ("lock", "voms/ibdata1"), ("deleg", "voms/aria_log_control")
        )
        nas.client(12, "confirmed")
        found = listed(nas)
        assert [(lock["client"], lock["protocol"]) for lock in found["locks"]] == [("4", "nfsv4")]  # type: ignore[attr-defined]
        assert found["clients"] == [
            {
                "id": number,
                "address": "10.77.0.37",
                "name": "Linux NFSv4.2 dbvrtg4037",
                "status": status,
                "seconds_since_renewal": 12,
                "version": "4.2",
                "opens": opens,
                "delegations": opens,
            }
            for number, status, opens in (("4", "courtesy", 1), ("12", "confirmed", 0))
        ]

    def test_a_thread_that_has_ended(self, nas: NasTree) -> None:
        """It should know an NFSv4 lock by its client when the thread that took it is gone, and else say unknown."""
        nas.locks((7777, "POSIX", "voms/ibdata1"), (7777, "POSIX", "voms/aria_log_control"))
        nas.client(4, "confirmed", ("lock", "voms/ibdata1"))
        found = [(lock["protocol"], lock["client"]) for lock in listed(nas)["locks"]]  # type: ignore[attr-defined]
        assert found == [("nfsv4", "4"), ("unknown", None)]

    def test_two_clients_on_one_file(self, nas: NasTree) -> None:
        """It should name every client that can have a lock, when the kernel does not say which."""
        nas.locks((NFSD, "POSIX", "voms/ibdata1"))
        nas.client(4, "confirmed", ("lock", "voms/ibdata1"))
        nas.client(5, "confirmed", ("lock", "voms/ibdata1"))
        assert [lock["client"] for lock in listed(nas)["locks"]] == ["4", "5"]  # type: ignore[attr-defined]

    def test_state_without_a_range(self, nas: NasTree) -> None:
        """It should not leave out lock state whose range it does not see."""
        nas.client(4, "confirmed", ("lock", "voms/ibdata1"))
        (lock,) = listed(nas)["locks"]  # type: ignore[attr-defined]
        assert (lock["client"], lock["type"], lock["range"]) == ("4", "unknown", None)
        assert names(listed(nas), nas.volume) == ["voms/ibdata1"]

    def test_a_server_for_old_clients_only(self, nas: NasTree) -> None:
        """It should do without the client list of newer kernels."""
        (nas.proc / "fs/nfsd/clients").rmdir()
        assert listed(nas)["clients"] == []

    def test_what_is_not_exported(self, nas: NasTree) -> None:
        """It should refuse everything that clients cannot mount, and anything that is no directory's plain name."""
        (nas.root / "link").symlink_to(nas.root)
        assert refused(nas, nas.root) == "not_exported"
        assert refused(nas, nas.root / "link") == "not_exported"
        assert refused(nas, f"{nas.volume}/..") == "not_exported"
        assert refused(nas, nas.volume / "voms/ibdata1") == "not_exported"
        assert refused(nas, "dbod") == "usage"
        assert refused(nas, f"{nas.volume}\n") == "usage"
        assert naslist.run(str(nas.volume / "voms"), LIMIT_S, nas.places)["export"] == str(nas.volume / "voms")

    def test_a_host_that_serves_nothing(self, nas: NasTree) -> None:
        """It should say that this is no NFS server."""
        (nas.proc / "fs/nfsd/exports").unlink()
        assert refused(nas, nas.volume) == "no_nfsd"


class TestClear:
    """What is freed."""

    def test_a_file_system(self, nas: NasTree) -> None:
        """It should have the kernel drop the locks of the file system that the directory is on."""
        nas.locks((LOCKD, "POSIX", "voms/ibdata1"))
        found = nasclear.run(str(nas.volume / "voms"), None, False, LIMIT_S, nas.places)
        assert nas.asked("unlock_filesystem") == f"{nas.volume}\n"
        assert (found["locks_before"], found["locks_after"]) == (1, 1)  # these files are no kernel

    def test_a_client_that_is_gone_from_its_lease(self, nas: NasTree) -> None:
        """It should expire a courtesy client, and only that one."""
        other = nas.client(3, "courtesy", ("lock", "voms/ibdata1"))
        nas.client(4, "courtesy", ("lock", "voms/ibdata1"))
        nasclear.run(str(nas.volume), "4", False, LIMIT_S, nas.places)
        assert nas.asked("clients/4/ctl") == "expire\n"
        assert other.read_text() == nas.asked("unlock_filesystem") == ""

    def test_a_client_that_renews(self, nas: NasTree) -> None:
        """It should refuse a client whose lease is not over, unless the caller has proof and says so."""
        nas.client(4, "confirmed", ("open", "voms/ibdata1"))
        with pytest.raises(AgentError, match="renewed its lease 12 s ago") as caught:
            nasclear.run(str(nas.volume), "4", False, LIMIT_S, nas.places)
        assert (caught.value.code, caught.value.exit_code) == ("renewing", 3)
        assert nas.asked("clients/4/ctl") == ""
        nasclear.run(str(nas.volume), "4", True, LIMIT_S, nas.places)
        assert nas.asked("clients/4/ctl") == "expire\n"

    def test_a_client_without_anything_here(self, nas: NasTree) -> None:
        """It should not expire a client that has nothing on the file system: that id is another's by now."""
        nas.client(4, "courtesy")
        with pytest.raises(AgentError) as caught:
            nasclear.run(str(nas.volume), "4", True, LIMIT_S, nas.places)
        assert caught.value.code == "not_here"
        assert nas.asked("clients/4/ctl") == ""

    def test_again(self, nas: NasTree) -> None:
        """It should be done when the client is gone already."""
        assert nasclear.run(str(nas.volume), "4", False, LIMIT_S, nas.places)["locks_after"] == 0

    @pytest.mark.parametrize("client", ["../../x", "-1", "", "4/"])
    def test_ids(self, nas: NasTree, client: str) -> None:
        """It should take only numbers for a client."""
        with pytest.raises(AgentError) as caught:
            nasclear.run(str(nas.volume), client, True, LIMIT_S, nas.places)
        assert caught.value.code == "usage"

    def test_what_is_not_exported(self, nas: NasTree) -> None:
        """It should clear nothing that is not exported."""
        with pytest.raises(AgentError) as caught:
            nasclear.run("/", None, False, LIMIT_S, nas.places)
        assert caught.value.code == "not_exported"
        assert nas.asked("unlock_filesystem") == ""


@pytest.mark.parametrize("name", ["unlatch-nas-list", "unlatch-nas-clear", "unlatch-notify"])
def test_under_its_own_name(few_agent: Agent, tmp_path: Path, name: str) -> None:
    """It should know its own arguments and nothing else: no other verb, no other option, no shortened one."""
    command = Agent(few_agent.interpreter, tmp_path / name, tmp_path)
    command.file.write_bytes(few_agent.file.read_bytes())
    for wrong in (
        ["facts"],
        ["purge", "--incident", "x", "/"],
        ["/srv", "/etc"],
        ["/srv", "--conf"],
        ["/srv", "--confirmed"],
        ["--che"],
        ["--state=/etc"],
        ["--check", "--io-timeout", "5"],
    ):
        assert command.fresh("--json", *wrong).code == 2, wrong
    assert command.fresh("--help").code == 0
    assert command.fresh("--version").code == 0
    assert not command.state.exists()


def test_only_under_their_own_names(one_agent: Agent) -> None:
    """It should not do under the agent's own name what is meant for root."""
    for verb in ("notify", "nas-list", "nas-clear"):
        assert one_agent.fresh(verb, "/srv").code == 2
