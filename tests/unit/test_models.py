"""Values survive JSON; identifiers are what the agent and Airflow accept."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.builders import INCIDENT, LAB, NOW, evidence, instance, locked
from unlatch import decisions, remedies
from unlatch.lifecycle import OPEN_STATES, TRANSITIONS, ForbiddenTransitionError, IncidentState, advance
from unlatch.models import (
    Answer,
    Certainty,
    CrashEvent,
    FileFact,
    Instance,
    Plan,
    RemedyPolicy,
    Verdict,
    incident_id,
    utc,
)


def _there_and_back(value: object) -> object:
    return type(value).from_dict(json.loads(json.dumps(value.as_dict())))  # type: ignore[attr-defined]  # any Value


def test_values_survive_json() -> None:
    """It should give back equal values after JSON, nested ones, paths, enums and times included."""
    verdict = decisions.judge(instance(), LAB, [evidence("port", Answer.CLEAR)], incident=INCIDENT, now=NOW)
    plan = remedies.plan(
        [locked("ibdata1")],
        verdict,
        order=[locked("ibdata1").path],
        circumstances=remedies.Circumstances(NOW),
        policy=RemedyPolicy(),
    )
    for value in (instance(), locked("ibdata1"), verdict, plan):
        assert _there_and_back(value) == value
    assert {type(v) for v in (instance(), locked("x"), verdict, plan)} == {Instance, FileFact, Verdict, Plan}


def test_unknown_keys_are_ignored_and_missing_ones_named() -> None:
    """It should read what a newer version wrote, and name the field that an incomplete value lacks."""
    data = {**evidence("port", Answer.CLEAR).as_dict(), "new": 1}
    assert type(evidence("port", Answer.CLEAR)).from_dict(data).check == "port"
    with pytest.raises(KeyError, match=r"FileFact\.inode"):
        FileFact.from_dict({"path": "/x"})


@given(st.text(max_size=200), st.datetimes(min_value=datetime(1990, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001  # hypothesis adds the zone
def test_incident_id_fits_everywhere(guest: str, died_at: datetime) -> None:
    """It should be an id that the agent, a file name and an Airflow run take, for any guest name."""
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", incident_id(died_at, guest))


def test_incident_id_is_the_death_in_utc() -> None:
    """It should be the same for the same moment in any zone."""
    zurich = datetime.fromisoformat("2014-10-18T05:54:52+02:00")
    assert incident_id(zurich, "dbvrtg4037") == "inc-20141018-035452-dbvrtg4037"
    with pytest.raises(ValueError, match="no time zone"):
        utc(datetime(2014, 10, 18))  # noqa: DTZ001  # that is the point


def test_dedup_key_tells_deaths_apart() -> None:
    """It should be equal for one death read twice and differ for the next one."""
    event = CrashEvent("2130_x", "hv01", NOW, "crash", ("line",), Certainty.CERTAIN)
    again = CrashEvent("2130_x", "hv01", NOW, "crash", ("line", "more"), Certainty.CERTAIN, signal=11)
    later = CrashEvent("2130_x", "hv01", NOW + timedelta(seconds=1), "crash", ("line",), Certainty.CERTAIN)
    assert event.dedup_key == again.dedup_key != later.dedup_key


@pytest.mark.parametrize("present", list(IncidentState))
@pytest.mark.parametrize("wanted", list(IncidentState))
def test_every_transition_is_allowed_or_refused(present: IncidentState, wanted: IncidentState) -> None:
    """It should allow exactly the transitions of the table, and staying; the refusal names what is allowed."""
    if wanted is present or wanted in TRANSITIONS[present]:
        assert advance(present, wanted) is wanted
    else:
        with pytest.raises(ForbiddenTransitionError, match=str(present)):
            advance(present, wanted)


def test_every_open_state_can_still_end() -> None:
    """It should be possible to close an incident from every state."""
    reached = {IncidentState.CLOSED}
    while more := {s for s in IncidentState if TRANSITIONS[s] & reached} - reached:
        reached |= more
    assert reached >= OPEN_STATES
