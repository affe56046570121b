"""What must be told to somebody, kept until it is told."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from unlatch.models import Json

TICKET = "ticket"
"""The channel to the site's ticket system; every other channel is an alert's receiver."""


@dataclass(frozen=True)
class Message:
    """Something to tell, once.

    Attributes:
        channel: `ticket`, or the receiver of an alert. Messages of one incident keep their order within a channel.
        incident: The incident's id.
        instance: The instance that it is about, or the empty string.
        kind: `open`, `comment`, `state` or `attach` for tickets, else `alert`.
        marker: Tells the same message from another one of that channel, incident and kind.
        payload: What is told.
        not_before: Not worth telling before then; None: now.
    """

    channel: str
    incident: str
    instance: str
    kind: str
    marker: str
    payload: Json
    not_before: datetime | None = None


@dataclass(frozen=True)
class DeliveryRow:
    """A message and what became of it.

    Attributes:
        delivery: Its id.
        state: `waiting` (not tried yet, or the receiver was out of reach), `refused` (a person has to correct
            something; it is tried again), `delivered`, `superseded` (a later state was told instead) or `given_up`.
        attempts: How often it was tried in vain.
        next_at: Not tried before then.
        error: Why it was not told, the last time.
    """

    delivery: str
    channel: str
    incident: str
    instance: str
    kind: str
    marker: str
    state: str
    attempts: int
    queued_at: datetime
    next_at: datetime
    delivered_at: datetime | None
    payload: Json
    error: str | None


class Outbox(Protocol):
    """The queue of messages. Each call is one transaction."""

    def queue(self, message: Message) -> bool:
        """Keep a message; False when it was kept before, whatever became of it."""

    def take_delivery(self, channel: str, incident: str) -> DeliveryRow | None:
        """Claim what is to be told next; None when nothing is due, or another worker is telling.

        A claim ends after some minutes, so that what a killed worker had in hand is told by another.
        """

    def delivered(self, delivery: str, *, actor: str) -> None:
        """It was told."""

    def drop_delivery(self, delivery: str) -> None:
        """It need not be told any more."""

    def not_delivered(self, delivery: str, error: str, *, refused: bool, actor: str) -> None:
        """It was not told. `refused`: waiting alone will not help, so it may stop the others of its kind only."""

    def lanes_due(self) -> tuple[tuple[str, str], ...]:
        """Channel and incident of all that is due, the longest waiting first."""
