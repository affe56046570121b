"""Does another hypervisor run the guest's domain?

Two sources for each hypervisor of the inventory: its own list of running domains (`hypervisors.X.domains`), which
decides where there is one, and its log. That the guest's own hypervisor runs it is expected: the guest is back. That
another one does is a sign of life, unless that is where the guest was restarted: then only that one runs it, and it is
the guest that answers, booted after the death.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from unlatch.errors import UnlatchError
from unlatch.evidence._answers import Check, Finding, alive, clear, not_observed, what_of
from unlatch.evidence.guest_boot import LARGEST_SKEW, SLACK
from unlatch.evidence.hypervisor_log import BEFORE
from unlatch.models import Answer, DomainChange, DomainFact, Json
from unlatch.ports import Scene

_EVER = datetime(1970, 1, 1, tzinfo=UTC)
_RUNS = frozenset({DomainChange.CREATED})
_ENDED = frozenset({DomainChange.CRASHED, DomainChange.DESTROYED, DomainChange.SHUT_DOWN, DomainChange.MIGRATED})


@dataclass
class _Seen:
    """What the hypervisors say: whose list has the domain, what logs tell, and who could not be asked."""

    listed: Mapping[str, bool | None] = field(default_factory=dict)
    logs: Mapping[str, tuple[DomainFact, ...]] = field(default_factory=dict)
    own_log: tuple[DomainFact, ...] = ()
    gaps: list[str] = field(default_factory=list)

    @property
    def told_by_list(self) -> frozenset[str]:
        """Hypervisors whose own list has told whether they run it: what their logs say decides nothing."""
        return frozenset(name for name, runs in self.listed.items() if runs is not None)

    def detail(self) -> Json:
        """For the audit."""
        lines = {name: [fact.line for fact in facts[-5:]] for name, facts in self.logs.items() if facts}
        return {"listed": dict(self.listed), "lines_elsewhere": lines, "gaps": self.gaps}


def _look(scene: Scene) -> Finding:
    seen = _ask(scene)
    own = scene.guest.hypervisor
    elsewhere = _elsewhere(seen, own)
    doubts = [*seen.gaps, *_doubts(seen, elsewhere, scene)]
    detail = seen.detail()
    if elsewhere:
        finding = _judge_elsewhere(elsewhere, seen, scene, detail)
        if finding.answer is Answer.ALIVE or not doubts:
            return finding
    elif not doubts:
        nowhere = _nowhere(seen, scene)
        if nowhere is None:
            return clear(_words(seen, own), **detail)
        doubts.append(nowhere)
    return not_observed("; ".join(doubts), **detail)


def _ask(scene: Scene) -> _Seen:
    """Ask for everything; what one hypervisor does not answer hides no other's answer."""
    seen, watch, guest = _Seen(), scene.hypervisor, scene.guest
    try:
        seen.listed = watch.running_on(guest)
    except (UnlatchError, OSError) as error:
        answers = _answers(error)
        seen.listed = {str(name): value for name, value in answers.items() if value in {True, False, None}}
        seen.gaps += _unanswered(error)
    try:
        seen.logs = watch.facts_elsewhere(guest, _EVER, seen.told_by_list, scene.died_at)
    except (UnlatchError, OSError) as error:
        seen.logs = {
            str(name): tuple(DomainFact.from_dict(fact) for fact in facts) for name, facts in _answers(error).items()
        }
        seen.gaps += _unanswered(error, seen.told_by_list)
    if _own_log_matters(seen, guest.hypervisor):
        try:
            seen.own_log = watch.domain_facts(guest, _EVER)
        except (UnlatchError, OSError) as error:
            seen.gaps.append(f"{guest.hypervisor} could not be asked: {what_of(error)}")
    seen.gaps = list(dict.fromkeys(seen.gaps))
    return seen


def _own_log_matters(seen: _Seen, own: str) -> bool:
    """It decides nothing as long as nobody else seems to run the domain; logs are long."""
    started = (newest for facts in seen.logs.values() if (newest := _newest(facts)) is not None)
    return any(fact.change in _RUNS for fact in started) or any(
        runs for name, runs in seen.listed.items() if name != own
    )


def _answers(error: Exception) -> Mapping[str, Any]:
    """What the other hypervisors answered, which the error of a watch carries."""
    found = error.detail.get("answers") if isinstance(error, UnlatchError) else None
    return found if isinstance(found, dict) else {}


def _unanswered(error: Exception, told_otherwise: Collection[str] = ()) -> list[str]:
    found = error.detail.get("unanswered") if isinstance(error, UnlatchError) else None
    if isinstance(found, dict) and found:
        return [f"{name} could not be asked: {words}" for name, words in found.items() if name not in told_otherwise]
    return [f"not every hypervisor could be asked: {what_of(error)}"]


def _elsewhere(seen: _Seen, own: str) -> dict[str, str]:
    """Other hypervisors that run the domain, each with how that is known. A list goes before a log."""
    found = {name: "its list of domains has it" for name, runs in seen.listed.items() if runs and name != own}
    for name, facts in seen.logs.items():
        if name == own or seen.listed.get(name) is not None:
            continue
        newest = _newest(facts)
        if newest is not None and newest.change in _RUNS and not _is_outdated(newest, seen.own_log):
            found[name] = f"its log says that it was started there at {newest.at:%Y-%m-%d %H:%M:%S} UTC"
    return found


def _doubts(seen: _Seen, elsewhere: Mapping[str, str], scene: Scene) -> list[str]:
    """Logs that can mean either, of hypervisors that have no list."""
    found = []
    for name, facts in seen.logs.items():
        newest = _newest(facts)
        if seen.listed.get(name) is not None or name in elsewhere or newest is None:
            continue
        if newest.change in _ENDED and not _moved_on(newest, scene):
            continue
        words = newest.change.value.replace("_", " ")
        found.append(
            f"the newest line of {name}'s log about the domain ({words}, {newest.at:%Y-%m-%d %H:%M:%S}) can mean "
            f"either: hypervisors.{name}.domains would tell"
        )
    return found


def _moved_on(fact: DomainFact, scene: Scene) -> bool:
    """Whether the domain left for somewhere about the time of the death or since: then it lived elsewhere."""
    return fact.change is DomainChange.MIGRATED and (scene.died_at is None or fact.at > scene.died_at - BEFORE)


def _newest(facts: Sequence[DomainFact]) -> DomainFact | None:
    """The last one; of several in one second the one that stands last."""
    return max(reversed(facts), key=lambda fact: fact.at, default=None)


def _is_outdated(start: DomainFact, own_log: Iterable[DomainFact]) -> bool:
    """Whether the guest's own hypervisor has started it since: the other log may only lack the line of its end."""
    return any(fact.change is DomainChange.CREATED and fact.at > start.at for fact in own_log)


def _judge_elsewhere(elsewhere: Mapping[str, str], seen: _Seen, scene: Scene, detail: Json) -> Finding:
    own = scene.guest.hypervisor
    where = "; ".join(f"{name} runs the domain of {scene.guest.name} ({why})" for name, why in elsewhere.items())
    if len(elsewhere) > 1 or _own_runs(seen, own) is not False:
        also = f"{own} runs it too" if _own_runs(seen, own) else f"whether {own} runs it too is not known"
        return alive(where if len(elsewhere) > 1 else f"{where}, and {also}", **detail)
    try:
        restarted = _restarted(scene)
    except (UnlatchError, OSError) as error:
        return alive(f"{where}, and the guest could not be asked when it booted: {what_of(error)}", **detail)
    if restarted is None:
        return alive(f"{where}, and the guest did not boot after the death", **detail)
    return clear(f"{where}: it was restarted there, and booted at {restarted:%H:%M:%S} UTC, after the death", **detail)


def _own_runs(seen: _Seen, own: str) -> bool | None:
    """Whether the guest's own hypervisor runs it: by its list, else by the newest line of its log."""
    listed = seen.listed.get(own)
    if listed is not None:
        return listed
    newest = _newest(seen.own_log)
    if newest is None or newest.change not in _RUNS | _ENDED:
        return None
    return newest.change in _RUNS


def _restarted(scene: Scene) -> datetime | None:
    """When the guest that answers booted, if that was after the death by a clock that can be believed."""
    if scene.died_at is None:
        return None
    facts = scene.agent.facts([scene.instance.datadir])
    is_off = abs(scene.agent.clock_skew([scene.instance.datadir])) > LARGEST_SKEW
    return None if is_off or facts.booted_at < scene.died_at - SLACK else facts.booted_at


def _nowhere(seen: _Seen, scene: Scene) -> str | None:
    """No hypervisor seems to run a guest that answers: then some list is not read rightly."""
    if seen.listed.get(scene.guest.hypervisor) is not False:
        return None
    try:
        scene.agent.facts([scene.instance.datadir])
    except (UnlatchError, OSError):
        return None
    return (
        f"no hypervisor runs the domain of {scene.guest.name}, though it answers: compare "
        f"guests.{scene.guest.name}.names with the names in those lists"
    )


def _words(seen: _Seen, own: str) -> str:
    others = sorted({*seen.listed, *seen.logs} - {own})
    if not others:
        return f"the inventory has no other hypervisor than {own}"
    by_list = [name for name in others if seen.listed.get(name) is False]
    by_log = [name for name in others if name not in by_list]
    said = [f"not in the list of domains of {', '.join(by_list)}"] if by_list else []
    said += [f"no line in the log of {', '.join(by_log)} says that it runs there"] if by_log else []
    return "; ".join(said)


PLUGIN = Check("domain_elsewhere", _look)
