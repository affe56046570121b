"""The remedies that copy nothing, for files on NFS: what is tried, in which order, and what is told of it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path, PurePosixPath

import pytest

from tests.unit.clearers import Clearer, tried
from tests.unit.fakes import World
from tests.unit.lanes import Run, refused
from tests.unit.world_parts import DIED_AT, NFS
from unlatch.errors import ConfigError, RefusedError, TransientError
from unlatch.models import (
    Answer,
    Policy,
    RemedyPolicy,
)
from unlatch.ports import CommandAnswer

DATADIR = PurePosixPath("/ORA/dbs03/voms")


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A guest on NFSv3 whose lock notification works."""
    return World(tmp_path / "unlatch.db", volume=NFS)


def test_notification_spares_the_copy(world: World) -> None:
    """It should notify, see the locks gone, copy nothing, and start the database."""
    run = Run(world)
    run.all()
    assert tried(run) == [("notify", "freed")]
    assert {PurePosixPath(p) for p in run.row("clear_locks").result["freed"]} == {
        DATADIR / "ibdata1",
        DATADIR / "aria_log_control",
    }
    assert run.row("recreate_files").result == {"files": []}
    assert "agent.prepare" not in world.touched()
    assert world.units["voms"].running
    assert "notify: freed: told nas: acknowledged by nas" in world.tickets.text


def test_copy_follows_when_nobody_hears(world: World) -> None:
    """It should record that the notification had no effect, and copy."""
    world.notify_frees = False
    run = Run(world)
    run.all()
    assert tried(run) == [("notify", "no_effect")]
    assert run.row("clear_locks").result["freed"] == []
    assert len(run.row("recreate_files").result["files"]) == 2
    assert "no answer from nas" in world.tickets.text


def test_missing_privilege_is_told_with_its_grant_and_the_next_remedy_is_tried(world: World) -> None:
    """It should go on without the notification when root is not to be had, and say what would grant it."""
    world.notify_error = ConfigError(
        "sudo refuses unlatch-notify.", next_step="dbod ALL=(root) NOPASSWD: unlatch-notify"
    )
    world.clearer = Clearer(world)
    run = Run(world)
    run.all()
    assert tried(run) == [("clear", "freed"), ("notify", "no_privilege")]
    (option,) = [o for o in run.row("verdict").result["plan"]["options"] if o["remedy"] == "notify"]
    told = run.row("clear_locks").result["tried"][1]
    assert (option["allowed"], option["why"], option["grant"]) == (False, told["words"], told["grant"])
    assert told["grant"] == "dbod ALL=(root) NOPASSWD: unlatch-notify"
    assert world.tickets.text.count(f"**Missing privilege; to grant it:** {told['grant']}") == 2, "plan and outcome"


def test_privilege_that_is_taken_away_after_the_plan_looks_the_same(world: World) -> None:
    """It should tell a missing right in one shape, whether the plan or the act has found it."""
    run = Run(world)
    run.open()
    run.lane(end="verdict")
    world.notify_error = ConfigError("sudo refuses unlatch-notify.", next_step="grant it to dbod")
    run.step("clear_locks")
    (told,) = run.row("clear_locks").result["tried"]
    assert (told["outcome"], told["words"], told["grant"]) == (
        "no_privilege", "sudo refuses unlatch-notify.", "grant it to dbod",
    )  # fmt: skip
    assert run.row("clear_locks").result["freed"] == []


def test_privilege_that_turns_out_to_be_missing_is_told_too(world: World) -> None:
    """It should keep the grant of a clear that the NAS refuses, and go on to the next remedy: 2014 failed on this."""
    world.clearer = Clearer(world, error=ConfigError("locks break is refused.", next_step="grant role locks"))
    run = Run(world)
    run.all()
    assert tried(run) == [("clear", "no_privilege"), ("notify", "freed")]
    assert run.row("clear_locks").result["tried"][0]["grant"] == "grant role locks"
    assert "**Missing privilege; to grant it:** grant role locks" in world.tickets.text


@pytest.mark.parametrize("error", [TransientError("the NAS does not answer."), RefusedError("it is not yours.")])
def test_remedy_that_fails_gives_way_to_the_next(world: World, error: Exception) -> None:
    """It should not hang on a NAS that does not answer: the next remedy may work."""
    world.clearer = Clearer(world, error=error)
    run = Run(world)
    run.all()
    assert [outcome for _, outcome in tried(run)][1:] == ["freed"]
    assert run.state in {"closed", "awaiting_purge"}


def test_lease_is_waited_for(world: World) -> None:
    """It should wait on NFSv4 until the server lets go, and copy nothing."""
    world.nfs_version = "4.2"
    world.lease_over_at = DIED_AT + timedelta(seconds=97)
    run = Run(world)
    run.all()
    assert tried(run) == [("wait_lease", "freed")]
    assert run.row("recreate_files").result == {"files": []}


def test_lease_that_never_ends_is_not_waited_for_for_ever(world: World) -> None:
    """It should copy when the locks outlive the lease."""
    world.nfs_version = "4.2"
    run = Run(world)
    run.all()
    assert tried(run) == [("wait_lease", "no_effect")]
    assert len(run.row("recreate_files").result["files"]) == 2


def test_notification_that_is_still_on_its_way_is_told(world: World) -> None:
    """It should warn that the boot's own notification may take the new locks away when it gets through at last."""
    world.notify_error = ConfigError("sudo refuses unlatch-notify.", next_step="grant it")
    world.still_notifying = True
    run = Run(world)
    run.all()
    assert "sm-notify of this boot (pid 815)" in run.row("restart_database").result["warning"]
    assert "pkill -x sm-notify" in world.tickets.text


def test_notification_that_cannot_be_looked_for_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It should not take a guest without pgrep for one on which no notification is on its way."""
    world.notify_error = ConfigError("sudo refuses unlatch-notify.", next_step="grant it")
    monkeypatch.setattr(world.agent, "command", lambda _: CommandAnswer(127, "pgrep: command not found"))
    run = Run(world)
    run.all()
    assert "could not be seen: pgrep -x sm-notify ended with exit code 127" in world.tickets.text


def test_policy_without_a_copy_ends_in_a_refusal(world: World) -> None:
    """It should refuse when nothing that the site allows has freed the locks, and say what would help."""
    world.policy = Policy(remedies=RemedyPolicy(forbid=("recreate",)))
    world.notify_frees = False
    run = Run(world)
    run.open()
    run.lane(end="verdict")
    error = refused(lambda: run.step("clear_locks"))
    assert "still locked, and the site's policy forbids the copy" in error.what
    assert world.swaps == {}
    assert world.units["voms"].starts == 0


def test_forbidden_copy_is_not_made_where_nothing_else_applies(tmp_path: Path) -> None:
    """It should refuse on a local volume too, where the copy is the only remedy there is."""
    world = World(tmp_path / "unlatch.db")
    world.policy = Policy(remedies=RemedyPolicy(forbid=("recreate",)))
    run = Run(world)
    run.open()
    run.lane(end="verdict")
    assert "policy forbids the copy" in refused(lambda: run.step("clear_locks")).what
    assert world.swaps == {}


def test_sign_of_life_stops_every_remedy(world: World) -> None:
    """It should free nothing once a later look finds a sign of life."""
    run = Run(world)
    run.open()
    run.lane(end="verdict")
    world.answers["port"] = Answer.ALIVE
    world.clock.pause(world.evidence_life_s + 1)
    assert "verdict alive" in refused(lambda: run.step("clear_locks")).what
    assert world.touched() == ["agent.service hold"]


def test_dry_run_tries_nothing(world: World) -> None:
    """It should show what it would try, and notify nobody."""
    run = Run(world, dry_run=True)
    run.all()
    assert run.row("clear_locks").result["would_try"] == ["notify", "recreate"]
    assert world.touched() == []


def test_local_locks_are_refused(world: World) -> None:
    """It should refuse a mount with nolock before it judges anything: a free file proves nothing there."""
    world.local_lock = "all"
    run = Run(world)
    run.open()
    run.lane(end="hold_service")
    assert "mounted with local locks (all)" in refused(lambda: run.step("verdict")).what


def test_killed_at_any_call_and_run_again(tmp_path: Path) -> None:
    """It should come to the same end when the worker dies before any call of the remedies, and runs once more."""
    calls = _calls_of_a_whole_run(World(tmp_path / "whole.db", volume=NFS))
    for number in range(*calls):
        world = World(tmp_path / f"{number}.db", volume=NFS)
        run = Run(world)
        world.dies_at = number
        run.all()
        assert world.units["voms"].starts == 1, number
        assert world.swaps == {DATADIR / "server.pid": 1}, number
        assert len(run.row("clear_locks").result["freed"]) == 2, number
        assert world.store.lease_owner("start:voms") is None, number


def _calls_of_a_whole_run(world: World) -> tuple[int, int]:
    """The numbers of the calls from the plan to the start."""
    run = Run(world)
    run.open()
    run.lane(end="hold_service")
    first = len(world.calls)
    run.lane(start="verdict", end="restart_database")
    return first + 12, len(world.calls) + 12  # `open` and `wait_for_guest` of a whole run come before


def test_service_of_a_guest_that_booted_again_is_held_before_a_remedy(world: World) -> None:
    """It should hold the service anew: a boot while a person was asked has forgotten the hold."""
    run = Run(world)
    run.open()
    run.lane(end="verdict")
    world.units["voms"].held = False
    held: list[bool] = []
    notify = world.agent.notify

    def noted(*, check: bool = False) -> object:
        if not check:
            held.append(world.units["voms"].held)
        return notify(check=check)

    world.agent.notify = noted  # type: ignore[method-assign, assignment]
    run.step("clear_locks")
    assert held == [True]
