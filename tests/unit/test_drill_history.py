"""What a drill finds is kept, and what was lost since the last one that could tell is told once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tests.unit.fakes import World
from unlatch.drill_history import HistoryPorts, keep_drill
from unlatch.errors import TransientError
from unlatch.models import Drill, DrillCheck, GuestDrill, InstanceDrill

AT = datetime(2026, 3, 9, 6, 0, tzinfo=UTC)
HOLD, SPACE, CLONE, LOGIN = "service hold", "space", "clone support", "SSH login"


class Phone:
    """Somebody who is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, str]] = []
        self.down = False

    def alert(self, key: str, title: str, words: str) -> None:
        if self.down:
            raise TransientError("nobody answers.")
        self.told.append((key, title, words))


class Days:
    """Drills, one a day."""

    def __init__(self, world: World) -> None:
        self.world, self.phone, self.number = world, Phone(), 0

    def drill(self, *, reached: bool = True, run: str = "", **answers: bool | None) -> list[str]:
        """One drill; by keyword what is not as it should be. What was lost."""
        self.number += 1
        found = self._found(reached, {key.replace("_", " "): value for key, value in answers.items()})
        ports = HistoryPorts(self.world.store, self.phone)
        return [check.privilege for check in keep_drill(found, ports, run=run or f"run-{self.number}")]

    def _found(self, reached: bool, answers: dict[str, bool | None]) -> Drill:
        at = AT + timedelta(days=self.number)
        login = DrillCheck(LOGIN, answers.get(LOGIN, True if reached else None), "why", "set the key", host="g")
        checks = [
            DrillCheck(name, answers.get(name, True), f"why {name}", f"grant {name}", "/ORA", "g", name != CLONE)
            for name in (HOLD, SPACE, CLONE)
        ]
        if not reached:
            checks = [DrillCheck("everything", None, "not asked", path="voms", host="g")]
        return Drill(at, (GuestDrill("g", reached, (login,), (InstanceDrill("voms", tuple(checks), 80.0, 900),)),))


@pytest.fixture
def days(world: World) -> Days:
    """No drill yet."""
    return Days(world)


def test_first_drill_has_lost_nothing(days: Days) -> None:
    """It should keep the result, and tell nobody of what was never there."""
    assert days.drill(service_hold=False) == []
    assert days.phone.told == []
    (kept,) = days.world.store.reports("drill", "g")
    assert kept.title == "g: 3 ok, 1 missing, 0 not checked"
    assert "grant service hold" in kept.content["markdown"]


@pytest.mark.parametrize(
    ("name", "answer"), [(HOLD, False), (SPACE, False), (CLONE, False), (CLONE, None), (LOGIN, False)]
)
def test_lost_is_told_once(days: Days, name: str, answer: bool | None) -> None:
    """It should tell what was there and is not any more: a privilege, space, clones, the right host key; not again."""
    days.drill()
    lost = {name.replace(" ", "_"): answer}
    assert days.drill(**lost) == [name]
    assert days.drill(**lost) == []
    ((key, title, words),) = days.phone.told
    assert key.startswith("drill:g:")
    assert title == "g: 1 of what a repair needs is not there any more"
    assert f"why {name}" in words or name == LOGIN


def test_lost_again(days: Days) -> None:
    """It should tell it anew when it was there again in between."""
    days.drill()
    assert [days.drill(space=False), days.drill(), days.drill(space=False)] == [[SPACE], [], [SPACE]]
    assert len(days.phone.told) == 2


def test_silence_hides_no_loss(days: Days) -> None:
    """It should compare with the last drill that could tell, when the guest did not answer in between."""
    days.drill()
    assert days.drill(reached=False) == []
    assert days.drill(service_hold=None) == []
    assert days.drill(service_hold=False) == [HOLD]


def test_nobody_can_be_told(days: Days) -> None:
    """It should not keep the drill while nobody was told, so that the next one tells."""
    days.drill()
    days.phone.down = True
    with pytest.raises(TransientError):
        days.drill(space=False)
    days.phone.down = False
    assert days.drill(space=False) == [SPACE]


def test_same_run_twice(days: Days) -> None:
    """It should keep and tell once what a retried task drills again."""
    days.drill()
    assert days.drill(run="again", space=False) == [SPACE]
    assert days.drill(run="again", space=False) == []
    assert len(days.phone.told) == 1
    assert len(days.world.store.reports("drill", "g")) == 2
