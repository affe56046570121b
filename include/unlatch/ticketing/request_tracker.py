"""Request Tracker (RT) 5: tickets and comments through its REST 2 interface.

A ticket of ours refers to `urn:unlatch:INCIDENT`, by which it is found again: RT answers a search for links from its
database, keeps a link when people change the subject, and takes it along when they merge tickets. Every comment of ours
has a marker in its subject, which no text of a log can reach. Comments are used and not replies: a reply is mailed to
the requestors, and opens a ticket that is resolved.

RT does not tell that it hides something. A user without the right ShowTicketComments sees a ticket without comments,
and would post each one again and again. So the first comment on a ticket is looked for after it was posted; when it is
not there, the ticket gets a link that says so, and nothing more is posted until comments are seen. A new ticket that is
not shown cannot get one: then a file beside the lock says so.
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unlatch.errors import ConfigError
from unlatch.models import Json
from unlatch.ticketing import TicketSettings
from unlatch.ticketing._rest import (
    MOST_PAGES,
    Params,
    Rest,
    access_of,
    fingerprint,
    known_state,
    mapping_option,
    one_line,
    printable,
    text_option,
)
from unlatch.ticketing._turn import not_writable, turn

_STATES = {
    "open": "new", "in progress": "open", "waiting": "stalled", "resolved": "resolved", "closed": "resolved",
}  # fmt: skip
_PAGE_RECORDS = 100  # RT gives no more
_LONGEST_TITLE = 200
_LONGEST_SUBJECT = 100
_MARK = len(" [0123456789abcdef01234567]")
_SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,99}")
_HIDDEN = "urn:unlatch:comments-not-shown"
_RIGHTS = (
    "give the user SeeQueue, ShowTicket, ShowTicketComments, CreateTicket, CommentOnTicket and ModifyTicket in the "
    "queue (Admin > Queues > User Rights), or correct queue, states and fields in the extra; see docs/tickets.md."
)


class RequestTracker:
    """Tickets of one RT."""

    name = "request_tracker"

    def __init__(self, settings: TicketSettings, pause: Callable[[float], None] = time.sleep) -> None:
        self._settings = settings
        self._pause = pause

    def open(self, incident: str, title: str, body: str, reference: str | None = None) -> str:
        """Open the incident's ticket, or find it.

        Args:
            incident: the ticket refers to `urn:unlatch:INCIDENT`.
            title: one line, cut at 200 characters.
            body: the first message.
            reference: the number of a ticket that people have opened (`4711`, `#4711`, `RT:4711`): then that one is
                used, and `body` becomes a comment there. One that is not found is named in the first message.

        Returns:
            The ticket's number.

        Raises:
            ConfigError: the connection, a right or the queue is wrong.
            TransientError: RT is out of reach or busy.
        """
        ours = _urn(incident)
        with self._writing() as rest:
            theirs = self._given(reference, rest) if reference else None
            if theirs is not None:
                found = self._ticket(theirs, rest)
                self._add(found, _message(body, _subject("ticket", incident)), rest)
                if ours not in _links(found):
                    rest.change("PUT", f"{_api(rest)}/ticket/{theirs}", {"AddRefersTo": ours})
                return theirs
            text = f"Also known as: {reference}\n\n{body}" if reference else body
            hidden = self._settings.directory / f".{self.name}.{fingerprint('ticket', incident)}.hidden"

            def look() -> str | None:
                return self._search(f"RefersTo = '{ours}'", rest)

            def create() -> str:
                if hidden.exists():
                    raise self._ticket_not_shown(incident, rest)
                new = {
                    **mapping_option(rest.access, "fields"),
                    "Queue": self._queue(rest),
                    "Subject": one_line(title, _LONGEST_TITLE) or incident,
                    "Status": self._state_name("open", rest),
                    "RefersTo": ours,
                    "Content": printable(text),
                    "ContentType": "text/plain",
                }
                made = self._number_of(rest, rest.document(rest.post("POST", f"{_api(rest)}/ticket", json=new)))
                if look() is None:
                    _touch(hidden)
                    raise self._ticket_not_shown(incident, rest)
                return made

            made = rest.once(look, create)
            hidden.unlink(missing_ok=True)
            return made

    def comment(self, reference: str, marker: str, text: str) -> None:
        """Add a comment, once per `marker`.

        Raises:
            ConfigError: there is no such ticket; or the connection or a right is wrong.
            TransientError: RT is out of reach or busy. Calling again posts nothing twice.
        """
        with self._writing() as rest:
            self._add(self._ticket(reference, rest), _message(text, _subject("comment", marker)), rest)

    def set_state(self, reference: str, state: str) -> None:
        """Set the status that the connection's `states` name, else one of RT's own.

        Raises:
            ValueError: another state than those of `ports.Ticketing`.
            ConfigError: there is no such ticket; or its queue has no such status, or forbids it, or a right is missing.
            TransientError: RT is out of reach or busy.
        """
        known_state(state)
        with self._writing() as rest:
            name = self._state_name(state, rest)
            if self._status(reference, rest) == name.casefold():
                return
            answer = rest.change("PUT", f"{_api(rest)}/ticket/{reference}", {"Status": name})
            if self._status(reference, rest) != name.casefold():  # RT says 200 all the same
                told = rest.document(answer)
                words = "; ".join(map(str, told)) if isinstance(told, list) else "it does not say why"
                raise ConfigError(
                    f"{rest.where} did not set ticket {reference} to {name!r}: {words}.", next_step=_RIGHTS
                )

    def attach(self, reference: str, file_name: str, content: bytes, content_type: str) -> None:
        """Attach a file in a comment of its own, once per name.

        Raises:
            ConfigError: there is no such ticket; or a right is missing.
            TransientError: RT is out of reach or busy.
        """
        words = f"Attached: {file_name}" if content else f"{file_name} is empty."
        message = _message(words, _subject("file", file_name))
        if content:  # RT takes no empty file
            data = base64.b64encode(content).decode("ascii")
            message["Attachments"] = [{"FileName": _plain(file_name), "FileType": content_type, "FileContent": data}]
        with self._writing() as rest:
            self._add(self._ticket(reference, rest), message, rest)

    def link(self, reference: str) -> str:
        """The ticket's address for people; nothing is asked."""
        with self._rest() as rest:
            return f"{rest.access.http.base_url}{_path(rest)}/Ticket/Display.html?id={reference}"

    def check(self) -> str:
        """Whether the login is good and the user may open tickets in the queue, without writing: for the drill.

        Raises:
            ConfigError: what is missing.
            TransientError: RT is out of reach or busy.
        """
        with self._rest() as rest:
            queue = self._queue(rest)
            asked = {"query": json.dumps([{"field": "Name", "value": queue}]), "fields": "Name,Disabled,_hyperlinks"}
            named = [row for row in self._pages("/queues", asked, rest) if row.get("Name") == queue]
            if not named or str(named[0].get("Disabled", "0")) != "0":
                raise ConfigError(
                    f"{rest.where} has no queue {queue!r}, or does not show it to our user, or it is disabled.",
                    next_step=f"correct queue in the extra of {rest.access.conn_id}, or {_RIGHTS}",
                )
            if not any(link.get("ref") == "create" for link in _hyperlinks(named[0])):
                raise ConfigError(f"{rest.where} lets our user open no ticket in {queue!r}.", next_step=_RIGHTS)
            return f"tickets go to {rest.where}, queue {queue}; writing was not tried"

    # --- tickets and comments --------------------------------------------------------------------------------------

    def _add(self, ticket: Json, message: Json, rest: Rest) -> None:
        """Comment, unless a comment with that subject is there."""
        path = f"{_api(rest)}/ticket/{ticket['id']}"
        hidden = False

        def look() -> bool | None:
            nonlocal hidden
            hidden = True
            for entry in self._pages(f"/ticket/{ticket['id']}/history", {"fields": "Type,Data"}, rest):
                if entry.get("Type") == "Comment":
                    hidden = False
                    subject = str(entry.get("Data")).strip()  # long ones come folded, so only the ends are compared
                    if subject.startswith("Unlatch ") and subject.endswith(message["Subject"][-_MARK:]):
                        return True
            if hidden and _HIDDEN in _links(ticket):
                raise self._not_shown(ticket, rest)
            return None

        def post() -> bool:
            rest.post("POST", f"{path}/comment", json=message)
            return True

        rest.once(look, post)
        if hidden and look() is None:
            rest.change("PUT", path, {"AddRefersTo": _HIDDEN})
            raise self._not_shown(ticket, rest)

    def _not_shown(self, ticket: Json, rest: Rest) -> ConfigError:
        return ConfigError(
            f"{rest.where} shows no comment on ticket {ticket['id']} that was posted there, so nobody can tell what has"
            " been posted already.",
            next_step="give the user the right ShowTicketComments in the ticket's queue.",
        )

    def _ticket_not_shown(self, incident: str, rest: Rest) -> ConfigError:
        return ConfigError(
            f"{rest.where} has taken the ticket of {incident}, but does not show it: it is not opened again.",
            next_step="give the user the right ShowTicket in the queue.",
        )

    def _ticket(self, reference: str, rest: Rest) -> Json:
        if not re.fullmatch(r"\d{1,18}", reference, re.ASCII):
            raise self._missing(reference, rest)
        answer = rest.read(f"{_api(rest)}/ticket/{reference}", missing_is_fine=True)
        if answer.status_code != 200:  # noqa: PLR2004  # it was not found
            raise self._missing(reference, rest)
        found = rest.document(answer)
        self._number_of(rest, found)
        return dict(found)

    def _status(self, reference: str, rest: Rest) -> str:
        return str(self._ticket(reference, rest).get("Status")).casefold()

    def _missing(self, reference: str, rest: Rest) -> ConfigError:
        return ConfigError(
            f"{rest.where} has no ticket {reference}.", next_step="see whether it was deleted, or shredded."
        )

    def _given(self, reference: str, rest: Rest) -> str | None:
        """The ticket that a person means; by a search, which leaves out what is not shown to our user."""
        given = re.fullmatch(r"(?:rt)?[\s:#-]*(\d{1,18})", reference.strip(), re.IGNORECASE | re.ASCII)
        return self._search(f"id = {given[1]}", rest) if given else None

    def _search(self, query: str, rest: Rest) -> str | None:
        """The first ticket that fulfils a condition in TicketSQL."""
        asked = {"query": query, "orderby": "id"}
        return next((self._number_of(rest, row) for row in self._pages("/tickets", asked, rest)), None)

    def _number_of(self, rest: Rest, found: Any) -> str:
        if isinstance(found, dict) and re.fullmatch(r"[1-9]\d*", str(found.get("id")), re.ASCII):
            return str(found["id"])
        raise rest.not_understood("a ticket with a number was expected")

    def _pages(self, path: str, asked: Params, rest: Rest) -> Iterator[Json]:
        """All rows. How many there are is told to superusers only, and rows that are hidden leave pages short."""
        for page in range(1, MOST_PAGES + 1):
            where: Params = {**asked, "page": page, "per_page": _PAGE_RECORDS}
            document = rest.document(rest.read(f"{_api(rest)}{path}", where))
            rows = document.get("items") if isinstance(document, dict) else None
            if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
                raise rest.not_understood("a page of items was expected")
            yield from rows
            if not rows or page == document.get("pages"):
                return
        raise rest.not_understood(f"more than {MOST_PAGES} pages of {path}")

    # --- the connection --------------------------------------------------------------------------------------------

    def _queue(self, rest: Rest) -> str:
        queue = text_option(rest.access, "queue", "")
        if queue:
            return queue
        raise ConfigError(
            f"{rest.access.conn_id} names no queue for new tickets.",
            next_step='add "queue" to its extra; see docs/tickets.md.',
        )

    def _state_name(self, state: str, rest: Rest) -> str:
        return str({**_STATES, **mapping_option(rest.access, "states")}[state])

    @contextmanager
    def _writing(self) -> Iterator[Rest]:
        with turn(self._settings.directory, self.name), self._rest() as rest:
            yield rest

    def _rest(self) -> Rest:
        access = access_of(self._settings, self.name)
        login, secret = access.http.login, access.http.password
        return Rest(
            "Request Tracker",
            access,
            words=lambda document: str(document["message"]),
            rights=_RIGHTS,
            refusals=frozenset({400, 403}),  # a comment without the right is a 400
            pause=self._pause,
            headers={} if login else {"Authorization": f"token {secret}"},
            auth=(login, secret) if login else None,
        )


def _path(rest: Rest) -> str:
    path = text_option(rest.access, "path", "").strip("/")
    return f"/{path}" if path else ""


def _api(rest: Rest) -> str:
    return f"{_path(rest)}/REST/2.0"


def _urn(incident: str) -> str:
    return f"urn:unlatch:{incident if _SAFE_ID.fullmatch(incident) else fingerprint('incident', incident)}"


def _hyperlinks(record: Json) -> list[Json]:
    links = record.get("_hyperlinks")
    return [link for link in links if isinstance(link, dict)] if isinstance(links, list) else []


def _links(ticket: Json) -> set[str]:
    """What the ticket refers to."""
    return {str(link.get("_url")) for link in _hyperlinks(ticket) if link.get("ref") == "refers-to"}


def _subject(kind: str, value: str) -> str:
    return f"Unlatch {_plain(value)[:_LONGEST_SUBJECT]} [{fingerprint(kind, value)}]"


def _plain(text: str) -> str:
    """Words that RT gives back as they are: it decodes and breaks others in headers and in names of files."""
    return re.sub(r"[^\w./: -]", "_", " ".join(text.split()), flags=re.ASCII)


def _touch(path: Path) -> None:
    try:
        path.touch()
    except OSError as error:
        raise not_writable(error, path.parent) from error


def _message(text: str, subject: str) -> Json:
    return {"Subject": subject, "Content": printable(text) or "(no text)", "ContentType": "text/plain"}


PLUGIN = RequestTracker
