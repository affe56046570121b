"""One death told by several logs: whatever order they are heard in."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlatch.deaths import CLOCKS_DIFFER, NEAREST, SAME_DEATH, TOGETHER, Death, deaths_of, groups_of
from unlatch.models import Certainty, CrashEvent

START = datetime(2014, 10, 18, 3, 54, 52, tzinfo=UTC)


def event(
    domain: str = "db1",
    at: float = 0,
    *,
    source: str = "xend:/x.log",
    hypervisor: str = "hv01",
    restarted: float | None = None,
    number: int | None = None,
    lines: tuple[str, ...] = ("it crashed",),
) -> CrashEvent:
    """A certain death; named domains are guests of the same name."""
    return CrashEvent(
        domain, hypervisor, START + timedelta(seconds=at), "crashed", lines, Certainty.CERTAIN,
        guest=None if domain.startswith("?") else domain, domain_id=number, source=source,
        restarted_at=None if restarted is None else START + timedelta(seconds=restarted),
    )  # fmt: skip


KERNEL = "kernel:/var/log/kern.log"
SEGFAULT = "?qemu-kvm[1385]"
WHOLE = SAME_DEATH.total_seconds()


@pytest.mark.parametrize(
    "told",
    [
        [event(), event(at=1, source=KERNEL)],
        [event(), event(at=-WHOLE, source=KERNEL)],
        [event(hypervisor="hv01"), event(hypervisor="fences", at=60, source="pacemaker:/p.log")],
        [event(restarted=6), event(at=3, source=KERNEL)],
        [event(restarted=6), event(at=6 + CLOCKS_DIFFER.total_seconds(), source=KERNEL)],
        [event(), event(SEGFAULT, 2, source=KERNEL)],
        [event(), event(SEGFAULT, -NEAREST.total_seconds(), source=KERNEL)],
        [event(number=24), event("?domain 24", WHOLE, source="xen_console:/c.log", number=24)],
        [event(lines=("pid 1385 died",)), event(SEGFAULT, WHOLE, source=KERNEL)],
        [event(SEGFAULT, source=KERNEL), event(SEGFAULT, 1, source="systemd:journal systemd")],
        [event(), event(SEGFAULT, 1, source=KERNEL), event(SEGFAULT, 1, source="systemd:journal systemd")],
        [event(), event()],
    ],
)
def test_one_death(told: list[CrashEvent]) -> None:
    """It should take the words of several logs about one death for one."""
    (death,) = deaths_of(told)
    assert len(death.events) == len({e.dedup_key for e in told})
    assert death.subject == next((e.domain for e in told if not e.domain.startswith("?")), SEGFAULT)


@pytest.mark.parametrize(
    "told",
    [
        [event("db1"), event("db2")],
        [event(), event(at=WHOLE + 1, source=KERNEL)],
        [event(restarted=6), event(at=30)],
        [event(restarted=6), event(at=7)],
        [event(restarted=6), event(at=7 + CLOCKS_DIFFER.total_seconds(), source=KERNEL)],
        [event(), event(SEGFAULT, 1, source=KERNEL, hypervisor="hv02")],
        [event(), event(SEGFAULT, NEAREST.total_seconds() + 1, source=KERNEL)],
        [event(number=24), event("?domain 25", 0, source="xen_console:/c.log", number=25)],
        [event(), event(SEGFAULT, 1, source=KERNEL), event("?qemu-kvm[1386]", 2, source=KERNEL)],
        [event(SEGFAULT, source=KERNEL), event("?qemu-kvm[1386]", 1, source=KERNEL)],
        [event("db1", hypervisor="hv01", at=0), event("db2", hypervisor="hv02", at=0)],
    ],
)
def test_two_deaths(told: list[CrashEvent]) -> None:
    """It should not take the deaths of two, nor two deaths of one, for one: each deserves its incident."""
    assert len(deaths_of(told)) == 2


def test_number_and_process_beat_time() -> None:
    """It should give each nameless word to the guest whose number or process it names, not to the nearest."""
    first, second = event("db1", 0, number=24), event("db2", 10, number=25)
    late = event("?domain 24", 10, source="xen_console:/c.log", number=24)
    early = event("?domain 25", 0, source="xen_console:/c.log", number=25)
    found = {death.subject: death.events for death in deaths_of([first, second, late, early])}
    assert found == {"db1": (first, late), "db2": (early, second)}


def test_everything_that_is_known_under_one_name() -> None:
    """It should keep time and name of the chosen event, and add lines, signal and restart of the others."""
    first = event(lines=("a",))
    second = CrashEvent(
        "db1", "hv01", START + timedelta(seconds=1), "segfault", ("b", "a"), Certainty.CERTAIN,
        guest="db1", signal=11, restarted_at=START + timedelta(seconds=9), source=KERNEL,
    )  # fmt: skip
    (death,) = deaths_of([second, first])
    told = death.told_by(first)
    assert (told.at, told.lines, told.signal, told.restarted_at) == (START, ("a", "b"), 11, second.restarted_at)
    assert death.told_by(told) == told


events_drawn = st.lists(
    st.builds(
        event,
        st.sampled_from(["db1", "db2", "db3", "?qemu-kvm[1385]", "?qemu-kvm[9]", "?domain 2"]),
        st.integers(0, 400),
        source=st.sampled_from(["xend:/x.log", KERNEL, "pacemaker:/p.log"]),
        hypervisor=st.sampled_from(["hv01", "hv02"]),
        number=st.one_of(st.none(), st.integers(1, 3)),
        restarted=st.one_of(st.none(), st.integers(1, 500)),
    ),
    max_size=14,
)


def shape(deaths: Sequence[Death]) -> list[list[str]]:
    """Which events belong together."""
    return [[e.dedup_key for e in death.events] for death in deaths]


@given(events_drawn, st.randoms(use_true_random=False))
def test_order_of_arrival_does_not_matter(told: list[CrashEvent], chance: random.Random) -> None:
    """It should put the same events together whatever order they were heard in, each into exactly one death."""
    unique = list({e.dedup_key: e for e in told}.values())
    shuffled = list(unique)
    chance.shuffle(shuffled)
    found = deaths_of(unique)
    assert shape(deaths_of(shuffled)) == shape(found)
    assert shape(deaths_of([*shuffled, *unique])) == shape(found)
    assert sorted(e for death in shape(found) for e in death) == sorted(e.dedup_key for e in unique)
    assert [g.name for g in groups_of(found)] == [g.name for g in groups_of(deaths_of(shuffled))]


@given(events_drawn)
def test_no_two_guests_share_a_death(told: list[CrashEvent]) -> None:
    """It should never hide one guest's death behind another's, nor two processes of one log behind one guest."""
    for death in deaths_of(told):
        named = [e for e in death.events if e.guest is not None]
        assert len({e.guest for e in named}) <= 1
        nameless = [(e.hypervisor, e.source) for e in death.events if e.guest is None]
        assert not named or len(nameless) == len(set(nameless))


# --- groups ----------------------------------------------------------------------------------------------------------


def test_guests_of_one_hypervisor_that_die_together_are_a_group() -> None:
    """It should group them, name the group by its first death, and leave out who died elsewhere or much later."""
    step = TOGETHER.total_seconds()
    told = [event("db1"), event("db2", 5), event("db3", 5 + step), event("far", 0, hypervisor="hv02")]
    late = event("db4", 6 + 2 * step)
    (group,) = groups_of(deaths_of([*told, late]))
    assert group.name == "grp-20141018-035452-hv01"
    assert [death.subject for death in group.deaths] == ["db1", "db2", "db3"]


def test_one_guest_is_no_group() -> None:
    """It should not call the deaths of one guest that keeps dying a group."""
    assert groups_of(deaths_of([event(restarted=6), event(at=30, restarted=36), event(at=60)])) == []
