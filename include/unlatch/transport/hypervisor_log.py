"""The ends of hypervisors' logs, read for the evidence: what they say of a guest."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Protocol

from unlatch.errors import ConfigError
from unlatch.models import DomainFact, Guest, Hypervisor, HypervisorLog, utc
from unlatch.transport.hypervisor_domains import ask_each, lists_domain
from unlatch.transport.local_shell import LocalShell
from unlatch.transport.log_access import access_to
from unlatch.transport.remembered_shell import remembering
from unlatch.transport.shell import ShellOpener

TAIL_BYTES = 8 << 20
"""How far back `LogHypervisorWatch` reads, in the log and in its newest rotated predecessor each."""

ELSEWHERE_TAIL_BYTES = 2 << 20
"""The same for the hypervisors that a guest is not on: there are many of them, and each is read in every round."""

_TIMEOUT_S = 30.0


class FactSource(Protocol):
    """A log format; the part of a crash source that is needed here."""

    def facts(self, lines: Iterable[str], timezone: str, path: str = "") -> Iterable[DomainFact]:
        """What the lines say of domains, one by one; `path` names the domain in some formats."""

    def line_clock(self, timezone: str) -> Callable[[str], datetime | None]:
        """What to call with each line, in their order, for its moment; None for a line without one."""


class LogHypervisorWatch:
    """What hypervisors' logs say of guests (`ports.HypervisorWatch`)."""

    def __init__(
        self,
        hypervisors: Mapping[str, Hypervisor],
        shell_for: ShellOpener,
        sources: Mapping[str, FactSource],
        *,
        tail_bytes: int = TAIL_BYTES,
    ) -> None:
        """Take the hypervisors by name, how to reach one, and the installed log formats by name."""
        self._hypervisors = hypervisors
        self._shell_for = shell_for
        self._sources = sources
        self._tail_bytes = tail_bytes

    def for_one_look(self) -> LogHypervisorWatch:
        """See `ports.HypervisorWatch.for_one_look`."""
        shells = remembering(self._shell_for)
        return LogHypervisorWatch(self._hypervisors, shells, self._sources, tail_bytes=self._tail_bytes)

    def domain_facts(self, guest: Guest, since: datetime, back_to: datetime | None = None) -> tuple[DomainFact, ...]:
        """What the logs of the guest's hypervisor say of its domain from `since` on, oldest first.

        Logs have whole seconds: facts of the second in which `since` lies are in. What lies further back than
        `TAIL_BYTES` before the end is not seen; with `back_to` that is an error, when one log does not reach so far: it
        may be the one that tells of a migration.

        Raises:
            TransientError: the hypervisor is out of reach.
            ConfigError: the hypervisor or the log format is unknown, a log cannot be read or does not reach back, the
                host key is wrong.
        """
        hypervisor = self._hypervisor_of(guest)
        tails = [(log, self._tail(hypervisor, log, self._tail_bytes)) for log in hypervisor.logs]
        if back_to is not None:
            advice = "read there what it says of the domain around its death, and answer the question that is asked."
            self._refuse_short(hypervisor, tails, self._tail_bytes, back_to, advice)
        return self._told(hypervisor, guest, since, tails)

    def facts_elsewhere(
        self, guest: Guest, since: datetime, besides: Collection[str] = (), back_to: datetime | None = None
    ) -> Mapping[str, tuple[DomainFact, ...]]:
        """What the logs of every other hypervisor of the inventory say of this guest's names, by hypervisor.

        `besides` are left out: a list of domains has told more of them than a log can, and logs are long. What lies
        further back than `ELSEWHERE_TAIL_BYTES` is not seen. A log without any line is one that could not be asked:
        its path may be wrong, and it would be silent for ever. So is a busy one that says nothing of the guest in what
        was read of it, when that does not reach back to `back_to`.

        Raises:
            TransientError, ConfigError: not all of them could be asked; see `ask_each` for the answers of the others.
        """
        others = [h for h in self._hypervisors.values() if h.name not in {guest.hypervisor, *besides}]
        tail_bytes = min(self._tail_bytes, ELSEWHERE_TAIL_BYTES)
        return ask_each(
            others,
            lambda hypervisor: self._of_another(hypervisor, guest, since, tail_bytes, back_to),
            lambda facts: [fact.as_dict() for fact in facts],
        )

    def running_on(self, guest: Guest) -> Mapping[str, bool | None]:
        """Whether each hypervisor's `domains` command lists the guest; None where none is declared.

        Raises:
            TransientError, ConfigError: not all of them could be asked; see `ask_each` for the answers of the others.
        """
        return ask_each(
            self._hypervisors.values(),
            lambda h: lists_domain(h, self._shell_for(h.conn_id, h.name), guest.is_called),
        )

    def _told(
        self,
        hypervisor: Hypervisor,
        guest: Guest,
        since: datetime,
        tails: Iterable[tuple[HypervisorLog, Sequence[str]]],
    ) -> tuple[DomainFact, ...]:
        first = utc(since).replace(microsecond=0)
        facts = [
            fact
            for log, lines in tails
            for fact in self._source(hypervisor, log).facts(lines, log.timezone, str(log.path or ""))
            if fact.at >= first and guest.is_called(fact.domain)
        ]
        return tuple(sorted(facts, key=lambda fact: fact.at))

    def _of_another(
        self, hypervisor: Hypervisor, guest: Guest, since: datetime, tail_bytes: int, back_to: datetime | None
    ) -> tuple[DomainFact, ...]:
        tails = [(log, self._tail(hypervisor, log, tail_bytes)) for log in hypervisor.logs]
        advice = f"add hypervisors.{hypervisor.name}.domains, the command that lists them."
        for log, lines in tails:
            if not any(lines):
                raise ConfigError(
                    f"There is no {log.where} on {hypervisor.name}, or nothing in it.",
                    next_step=f"correct hypervisors.{hypervisor.name}.logs, or {advice}",
                )
        facts = self._told(hypervisor, guest, since, tails)
        if not facts and back_to is not None:  # else the newest one counts, whatever lies further back
            self._refuse_short(hypervisor, tails, tail_bytes, back_to, advice)
        return facts

    def _refuse_short(
        self,
        hypervisor: Hypervisor,
        tails: Iterable[tuple[HypervisorLog, Sequence[str]]],
        tail_bytes: int,
        back_to: datetime,
        advice: str,
    ) -> None:
        """Refuse what was read of logs when one was cut at the front and begins only after a moment."""
        for log, lines in tails:
            moments = filter(None, map(self._source(hypervisor, log).line_clock(log.timezone), lines))
            is_cut = sum(len(line.encode()) + 1 for line in lines) >= tail_bytes
            if is_cut and next(moments, back_to + timedelta.resolution) > back_to:
                raise ConfigError(
                    f"What was read of {log.where} on {hypervisor.name} does not reach back to the death: it is busy.",
                    next_step=advice,
                )

    def lines_around(self, guest: Guest, moment: datetime, seconds: float) -> tuple[str, ...]:
        """All lines of the logs of the guest's hypervisor from `seconds` before the moment until `seconds` after it.

        They come log by log, as they stand there, whatever domain they are about; a line without a moment of its own
        (a traceback) belongs to the one before it. What lies further back than `TAIL_BYTES` is not seen.

        Raises:
            TransientError: the hypervisor is out of reach.
            ConfigError: the hypervisor or the log format is unknown, a log cannot be read, the host key is wrong.
        """
        hypervisor = self._hypervisor_of(guest)
        around = timedelta(seconds=seconds)
        first, last = (utc(moment) - around).replace(microsecond=0), utc(moment) + around
        return tuple(line for log in hypervisor.logs for line in self._between(hypervisor, log, first, last))

    def _between(self, hypervisor: Hypervisor, log: HypervisorLog, first: datetime, last: datetime) -> Iterator[str]:
        moment_of, inside = self._source(hypervisor, log).line_clock(log.timezone), False
        for line in self._tail(hypervisor, log, self._tail_bytes):
            at = moment_of(line)
            inside = inside if at is None else first <= at <= last
            if inside:
                yield line

    def _hypervisor_of(self, guest: Guest) -> Hypervisor:
        hypervisor = self._hypervisors.get(guest.hypervisor)
        if hypervisor is None:
            raise ConfigError(
                f"{guest.name} is on the hypervisor {guest.hypervisor}, which the inventory does not have.",
                next_step="add it under hypervisors.",
            )
        return hypervisor

    def _source(self, hypervisor: Hypervisor, log: HypervisorLog) -> FactSource:
        source = self._sources.get(log.format)
        if source is None:
            raise ConfigError(
                f"The log {log.where} of {hypervisor.name} has the format {log.format!r}, which is not installed.",
                next_step=f"choose one of: {', '.join(sorted(self._sources))}.",
            )
        return source

    def _tail(self, hypervisor: Hypervisor, log: HypervisorLog, tail_bytes: int) -> list[str]:
        access = access_to(log)
        shell = LocalShell() if log.local else self._shell_for(hypervisor.conn_id, hypervisor.name)
        answer = shell.run(access.tail(tail_bytes), timeout_s=_TIMEOUT_S)
        return access.tail_lines(answer.stdout, host=hypervisor.name)
