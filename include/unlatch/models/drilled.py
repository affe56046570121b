"""What a drill found: for each privilege that a repair would need, whether it is there, and what would grant it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from unlatch.models.base import Json, Value

NOT_ASKED = "not asked"
"""How the reason begins of what was not asked, as its machine does not answer."""

_GATES = frozenset({"SSH login", "agent", "reach the volume", "list locks on the NAS"})
_WORK_AS = "work as "


@dataclass(frozen=True)
class DrillCheck(Value):
    """One privilege, in the shape of the agent's `preflight`. With `host` and `path` it tells a check from all others.

    Attributes:
        privilege: What was asked, in the same words in every drill, so that drills can be compared.
        ok: True: it is there; False: it is missing; None: it could not be checked.
        why: What the answer rests on.
        grant: What gives it when it is missing: a sudoers line, a command, or advice.
        path: The file, directory or command that it is about.
        host: The machine on which it is granted; None: where Unlatch itself runs.
        needed: Whether a repair cannot do without; what is only good to have is never missing.
    """

    privilege: str
    ok: bool | None
    why: str
    grant: str | None = None
    path: str | None = None
    host: str | None = None
    needed: bool = True


@dataclass(frozen=True)
class InstanceDrill(Value):
    """One instance, and how long its recovery should take once its guest is up again.

    Attributes:
        instance: Its name.
        checks: What was asked for it.
        estimate_s: Seconds from the crash's line in the log to a confirmed login; None when it cannot be told.
        objective_s: The site's objective.
        estimate: The parts of `estimate_s` by name.
    """

    instance: str
    checks: tuple[DrillCheck, ...]
    estimate_s: float | None
    objective_s: int
    estimate: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class GuestDrill(Value):
    """One guest: what its repair needs of the guest, its hypervisor, its peers and its NAS; `reached`: by SSH."""

    guest: str
    reached: bool
    checks: tuple[DrillCheck, ...]
    instances: tuple[InstanceDrill, ...]


@dataclass(frozen=True)
class Drill(Value):
    """A whole drill. `site` is what all repairs need alike."""

    at: datetime
    guests: tuple[GuestDrill, ...]
    site: tuple[DrillCheck, ...] = ()
    schema: int = 1

    def checks(self) -> Iterator[DrillCheck]:
        """Every check once: guests share hypervisors, peers and servers."""
        yield from dict.fromkeys(check for _, check in self.named())

    def named(self) -> Iterator[tuple[tuple[str | None, ...], DrillCheck]]:
        """Every check under the name that it has in every drill: guest, instance, privilege, host, path."""
        subjects = [("", "", self.site)]
        for guest in self.guests:
            subjects.append((guest.guest, "", guest.checks))
            subjects += [(guest.guest, instance.instance, instance.checks) for instance in guest.instances]
        for guest_name, instance_name, checks in subjects:
            for check in checks:
                yield (guest_name, instance_name, check.privilege, check.host, check.path), check

    @property
    def missing(self) -> tuple[DrillCheck, ...]:
        """What is not there, and a repair would need."""
        return tuple(check for check in self.checks() if check.ok is False and check.needed)

    @property
    def unchecked(self) -> tuple[DrillCheck, ...]:
        """What could not be told, and a repair would need."""
        return tuple(check for check in self.checks() if check.ok is None and check.needed)

    @property
    def is_partial(self) -> bool:
        """Whether a machine or a volume did not answer, so that nothing of it is proven."""
        return not all(guest.reached for guest in self.guests) or any(
            check.privilege in _GATES or check.privilege.startswith(_WORK_AS) or check.why.startswith(NOT_ASKED)
            for check in self.unchecked
        )

    def as_dict(self) -> Json:
        """The JSON document: the fields, and how many checks are ok, missing, not checked."""
        counts = {
            "ok": sum(1 for check in self.checks() if check.ok),
            "missing": len(self.missing),
            "unchecked": len(self.unchecked),
        }
        return {**super().as_dict(), **counts}
