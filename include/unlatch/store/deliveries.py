"""The queue of what must be told: kept until it is told, in order, by one worker at a time.

Who tells takes a claim on a lane (one incident's messages for one channel). The claim has an end, because a killed
worker gives nothing back; what it had in hand is then told by another, which looks for the marker first.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import Connection, RowMapping, Select, func, select, update

from unlatch.ports import DeliveryRow, Message
from unlatch.store.part import Part
from unlatch.store.redaction import clean_text, hide_passwords, redact
from unlatch.store.schema import DELIVERIES

OPEN = ("waiting", "refused")
"""States of what is still to be told."""

CLAIM = timedelta(minutes=5)
"""Longer than any ticket system may take: a turn (60 s) and a conversation with every request at its limit."""

GIVE_UP = timedelta(days=1)
"""What is refused for so long keeps the later ones waiting no more."""

_FIRST_PAUSE_S = {"waiting": 30, "refused": 120}
_LONGEST_PAUSE_S = 3600
_EVERYTHING = frozenset({"open", "comment", "state", "attach", "alert"})
_HOLDS_UP = {"open": _EVERYTHING, "comment": frozenset({"comment"})}
"""What a refused message keeps waiting: a state that a form forbids or a file that is too large stop no words."""


class Deliveries(Part):
    """The part of the store that keeps what must be told."""

    def queue(self, message: Message) -> bool:
        """Keep a message; False when it was kept before, whatever became of it.

        A state has no marker of its own: each call is a new one, and those that were not told yet are superseded.
        """
        now = self._clock.now()
        marker = message.marker or uuid.uuid4().hex
        values = {
            "delivery": clean_text(f"{message.channel}/{message.incident}/{message.kind}/{marker}"),
            "channel": message.channel,
            "incident": message.incident,
            "instance": message.instance,
            "kind": message.kind,
            "marker": clean_text(marker),
            "state": "waiting",
            "attempts": 0,
            "queued_at": now,
            "next_at": message.not_before or now,
            "payload": redact(message.payload, hide_passwords),
        }
        with self._database.writing() as connection:
            if message.kind == "state":
                earlier = _lane(message.channel, message.incident).where(DELIVERIES.c.kind == "state")
                earlier = earlier.with_only_columns(DELIVERIES.c.position)
                connection.execute(
                    update(DELIVERIES).where(DELIVERIES.c.position.in_(earlier)).values(state="superseded")
                )
            kept = connection.execute(
                self._database.insert(DELIVERIES)
                .values(values)
                .on_conflict_do_nothing(index_elements=["delivery"])
                .returning(DELIVERIES.c.position)
            )
            return kept.scalar_one_or_none() is not None

    def take_delivery(self, channel: str, incident: str) -> DeliveryRow | None:
        """Claim what is to be told next; None when nothing is due, or another worker is telling.

        While the receiver is out of reach nothing of the lane is due. A message that was refused holds up its own
        kind only, and the ticket's opening everything.
        """
        now = self._clock.now()
        with self._database.writing() as connection:
            rows = connection.execute(_lane(channel, incident).with_for_update()).mappings().all()
            chosen = _next(rows, now)
            if chosen is None:
                return None
            of_row = DELIVERIES.c.position == chosen["position"]
            connection.execute(update(DELIVERIES).where(of_row).values(claimed_until=now + CLAIM))
            return _row(chosen)

    def delivered(self, delivery: str, *, actor: str) -> None:
        """It was told; the audit says so when that was not at the first try. A file's content is not kept longer."""
        now = self._clock.now()
        with self._database.writing() as connection:
            row = _one(connection, delivery)
            values = {"state": "delivered", "delivered_at": now, "claimed_until": None, "error": None}
            if row.kind == "attach":
                values["payload"] = {}
            connection.execute(update(DELIVERIES).where(DELIVERIES.c.delivery == delivery).values(values))
            if row.attempts:
                self._note(connection, row, "delivered", {"attempts": row.attempts + 1}, actor)

    def drop_delivery(self, delivery: str) -> None:
        """It need not be told any more: what it was about is over."""
        values = {"state": "superseded", "claimed_until": None}
        with self._database.writing() as connection:
            connection.execute(update(DELIVERIES).where(DELIVERIES.c.delivery == delivery).values(values))

    def not_delivered(self, delivery: str, error: str, *, refused: bool, actor: str) -> None:
        """It was not told. Tried again later each time; after a day of refusals no more.

        The audit says so once: the first time, and when it is given up.
        """
        now = self._clock.now()
        with self._database.writing() as connection:
            row = _one(connection, delivery)
            state = "refused" if refused else "waiting"
            if refused and now - row.queued_at > GIVE_UP:
                state = "given_up"
            pause_s = min(_FIRST_PAUSE_S.get(state, 0) * 2 ** min(row.attempts, 10), _LONGEST_PAUSE_S)
            values = {
                "state": state,
                "attempts": row.attempts + 1,
                "next_at": now + timedelta(seconds=pause_s),
                "claimed_until": None,
                "error": clean_text(error),
            }
            connection.execute(update(DELIVERIES).where(DELIVERIES.c.delivery == delivery).values(values))
            if row.attempts == 0 or state == "given_up":
                self._note(connection, row, "failed" if state != "given_up" else state, {"error": error}, actor)

    def deliveries(self, incident: str | None = None, *, waiting: bool = True, limit: int = 1000) -> list[DeliveryRow]:
        """Messages in their order: those still to be told, or all; of one incident, or of every one."""
        query = select(DELIVERIES).order_by(DELIVERIES.c.position).limit(limit)
        if waiting:
            query = query.where(DELIVERIES.c.state.in_(OPEN))
        if incident is not None:
            query = query.where(DELIVERIES.c.incident == incident)
        with self._database.reading() as connection:
            return [_row(found) for found in connection.execute(query).mappings()]

    def lanes_due(self) -> tuple[tuple[str, str], ...]:
        """Channel and incident of all that is due, the longest waiting first."""
        lane = (DELIVERIES.c.channel, DELIVERIES.c.incident)
        due = (DELIVERIES.c.state.in_(OPEN), DELIVERIES.c.next_at <= self._clock.now())
        query = select(*lane).where(*due).group_by(*lane).order_by(func.min(DELIVERIES.c.position))
        with self._database.reading() as connection:
            return tuple((row.channel, row.incident) for row in connection.execute(query))

    def deliver_now(self, incident: str | None = None) -> int:
        """Let all that failed be tried at the next occasion, since somebody has made good what was wrong; how many.

        What waits behind it follows; what is only to be told later keeps its time.
        """
        of_incident = (DELIVERIES.c.incident == incident,) if incident is not None else ()
        with self._database.writing() as connection:
            done = connection.execute(
                update(DELIVERIES)
                .where(DELIVERIES.c.state.in_((*OPEN, "given_up")), DELIVERIES.c.attempts > 0, *of_incident)
                .values(next_at=DELIVERIES.c.queued_at, state="waiting")
            )
            return done.rowcount

    def _note(
        self, connection: Connection, row: DeliveryRow, phase: str, detail: dict[str, object], actor: str
    ) -> None:
        about = {"channel": row.channel, "kind": row.kind, "marker": row.marker, **detail}
        self._record(connection, row.incident, phase, about, instance=row.instance, step="update_ticket", actor=actor)


def _lane(channel: str, incident: str) -> Select[tuple[object, ...]]:
    """What is still to be told of an incident by a channel, in order."""
    of_lane = (DELIVERIES.c.channel == channel, DELIVERIES.c.incident == incident, DELIVERIES.c.state.in_(OPEN))
    return select(DELIVERIES).where(*of_lane).order_by(DELIVERIES.c.position)


def _next(rows: Sequence[RowMapping], now: datetime) -> RowMapping | None:
    """The first message of a lane that may be told now."""
    if any(row["claimed_until"] is not None and row["claimed_until"] > now for row in rows):
        return None
    held_up: frozenset[str] = frozenset()
    for row in rows:
        due = row["next_at"] <= now
        if row["state"] == "waiting" and not due and row["attempts"]:
            return None  # the receiver is out of reach
        if due and row["kind"] not in held_up:
            return row
        held_up |= _HOLDS_UP.get(row["kind"], frozenset())
    return None


def _one(connection: Connection, delivery: str) -> DeliveryRow:
    query = select(DELIVERIES).where(DELIVERIES.c.delivery == delivery).with_for_update()
    return _row(connection.execute(query).mappings().one())


def _row(found: RowMapping) -> DeliveryRow:
    return DeliveryRow(**{name: found[name] for name in DeliveryRow.__dataclass_fields__})
