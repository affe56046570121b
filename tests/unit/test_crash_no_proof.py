"""What tells of a crash without proving a death: the evidence must not take it for more, nor for less."""

from __future__ import annotations

import pytest

from tests.unit.evidence_scene import FakeHypervisor, fact, scene
from unlatch.evidence import hypervisor_log
from unlatch.models import Answer
from unlatch.models import DomainChange as C

DOWN, SUSPECTED = fact(C.DOWN, 0), fact(C.SUSPECTED, 0)


@pytest.mark.parametrize(
    "facts",
    [(DOWN,), (SUSPECTED,), (DOWN, SUSPECTED), (fact(C.CREATED, -30), DOWN), (DOWN, fact(C.CREATED, 6))],
    ids=lambda facts: "-".join(f.change for f in facts),
)
def test_crash_alone_proves_nothing(facts: tuple) -> None:
    """It should be no proof of death, and no sign of life either."""
    found = hypervisor_log.PLUGIN.collect(scene(hypervisor=FakeHypervisor(facts), domain_id=None))
    assert found.answer is Answer.NOT_OBSERVED


def test_crash_beside_a_migration_is_alive() -> None:
    """It should see that the guest went elsewhere although its qemu crashed here afterwards."""
    facts = (fact(C.MIGRATED, -1), DOWN)
    assert hypervisor_log.PLUGIN.collect(scene(hypervisor=FakeHypervisor(facts))).answer is Answer.ALIVE


@pytest.mark.parametrize("sign", [fact(C.DOWN, 2), fact(C.SUSPECTED, 2)], ids=lambda f: f.change)
def test_late_sign_does_not_undo_a_proof(sign: object) -> None:
    """It should go on believing the hypervisor when a core dump or a closed monitor is reported after the death."""
    facts = (fact(C.CRASHED, 0), sign)
    assert hypervisor_log.PLUGIN.collect(scene(hypervisor=FakeHypervisor(facts))).answer is Answer.DEAD
