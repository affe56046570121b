"""Who would be hit by freeing locks in one sweep: neighbours on the guest, other hosts, whoever starts meanwhile."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import pytest

from tests.unit.clearers import Clearer, tried
from tests.unit.fakes import World
from tests.unit.lanes import Run, refused
from tests.unit.world_parts import NFS, instance
from unlatch.errors import TransientError
from unlatch.models import (
    Answer,
    LiveLock,
    OpenerScan,
    Reach,
    Unchecked,
)
from unlatch.ports import Neighbour, PeerHost
from unlatch.start_right import no_starts

DATADIR = PurePosixPath("/ORA/dbs03/voms")


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A guest on NFSv3 whose lock notification works."""
    return World(tmp_path / "unlatch.db", volume=NFS)


def test_live_neighbour_is_spared(world: World) -> None:
    """It should not notify while another database of the guest runs: that would take its live locks as well."""
    alvmysql = instance("alvmysql")
    world.instances["alvmysql"] = alvmysql
    world.units["alvmysql"] = replace(world.units["voms"], running=True)
    world.neighbours = (Neighbour(alvmysql, takes_locks=True),)
    run = Run(world, instances=("voms",))
    run.all()
    assert tried(run) == [("notify", "not_possible")]
    assert "alvmysql runs on this guest (pid 4711)" in world.tickets.text
    assert "agent.notify" not in world.touched()
    assert len(run.row("recreate_files").result["files"]) == 2


def test_neighbour_without_locks_is_no_obstacle(world: World) -> None:
    """It should notify although a PostgreSQL of the guest runs: it has no locks to lose."""
    lxr = instance("lxr", engine="postgresql")
    world.instances["lxr"] = lxr
    world.units["lxr"] = replace(world.units["voms"], running=True)
    world.neighbours = (Neighbour(lxr, takes_locks=False),)
    run = Run(world, instances=("voms",))
    run.all()
    assert tried(run) == [("notify", "freed")]


def test_neighbour_that_comes_up_meanwhile_is_spared(world: World) -> None:
    """It should look again right before it notifies."""
    alvmysql = instance("alvmysql")
    world.instances["alvmysql"] = alvmysql
    world.units["alvmysql"] = replace(world.units["voms"])
    world.neighbours = (Neighbour(alvmysql, takes_locks=True),)
    run = Run(world, instances=("voms",))
    run.open()
    run.lane(end="verdict")
    world.units["alvmysql"].running = True
    run.lane(start="clear_locks")
    run.finish()
    assert tried(run) == [("notify", "refused")]
    assert "agent.notify" not in world.touched()


def test_start_of_a_neighbour_is_waited_for(world: World) -> None:
    """It should not notify while another lane starts its database, and go on when that lane does not end."""
    alvmysql = instance("alvmysql")
    world.neighbours = (Neighbour(alvmysql, takes_locks=True),)
    world.instances["alvmysql"] = alvmysql
    world.units["alvmysql"] = replace(world.units["voms"])
    run = Run(world, instances=("voms",))
    run.open()
    run.lane(end="verdict")
    world.store.real.take_lease("start:alvmysql", "another")
    world.evidence_life_s = 3600
    run.lane(start="clear_locks")
    assert tried(run) == [("notify", "failed")]
    assert "the right to start alvmysql, voms; taken by another" in run.row("clear_locks").result["tried"][0]["words"]
    assert world.store.lease_owner("start:voms") is None, "what was taken is given back"


@pytest.mark.parametrize("clears", [False, True])
def test_sign_of_life_while_it_waited_for_its_right(world: World, *, clears: bool) -> None:
    """It should look again when it had to wait longer than its evidence lives, and sweep nothing then."""
    world.clearer = Clearer(world) if clears else None
    run = Run(world)
    run.open()
    run.lane(end="verdict")
    world.store.real.take_lease("start:voms", "another")
    pause = world.clock.pause

    def passing(seconds: float) -> None:
        pause(seconds + world.evidence_life_s)
        world.answers["port"] = Answer.ALIVE
        world.store.real.release_lease("start:voms", "another")

    world.clock.pause = passing  # type: ignore[method-assign]
    assert "verdict alive" in refused(lambda: run.step("clear_locks")).what
    assert not {"agent.notify", "nas.clear"} & set(world.touched())
    assert world.store.lease_owner("start:voms") is None


def test_start_waits_for_a_sweep(world: World) -> None:
    """It should not start a database while another lane frees locks under it."""
    run = Run(world)
    run.open()
    run.lane(end="recreate_files")
    world.store.real.take_lease("start:voms", "another")
    with pytest.raises(TransientError, match="waited 600 s for the right to start voms; taken by another"):
        run.step("restart_database")
    assert world.units["voms"].starts == 0


@pytest.mark.parametrize(
    ("peers", "why"),
    [
        (None, "does not say who else may mount it"),
        ("holds", "mariadbd (pid 77) on dbvrtg4038 may lose its locks"),
        ("silent", "whether dbvrtg4038 holds locks on the volume could not be looked at"),
    ],
)
def test_clearing_a_whole_volume_spares_other_hosts(world: World, peers: str | None, why: str) -> None:
    """It should not clear a volume while any host that may mount it holds a lock there, or may hold one."""
    agent = PeerAgent(peers)
    world.peers = None if peers is None else (PeerHost("dbvrtg4038", agent),)  # type: ignore[arg-type]  # asked one thing
    world.clearer = Clearer(world, reaches=Reach.VOLUME)
    run = Run(world)
    run.all()
    assert ("clear", "not_possible") in tried(run)
    assert why in world.tickets.text
    assert "nas.clear" not in world.touched()


@dataclass
class PeerAgent:
    """Another host, asked for its locks only."""

    how: str | None

    def live_locks(self, _mountpoint: PurePosixPath | None = None) -> tuple[LiveLock, ...]:
        """One lock, or no answer."""
        if self.how == "silent":
            raise TransientError("dbvrtg4038 does not answer.")
        return (LiveLock(77, 5, "/ORA/dbs03", "mariadbd", "nas"),) if self.how == "holds" else ()


def test_clearing_a_whole_volume_when_nobody_is_hit(world: World) -> None:
    """It should clear it when every host was asked and none holds a lock."""
    world.peers = (PeerHost("dbvrtg4038", PeerAgent(None)),)  # type: ignore[arg-type]  # asked one thing
    world.clearer = Clearer(world, reaches=Reach.VOLUME)
    run = Run(world)
    run.all()
    assert tried(run) == [("clear", "freed")]


def test_locks_without_a_name_are_cleared_by_their_inode(world: World) -> None:
    """It should clear what the NAS lists by inode only: on NFS that is the guest's inode too."""
    world.clearer = Clearer(world, names_files=False)
    run = Run(world)
    run.all()
    assert tried(run) == [("clear", "freed")]


def test_clear_that_would_reach_further_than_planned_is_refused(world: World) -> None:
    """It should not clear when a lock that was taken meanwhile widens whom it would hit."""
    world.clearer = Clearer(world)
    run = Run(world)
    run.open()
    run.lane(end="verdict")
    world.clearer = Clearer(world, widens=True)
    run.lane(start="clear_locks")
    assert tried(run)[0] == ("clear", "refused")
    assert "nas.clear" not in world.touched()


def test_live_lock_of_this_guest_forbids_clearing_the_volume(world: World) -> None:
    """It should not clear a volume on which a process of the guest itself holds a lock."""
    world.live_locks = (LiveLock(99, 5, "/ORA/dbs03", "mariadbd", "nas"),)
    world.peers = ()
    world.clearer = Clearer(world, reaches=Reach.VOLUME)
    run = Run(world)
    run.all()
    assert ("clear", "not_possible") in tried(run)
    assert "mariadbd (pid 99) on dbvrtg4037 would lose its locks" in world.tickets.text


def test_live_lock_that_was_taken_since_the_plan(world: World) -> None:
    """It should look again right before it clears a volume: a process of the guest may hold a lock by now."""
    world.peers = ()
    world.clearer = Clearer(world, reaches=Reach.VOLUME)
    run = Run(world)
    run.open()
    run.lane(end="verdict")
    world.live_locks = (LiveLock(99, 5, "/ORA/dbs03", "mariadbd", "nas"),)
    run.lane(start="clear_locks")
    assert tried(run)[0] == ("clear", "refused")
    assert "nas.clear" not in world.touched()


def test_neighbour_that_could_not_be_looked_at_is_spared(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It should not notify when nobody can tell whether another database of the guest runs."""
    alvmysql = instance("alvmysql")
    world.neighbours = (Neighbour(alvmysql, takes_locks=True),)
    openers = world.agent.openers
    hidden = OpenerScan((), (Unchecked(7, "Permission denied"),))
    monkeypatch.setattr(world.agent, "openers", lambda of, names: hidden if of is alvmysql else openers(of, names))
    run = Run(world, instances=("voms",))
    run.all()
    assert tried(run) == [("notify", "not_possible")]
    assert "whether alvmysql runs could not be looked at: Permission denied" in world.tickets.text
    assert "agent.notify" not in world.touched()


@pytest.mark.parametrize(
    ("reach", "kept"),
    [
        (Reach.FILES, {"voms"}),
        (Reach.CLIENT, {"voms", "beside"}),
        (Reach.VOLUME, {"voms", "beside", "elsewhere"}),
    ],
)
def test_rights_that_a_sweep_keeps(world: World, reach: Reach, kept: set[str]) -> None:
    """It should keep those from starting whose locks it could hit, on its guest or on the volume, and no others."""
    near = (instance("beside"), instance("elsewhere", guest="dbvrtg4038"))
    world.neighbours = tuple(Neighbour(one, takes_locks=True) for one in near)
    run = Run(world)
    run.open()
    with no_starts(world.case(run.incident, "voms"), world.ports, reach):
        taken = {name for name in ("voms", "beside", "elsewhere") if world.store.lease_owner(f"start:{name}")}
    assert taken == kept
    assert not any(world.store.lease_owner(f"start:{name}") for name in kept)


def test_rights_are_taken_all_or_none(world: World) -> None:
    """It should keep none of the rights while it waits for another one, or two sweeps could wait for each other."""
    world.neighbours = (Neighbour(instance("zz"), takes_locks=True),)
    run = Run(world)
    run.open()
    world.store.real.take_lease("start:zz", "another")
    seen: list[str | None] = []
    pause = world.clock.pause

    def noted(seconds: float) -> None:
        seen.append(world.store.lease_owner("start:voms"))
        pause(seconds)

    world.clock.pause = noted  # type: ignore[method-assign]
    case = world.case(run.incident, "voms")
    with pytest.raises(TransientError, match="taken by another"), no_starts(case, world.ports, Reach.CLIENT):
        pass
    assert set(seen) == {None}
