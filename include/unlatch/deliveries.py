"""Telling the ticket system, come what may: everything is queued in the store first, then told from there in order.

So a ticket system that is down stops no repair, a worker that is killed loses no word, and what could not be told is
told later, once: each message has a marker, which a ticket system looks for before it posts.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Protocol

from unlatch.errors import RefusedError, TransientError, UnlatchError
from unlatch.models import Json
from unlatch.ports import TICKET, DeliveryRow, Message, Store, Ticketing


class NoLongerNeededError(Exception):
    """What a message is about is over: nobody need be told."""


class TellingPorts(Protocol):
    """The ports that telling needs."""

    @property
    def store(self) -> Store:
        """Where messages wait."""

    @property
    def ticketing(self) -> Ticketing:
        """Where people read."""

    @property
    def actor(self) -> str:
        """Who asked for it."""


def open_ticket(incident: str, ports: TellingPorts, *, title: str, body: str, reference: str | None) -> None:
    """Open the incident's ticket, or continue the one that a person gave. Idempotent per `reference`."""
    payload: Json = {"title": title, "body": body, "reference": reference}
    _queue(incident, ports, "open", payload, marker=f"open/{reference or ''}")
    deliver(TICKET, incident, ports, ticket_post(ports))


def add_comment(incident: str, instance: str, ports: TellingPorts, marker: str, text: str) -> None:
    """Comment on the incident's ticket, once per instance and marker."""
    # The incident is part of the marker, since a person may have given one ticket for two incidents.
    _queue(incident, ports, "comment", {"text": text}, instance=instance, marker=f"{incident}/{instance}/{marker}")
    deliver(TICKET, incident, ports, ticket_post(ports))


def set_ticket_state(incident: str, ports: TellingPorts, state: str) -> None:
    """Set the state of the incident's ticket."""
    _queue(incident, ports, "state", {"state": state})
    deliver(TICKET, incident, ports, ticket_post(ports))


def attach_to_ticket(incident: str, ports: TellingPorts, *, file_name: str, content: bytes, content_type: str) -> None:
    """Attach a file to the incident's ticket, once per name."""
    payload: Json = {"file": base64.b64encode(content).decode(), "type": content_type}
    _queue(incident, ports, "attach", payload, marker=file_name)
    deliver(TICKET, incident, ports, ticket_post(ports))


def deliver(channel: str, incident: str, ports: TellingPorts, post: Callable[[DeliveryRow], None]) -> int:
    """Tell what is due of one incident by one channel, in order; how many messages were told.

    It ends when nothing is due, or the receiver is out of reach; then a later call tells the rest. No error of the
    receiver is raised: nobody's repair may end because somebody cannot be told.
    """
    told = 0
    while (row := ports.store.take_delivery(channel, incident)) is not None:
        try:
            post(row)
        except NoLongerNeededError:
            ports.store.drop_delivery(row.delivery)
        except (TransientError, OSError) as error:
            ports.store.not_delivered(row.delivery, str(error), refused=False, actor=ports.actor)
        except Exception as error:  # noqa: BLE001  # also what a plug-in does wrong must not end a repair
            words = str(error) if isinstance(error, UnlatchError) else f"{type(error).__name__}: {error}"
            ports.store.not_delivered(row.delivery, words, refused=True, actor=ports.actor)
        else:
            ports.store.delivered(row.delivery, actor=ports.actor)
            told += 1
    return told


def deliver_everything(ports: TellingPorts, post_of: Callable[[str], Callable[[DeliveryRow], None]]) -> int:
    """Tell all that is due, of every incident; how many messages were told.

    Args:
        ports: What telling needs.
        post_of: How messages of a channel are told.
    """
    return sum(deliver(channel, of, ports, post_of(channel)) for channel, of in ports.store.lanes_due())


def ticket_post(ports: TellingPorts) -> Callable[[DeliveryRow], None]:
    """How a message is told to the site's ticket system."""
    return lambda row: _post(row, ports)


def _queue(
    incident: str, ports: TellingPorts, kind: str, payload: Json, *, instance: str = "", marker: str = ""
) -> None:
    ports.store.queue(Message(TICKET, incident, instance, kind, marker, payload))


def _post(row: DeliveryRow, ports: TellingPorts) -> None:
    tickets, said = ports.ticketing, row.payload
    if row.kind == "open":
        reference = tickets.open(row.incident, said["title"], said["body"], said["reference"])
        ports.store.set_ticket(row.incident, reference)
        return
    known = ports.store.incident(row.incident)
    if known is None or known.ticket is None:
        raise RefusedError("The incident has no ticket.", next_step="see why it could not be opened.")
    if row.kind == "comment":
        tickets.comment(known.ticket, row.marker, said["text"])
    elif row.kind == "state":
        tickets.set_state(known.ticket, said["state"])
    else:
        tickets.attach(known.ticket, row.marker, base64.b64decode(said["file"]), said["type"])
