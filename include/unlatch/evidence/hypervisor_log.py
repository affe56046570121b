"""Does the hypervisor itself say that the domain is dead? The one proof of death of this version."""

from __future__ import annotations

from datetime import timedelta

from unlatch.evidence._answers import Check, Finding, alive, dead, not_observed
from unlatch.models import DomainChange, DomainFact
from unlatch.ports import Scene

BEFORE = timedelta(seconds=60)
SLACK = timedelta(seconds=2)  # lines carry whole seconds

_DEATHS = frozenset({DomainChange.CRASHED, DomainChange.DESTROYED})
_SETTLED = _DEATHS | {DomainChange.CREATED}
_SIGNS = frozenset({DomainChange.DOWN, DomainChange.SUSPECTED})  # they neither prove a death nor undo one


def _look(scene: Scene) -> Finding:  # noqa: PLR0911  # one return per thing that a log can say
    if scene.died_at is None:
        return not_observed("the moment of the death is not known, so no line can be about it")
    since = scene.died_at - BEFORE
    facts = scene.hypervisor.domain_facts(scene.guest, since, since)
    lines = [fact.line for fact in facts]
    if not facts:
        return not_observed("the hypervisor's log says nothing of the domain around the death", lines=lines)
    moved = _moved(facts)
    if moved is not None:
        return alive(f"the domain was migrated at {moved.at:%H:%M:%S}: it runs elsewhere", lines=lines)
    newest = next((fact for fact in reversed(facts) if fact.change not in _SIGNS), facts[-1])
    death = _death(facts, scene)
    if death is None:
        runs = newest.change is DomainChange.CREATED and facts[-1].change not in _SIGNS
        if runs and newest.at < scene.died_at - SLACK:
            return alive(f"the domain runs since {newest.at:%H:%M:%S} and no line says that it ended", lines=lines)
        return not_observed("no line says that the domain crashed or was destroyed", lines=lines)
    if newest.change not in _SETTLED:
        words = newest.change.value.replace("_", " ")
        return not_observed(
            f"the newest line of the domain ({words}, {newest.at:%H:%M:%S}) can mean either", lines=lines
        )
    words = "crashed" if death.change is DomainChange.CRASHED else "was destroyed"
    number = f" (id {death.domain_id})" if death.domain_id is not None else ""
    return dead(f"the hypervisor says that the domain{number} {words} at {death.at:%H:%M:%S} UTC", lines=lines)


def _moved(facts: tuple[DomainFact, ...]) -> DomainFact | None:
    """A migration. What is destroyed here after one is only the shell that the domain left behind."""
    return next((fact for fact in facts if fact.change is DomainChange.MIGRATED), None)


def _death(facts: tuple[DomainFact, ...], scene: Scene) -> DomainFact | None:
    """The line that says the death in question, not that of an earlier or later incarnation."""
    found = None
    for fact in facts:
        if scene.died_at is None or fact.at < scene.died_at - SLACK:
            continue
        if fact.change is DomainChange.CREATED:
            if fact.at > scene.died_at:
                break  # deaths after this line are the new incarnation's
            if found is not None and found.at < scene.died_at:
                found = None  # what died before this line was the incarnation before
        elif found is None and fact.change in _DEATHS and _same_domain(fact, scene):
            found = fact
    return found


def _same_domain(fact: DomainFact, scene: Scene) -> bool:
    return scene.domain_id is None or fact.domain_id in {None, scene.domain_id}


PLUGIN = Check("hypervisor_log", _look)
