"""What is measured of a repair, and that Airflow takes it."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.unit.fakes import World
from tests.unit.lanes import Run
from unlatch import metrics
from unlatch.models import Answer
from unlatch.wiring_telling import _emit


def measured(world: World) -> list[metrics.Measure]:
    rows = world.store.audit_rows(limit=10_000)
    return [m for row in rows for m in metrics.of_row(row, world.store.incident(row.incident))]


def names(found: list[metrics.Measure]) -> Counter[str]:
    return Counter(" ".join([m.name.removeprefix("unlatch."), *map(str, m.tags.values())]) for m in found)


def test_a_repair(world: World) -> None:
    """It should count the incident and the verdict, and take the three times."""
    Run(world).all()
    found = measured(world)
    assert names(found) == {
        "incidents false": 1, "verdicts dead": 1, "time_to_detect": 1, "time_to_act": 1, "time_to_access": 1,
    }  # fmt: skip
    times = [m.value for m in found if m.kind == "time"]
    assert times == sorted(times)
    assert times[0] >= 3


def test_a_refusal_and_an_answer(world: World) -> None:
    """It should count what was refused, by its step, and what people answered."""
    world.answers["processes"] = Answer.ALIVE
    Run(world).attempt()
    assert names(measured(world))["refusals verdict"] == 1
    world.answers = {"port": Answer.NOT_OBSERVED}
    run = Run(world)
    run.open()
    run.lane(end="verdict")
    run.question()
    run.answer(approved=True)
    assert names(measured(world))["answers yes"] == 1


def test_dry_runs_have_no_times(world: World) -> None:
    """It should not count a look as a repair that was quick."""
    Run(world, dry_run=True).all()
    found = measured(world)
    assert names(found)["incidents true"] == 1
    assert not [m for m in found if m.kind == "time"]


def test_levels(world: World) -> None:
    """It should tell open incidents by their state, what is in quarantine, and what waits to be told."""
    run = Run(world)
    run.all()
    rows = world.store.incidents()
    found = list(metrics.levels(rows, {run.incident: world.store.steps(run.incident)}, 3))
    states = {m.tags["state"]: m.value for m in found if m.name == "unlatch.open_incidents"}
    assert states["awaiting_purge"] == 1
    assert states["failed"] == 0
    by_name = {m.name: m.value for m in found}
    plan = world.store.step(run.incident, "voms", "verdict").result["plan"]
    expected = sum(f["size_bytes"] for f in plan["files"] if f["remedy"] == "recreate")
    assert by_name["unlatch.quarantine_bytes"] == expected > 0
    assert by_name["unlatch.messages_waiting"] == 3


@pytest.mark.parametrize("kind", ["count", "time", "level"])
def test_airflow_takes_them(kind: str) -> None:
    """It should call Airflow's own metrics as that wants to be called."""
    from airflow.sdk.observability import stats  # noqa: PLC0415  # after conftest has set AIRFLOW_HOME

    _emit(stats, metrics.Measure("unlatch.test", kind, 1.5, {"a": "b"}))
