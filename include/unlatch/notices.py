"""Who is told what and when: from the rows of the audit to messages in the queue.

The audit says all that happens, so it is read for what people must be told, from a durable position on: nothing that is
done depends on it, and a worker that dies before it has told leaves the row for the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from unlatch.deliveries import NoLongerNeededError
from unlatch.errors import ConfigError
from unlatch.lifecycle import IncidentState
from unlatch.models import AuditEntry, Receiver
from unlatch.ports import Alerts, DeliveryRow, IncidentRow, Message, Store
from unlatch.service_hours import next_covered

CURSOR = "notices"
CHANNEL = "to:"
"""What a receiver's channel begins with."""

_AT_ONCE = 500
_WELL = frozenset(
    {IncidentState.ACCESSIBLE, IncidentState.CONFIRMED, IncidentState.AWAITING_PURGE, IncidentState.CLOSED}
)


class Audit(Protocol):
    """What is read of the audit."""

    def audit_rows(self, after: int = 0, limit: int = 1000) -> Sequence[AuditEntry]:
        """A page."""

    def audit_head(self) -> tuple[int, str]:
        """The newest row's number and hash."""


@dataclass(frozen=True)
class Notice:
    """Something that people are told. `not_before`: it is only worth telling from then on."""

    event: str
    incident: str
    instance: str
    title: str
    words: str
    marker: str
    not_before: datetime | None = None


@dataclass(frozen=True)
class Policy:
    """What decides who is told: the receivers, the promise, and the zone of all hours."""

    receivers: Mapping[str, Receiver]
    objective_s: int
    timezone: str


def queue_new(audit: Audit, store: Store, policy: Policy, now: datetime) -> int:
    """Queue what the rows since the last time tell; how many messages. The first time only what comes from now on.

    It may be called by many at once: a row that two have read is queued once.
    """
    kept = store.cursor(CURSOR)
    if kept is None:
        store.set_cursor(CURSOR, {"sequence": audit.audit_head()[0]})
        return 0
    queued, after = 0, int(kept["sequence"])
    while rows := audit.audit_rows(after, _AT_ONCE):
        for row in rows:
            incident = store.incident(row.incident) if _may_matter(row) else None
            if incident is not None and not incident.dry_run:
                queued += sum(queue(notice, store, policy, now) for notice in notices_of(row, incident, policy))
        after = rows[-1].sequence
        store.set_cursor(CURSOR, {"sequence": after})
    return queued


def queue(notice: Notice, store: Store, policy: Policy, now: datetime) -> int:
    """Queue a notice for everyone who wants it; how many messages are new."""
    return sum(
        store.queue(
            Message(
                channel=f"{CHANNEL}{receiver.name}",
                incident=notice.incident,
                instance=notice.instance,
                kind="alert",
                marker=notice.marker,
                payload={"event": notice.event, "title": notice.title, "words": notice.words},
                not_before=_when(receiver, policy.timezone, notice.not_before or now),
            )
        )
        for receiver in policy.receivers.values()
        if receiver.wants(notice.event)
    )


def _when(receiver: Receiver, timezone: str, at: datetime) -> datetime:
    """Not before it has gone without an answer for so long, and then in the receiver's hours."""
    return next_covered(receiver.hours, timezone, now=at + timedelta(seconds=receiver.after_s))


def _may_matter(row: AuditEntry) -> bool:
    return row.phase in {"opened", "state", "failed", "refused"}


def notices_of(row: AuditEntry, incident: IncidentRow, policy: Policy) -> Iterable[Notice]:
    """What people are told of one row."""
    guest, marker = incident.guest, f"{row.sequence}"
    of = f" of {row.instance}" if row.instance else ""
    if row.phase == "opened":
        words = f"{incident.reason or 'No reason is given.'}\n\n{_where(incident)}"
        yield Notice("opened", row.incident, "", f"{guest} crashed: its databases are down", words, marker)
        promise = (incident.died_at or incident.opened_at) + timedelta(seconds=policy.objective_s)
        missed = f"{guest}: not accessible {policy.objective_s // 60} minutes after the crash"
        words = f"The objective of {policy.objective_s} s is missed.\n\n{_where(incident)}"
        yield Notice("deadline", row.incident, "", missed, words, f"{marker}/deadline", promise)
    elif row.phase == "state":
        yield from _of_state(row, incident, marker)
    elif row.step and row.step != "update_ticket":
        error, following = row.detail.get("error", ""), row.detail.get("next", "")
        words = f"{error}\n\nNext: {following or 'see the ticket'}\n\n{_where(incident)}"
        yield Notice("failed", row.incident, row.instance, f"{guest}: {row.step}{of} {row.phase}", words, marker)


def _of_state(row: AuditEntry, incident: IncidentRow, marker: str) -> Iterable[Notice]:
    state = row.detail.get("to")
    if state == IncidentState.WAITING_FOR_PERSON:
        words = f"Approve or reject it in Airflow: Required Actions.\n\n{_where(incident)}"
        yield Notice("waiting", row.incident, "", f"{incident.guest}: the repair waits for your answer", words, marker)
    elif state == IncidentState.CONFIRMED:
        title = f"{incident.guest}: its databases accept logins again"
        yield Notice("ended", row.incident, "", title, _where(incident), marker)


def _where(incident: IncidentRow) -> str:
    return f"Incident {incident.incident}, ticket {incident.ticket or 'not open yet'}."


def needed(row: DeliveryRow, store: Store) -> bool:
    """Whether a notice that had to wait is still worth telling: nobody is woken for what was answered or made good."""
    incident = store.incident(row.incident)
    if incident is None:
        return True
    event = row.payload.get("event")
    if event == "waiting":
        return incident.state is IncidentState.WAITING_FOR_PERSON
    return not (event in {"opened", "failed", "deadline"} and incident.state in _WELL)


def post_of(
    channel: str,
    store: Store,
    receivers: Mapping[str, Receiver],
    senders: Mapping[str, Callable[[Receiver, str, str, str], None]],
) -> Callable[[DeliveryRow], None]:
    """How messages of a receiver's channel are told."""
    name = channel.removeprefix(CHANNEL)

    def post(row: DeliveryRow) -> None:
        receiver = receivers.get(name)
        if not needed(row, store):
            raise NoLongerNeededError
        if receiver is None or receiver.by not in senders:
            raise ConfigError(f"{name} is not in the inventory any more.", next_step="restore its entry under notify.")
        senders[receiver.by](receiver, row.payload["title"], row.payload["words"], row.delivery)

    return post


class QueuedAlerts:
    """`ports.Alerts` through the queue: what belongs to no incident is told to everyone who wants `alert`."""

    def __init__(
        self, store: Store, policy: Callable[[], Policy], now: Callable[[], datetime], otherwise: Alerts
    ) -> None:
        """Take where messages wait, who is told, and what is done when nobody is declared who wants it."""
        self._store, self._policy, self._now, self._otherwise = store, policy, now, otherwise

    def alert(self, key: str, title: str, words: str) -> None:
        """See `ports.Alerts`. It is told by the next run of `deliver_messages`, within a minute."""
        now, policy = self._now(), self._policy()
        if not any(receiver.wants("alert") for receiver in policy.receivers.values()):
            self._otherwise.alert(key, title, words)
            return
        queue(Notice("alert", key, "", title, words, f"{now.isoformat()}"), self._store, policy, now)
