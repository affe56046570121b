"""How the logs do: told once per change, whatever dies in between, and never silently."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import timedelta
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.fakes import Inventory, World
from tests.unit.world_parts import DIED_AT, HYPERVISOR, Killed
from unlatch.errors import TransientError
from unlatch.models import HypervisorLog, Sight, SourceHealth, SourceState
from unlatch.source_health import judged, silent_at, source_name
from unlatch.source_watch import OVERDUE, SourcePorts, note_sights, silences, sources_now

OK, UNREACHABLE, MISSING, WRONG, SILENT = SourceState
LOG = HypervisorLog("xend", PurePosixPath("/x.log"), "UTC", silent_after_s=60)
NAME = source_name("hv01", LOG)


class Told:
    """Alerts that were given, or the error that stands in their way."""

    def __init__(self) -> None:
        """Nobody was told anything yet."""
        self.titles: list[str] = []
        self.error: Exception | None = None

    def alert(self, key: str, title: str, words: str) -> None:
        """See `ports.Alerts`."""
        if self.error:
            raise self.error
        assert key == f"source:{NAME}"
        assert words
        self.titles.append(title)


@pytest.fixture
def told() -> Told:
    """Nobody has been told."""
    return Told()


def site(world: World, told: Told) -> SourcePorts:
    """One hypervisor with one log that may be silent for a minute."""
    known = Inventory(world)
    known.hypervisors = {"hv01": dataclasses.replace(HYPERVISOR, logs=(LOG,))}
    return SourcePorts(known, world.store, world.clock, told)


@pytest.fixture
def ports(world: World, told: Told) -> SourcePorts:
    """What noting needs."""
    return site(world, told)


def reached(ports: SourcePorts, *, heard: bool = False) -> dict[str, Sight]:
    """A look that went well."""
    now = ports.clock.now()
    return {NAME: Sight(OK, reached_at=now, line_at=now if heard else None)}


AWAY = {NAME: Sight(UNREACHABLE, "hv01 refuses SSH connections")}


def test_alert_once_per_change(ports: SourcePorts, told: Told, world: World) -> None:
    """It should tell that a log is out of reach once, however often that is seen, and that it is back once."""
    for sights in (reached(ports), AWAY, AWAY, AWAY, {}, reached(ports), reached(ports), AWAY):
        note_sights(ports, sights)
        world.clock.pause(5)
    assert [title.split(" is ")[1].split(":")[0] for title in told.titles] == [
        "unreachable", "read again", "unreachable",
    ]  # fmt: skip
    changes = [r for r in world.store.audit_rows() if r.step == "watch_source"]
    assert [r.phase for r in changes] == ["unreachable", "ok", "unreachable"]


def test_first_look_at_a_log_that_does_well_is_no_news(ports: SourcePorts, told: Told) -> None:
    """It should tell nobody that all is well from the beginning, and tell of one that does badly from the beginning."""
    note_sights(ports, reached(ports))
    assert told.titles == []
    (row,) = ports.store.sources()
    assert (row.state, row.reached_at) == (OK, DIED_AT + timedelta(seconds=3))


def test_silence_longer_than_its_limit(ports: SourcePorts, told: Told, world: World) -> None:
    """It should call a log silent that can be read and says nothing, from its limit on and until its next line."""
    note_sights(ports, reached(ports, heard=True))
    (due,) = silences(ports.inventory, ports.store)
    assert due == ports.clock.now() + timedelta(seconds=60)
    world.clock.pause(60)
    note_sights(ports, reached(ports))
    assert told.titles == []
    world.clock.pause(1)
    doing = note_sights(ports, reached(ports))
    assert doing == {SILENT: 1}
    assert "silent" in told.titles[0]
    assert silences(ports.inventory, ports.store) == []
    world.clock.pause(300)
    note_sights(ports, reached(ports))
    note_sights(ports, reached(ports, heard=True))
    assert [row.state for row in ports.store.sources()] == [OK]
    assert len(told.titles) == 2


def test_one_that_never_said_anything_is_silent_too(ports: SourcePorts, world: World) -> None:
    """It should count from the first look, and anew from the return of a hypervisor that was away."""
    note_sights(ports, reached(ports))
    world.clock.pause(61)
    assert note_sights(ports, AWAY) == {UNREACHABLE: 1}
    assert note_sights(ports, reached(ports)) == {OK: 1}
    world.clock.pause(61)
    assert note_sights(ports, reached(ports)) == {SILENT: 1}


def test_without_a_limit_it_may_be_silent_for_ever(world: World) -> None:
    """It should say nothing of a quiet log that nobody set a limit for."""
    quiet = dataclasses.replace(LOG, silent_after_s=None)
    health = judged("hv01", quiet, None, Sight(OK, reached_at=DIED_AT), now=DIED_AT)
    years_later = DIED_AT + timedelta(days=900)
    again = judged("hv01", quiet, health, Sight(OK, reached_at=years_later), now=years_later)
    assert again.state is OK
    assert silent_at(again, quiet) is None


def test_nobody_could_be_told(ports: SourcePorts, told: Told, world: World) -> None:
    """It should tell at the next look what it could not tell at this one."""
    told.error = TransientError("the mail server is down")
    note_sights(ports, AWAY)
    told.error = None
    assert [row.told_at for row in ports.store.sources()] == [None]
    note_sights(ports, {})
    note_sights(ports, {})
    assert len(told.titles) == 1


def test_killed_anywhere_it_is_told_all_the_same(new_world: Callable[..., World]) -> None:
    """It should lose no alert to a kill between two writes; at worst it tells twice."""
    counting = new_world()
    note_sights(site(counting, Told()), AWAY)
    for index, call in enumerate(counting.calls):
        world, told = new_world(), Told()
        world.dies_at = index
        with pytest.raises(Killed):
            note_sights(site(world, told), AWAY)
        world.dead = False
        note_sights(site(world, told), AWAY)
        assert 1 <= len(told.titles) <= 2, f"killed before call {index}: {call.name}"
        assert len([r for r in world.store.audit_rows() if r.step == "watch_source"]) == 1


def test_log_that_left_the_inventory_is_forgotten(ports: SourcePorts) -> None:
    """It should not show for ever what nobody watches any more."""
    note_sights(ports, reached(ports))
    ports.inventory.hypervisors = {}
    note_sights(ports, {})
    assert ports.store.sources() == ()


def test_what_people_see(ports: SourcePorts, world: World) -> None:
    """It should show every log of the inventory, also one never seen, and a watch that does not look."""
    found = sources_now(ports.inventory, ports.store, ports.clock)
    assert (found["ok"], found["watch_is_overdue"], found["sources"][0]["state"]) == (False, True, "unknown")
    note_sights(ports, reached(ports))
    found = sources_now(ports.inventory, ports.store, ports.clock)
    assert (found["ok"], found["sources"][0]["state"], found["sources"][0]["silent_after_s"]) == (True, "ok", 60)
    world.clock.pause(OVERDUE.total_seconds() + 1)
    found = sources_now(ports.inventory, ports.store, ports.clock)
    assert (found["ok"], found["watch_is_overdue"]) == (False, True)


sights_drawn = st.lists(
    st.tuples(st.sampled_from([OK, OK, UNREACHABLE, MISSING, WRONG]), st.integers(1, 100), st.booleans()), max_size=30
)


@given(sights_drawn)
def test_state_follows_from_what_was_seen(drawn: list[tuple[SourceState, int, bool]]) -> None:
    """It should be bad exactly while the sight is, or nothing was heard for the limit; `since` moves with it only."""
    now, health, quiet_since = DIED_AT, None, DIED_AT
    for state, gap, heard in drawn:
        now += timedelta(seconds=gap)
        is_heard = heard and state is OK
        before: SourceHealth | None = health
        sight = Sight(state, "" if state is OK else "why", now if state is OK else None, now if is_heard else None)
        health = judged("hv01", LOG, before, sight, now=now)
        if before is None or is_heard or before.state not in {OK, SILENT}:
            quiet_since = now
        if state is OK:
            assert (health.state is SILENT) == (now - quiet_since > timedelta(seconds=60))
        else:
            assert health.state is state
        if before is not None:
            assert (health.since == before.since) == (health.state is before.state)
            assert health.told_at is None or health.state is before.state
