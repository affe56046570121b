"""What a hypervisor says of its domains, and the deaths that follow from it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from unlatch.models.base import Value, utc


class DomainChange(StrEnum):
    """What one line of a hypervisor's log says of a domain."""

    DEVICE_MODEL_DIED = "device_model_died"  # qemu is dead, the domain may not be: ambiguous alone
    CRASHED = "crashed"
    DESTROYED = "destroyed"
    DESTROY_FAILED = "destroy_failed"  # it was to be destroyed and may still run
    CREATED = "created"
    SHUT_DOWN = "shut_down"
    REBOOTED = "rebooted"
    MIGRATED = "migrated"
    DOWN = "down"  # the guest runs no more here: a crash, but no proof: it may be kept, or live on elsewhere
    SUSPECTED = "suspected"  # a sign that goes with crashes, and with other things too


UNNAMED = "?"
"""Begins the name of a domain that a log does not name (`?qemu-kvm[1385]`): it is never taken for a guest's."""


@dataclass(frozen=True)
class DomainFact(Value):
    """One line's statement; `signal` is the number that killed the device model, where the line names it.

    `at` is as exact as the log (xend: whole seconds, so the true moment is up to 1 s later). `dated` is False when the
    line has no stamp and `at` is only the moment when it was read; such a fact proves nothing. `cause` is what the line
    says of why, in a few words.
    """

    domain: str
    change: DomainChange
    at: datetime
    line: str
    domain_id: int | None = None
    signal: int | None = None
    cause: str | None = None
    dated: bool = True


class Certainty(StrEnum):
    """`certain`: it is said that the guest runs no more. `ambiguous`: only a sign that often goes with it.

    A certain crash is a reason to open an incident. Whether the domain is really dead is for the evidence to say.
    """

    CERTAIN = "certain"
    AMBIGUOUS = "ambiguous"


@dataclass(frozen=True)
class CrashEvent(Value):
    """One death of one domain; several log lines of it are one event. `guest` is None while no inventory names it.

    `dated` is False when no line of it has a stamp: `at` is then the moment of reading. `source` names the log that
    told it, by format and place, where it was read in one of several.
    """

    domain: str
    hypervisor: str
    at: datetime
    cause: str
    lines: tuple[str, ...]
    certainty: Certainty
    guest: str | None = None
    signal: int | None = None
    restarted_at: datetime | None = None
    domain_id: int | None = None
    dated: bool = True
    source: str = ""

    @property
    def dedup_key(self) -> str:
        """Equal for the same death read twice in one log; differs for the next death, and for another log's word."""
        key = f"{self.hypervisor}|{self.domain}|{utc(self.at):%Y%m%d%H%M%S}"
        return f"{key}|{self.source}" if self.source else key


def incident_id(died_at: datetime, guest: str) -> str:
    """The incident's id, which is also the run id of `remediate_guest`: the same death gives the same id."""
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in guest)
    return f"inc-{utc(died_at):%Y%m%d-%H%M%S}-{safe}"[:80]
