"""What every evidence check owes: its name, a time, and never an exception for what it could not look at."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

import unlatch.evidence
from tests.unit.evidence_scene import NOW, FakeAgent, scene
from unlatch import decisions
from unlatch.engines.postgresql import PLUGIN as POSTGRESQL
from unlatch.errors import CheckFailedError, ConfigError, RefusedError, TransientError
from unlatch.models import Answer, Evidence, VolumeKind
from unlatch.ports import Peer

NAMES = sorted(m.name for m in pkgutil.iter_modules(unlatch.evidence.__path__) if not m.name.startswith("_"))
FAILURES = [
    TransientError("guest is gone"),
    ConfigError("no such privilege"),
    RefusedError("enough"),
    CheckFailedError("odd"),
    OSError("broken pipe"),
]


class DumbHypervisor:
    def __init__(self, error: Exception) -> None:
        self.error = error

    def domain_facts(self, *_: Any) -> Any:
        raise self.error

    facts_elsewhere = running_on = domain_facts


def _plugin(name: str) -> Any:
    return importlib.import_module(f"unlatch.evidence.{name}").PLUGIN


@pytest.mark.parametrize("name", NAMES)
def test_name_is_the_modules(name: str) -> None:
    """It should be found under the name that the list of mandatory checks uses."""
    assert _plugin(name).name == name


@pytest.mark.parametrize("kind", VolumeKind)
def test_every_wanted_check_exists(kind: VolumeKind) -> None:
    """It should be possible to answer every check that an instance needs."""
    for engine in ("mariadb", "postgresql", "generic"):
        base = scene()
        instance = replace(base.instance, engine=engine, pid_files=("x.pid",))
        volume = replace(base.volume, kind=kind)
        assert set(decisions.wanted_checks(instance, volume)) <= set(NAMES)


@pytest.mark.parametrize("error", FAILURES, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("name", sorted(set(NAMES) - {"port", "fence"}))
def test_what_could_not_be_looked_at_is_not_observed(name: str, error: Exception) -> None:
    """It should turn every failure of a look into not_observed with the reason, never into clear or an exception."""
    engine = POSTGRESQL if name == "pid_file" else scene().engine
    broken = scene(
        agent=FakeAgent(broken=error),
        hypervisor=DumbHypervisor(error),
        engine=engine,
        peers=(Peer("peer", FakeAgent(broken=error)),),
        nas=DumbHypervisor(error).running_on,
    )
    found = _plugin(name).collect(broken)
    assert found.answer is Answer.NOT_OBSERVED
    assert str(error.args[0]) in found.summary


@pytest.mark.parametrize("name", ["hypervisor_log", "guest_boot", "samples"])
def test_without_a_time_of_death_nothing_is_compared(name: str) -> None:
    """It should be not observed while nobody knows when the guest died."""
    assert _plugin(name).collect(scene(died_at=None)).answer is Answer.NOT_OBSERVED


@pytest.mark.parametrize("name", NAMES)
def test_evidence_has_a_time_and_expires(name: str) -> None:
    """It should be dated to the beginning of the look, and be JSON there and back."""
    found = _plugin(name).collect(scene())
    assert found.at == NOW
    assert found.expires_at == NOW + timedelta(seconds=120)
    assert found.check == name
    assert found.summary
    assert Evidence.from_dict(found.as_dict()) == found


@pytest.mark.parametrize("name", sorted(set(NAMES) - decisions.PROOFS))
def test_only_a_proof_says_dead(name: str) -> None:
    """It should never say dead without being one of the proofs."""
    assert _plugin(name).collect(scene()).answer is not Answer.DEAD
