"""GGUS, the helpdesk of WLCG and EGI, and any other Zammad: tickets and articles through its REST interface.

Every article of ours has a marker in its subject, which no text of a log can reach: `Unlatch … [MARKER]`. A ticket is
found again by the marker of its first article. The search goes by `condition`, which Zammad answers from its database;
a search by words is answered by its index, which does not know a new ticket for some seconds, and a ticket whose answer
was lost would be made a second time.
"""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from unlatch.errors import ConfigError
from unlatch.models import Json
from unlatch.ticketing import STATES, TicketAccess, TicketSettings
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
from unlatch.ticketing._turn import turn

_API = "/api/v1"
_STATES = {
    "open": "open", "in progress": "open", "waiting": "pending reminder", "resolved": "closed", "closed": "closed",
}  # fmt: skip
_PAGE_RECORDS = 50
_LONGEST_TITLE = 250
_LONGEST_SUBJECT = 100
_REMINDER = timedelta(days=1)
_RIGHTS = (
    "give the token the permission ticket.agent, and its user the rights read, create and change in the group of "
    "the tickets (Admin > Users)."
)


class Ggus:
    """Tickets of one Zammad."""

    name = "ggus"

    def __init__(self, settings: TicketSettings, pause: Callable[[float], None] = time.sleep) -> None:
        self._settings = settings
        self._pause = pause

    def open(self, incident: str, title: str, body: str, reference: str | None = None) -> str:
        """Open the incident's ticket, or find it.

        Args:
            incident: its marker is in the first article's subject.
            title: one line.
            body: the first article.
            reference: the number of a ticket that people have opened (`22001`, `GGUS:22001`, `#22001`): then that one
                is used, and `body` becomes an article there. One that is not found is named in the first article.

        Returns:
            The ticket's number.

        Raises:
            ConfigError: the connection, a right, the group or the customer is wrong.
            TransientError: the helpdesk is out of reach or busy.
        """
        subject = _subject("ticket", incident)
        with self._writing() as rest:
            theirs = self._numbered(reference, rest) if reference else None
            if theirs is not None:
                self._add(theirs["id"], {**_note(body, subject), "internal": self._internal(rest.access)}, rest)
                return str(theirs["number"])
            text = f"Also known as: {reference}\n\n{body}" if reference else body

            def create() -> Json:
                new = {
                    **mapping_option(rest.access, "fields"),
                    "title": one_line(title, _LONGEST_TITLE) or incident,
                    "group": self._required("group", rest.access),
                    "customer": self._required("customer", rest.access),
                    "state": self._state_name("open", rest.access),
                    "article": {**_note(text, subject), "internal": self._internal(rest.access)},
                }
                return self._ticket_of(rest, rest.document(rest.post("POST", f"{_API}/tickets", json=new)))

            return str(rest.once(lambda: self._marked(subject, rest), create)["number"])

    def comment(self, reference: str, marker: str, text: str) -> None:
        """Add an article of type note, once per `marker`.

        Raises:
            ConfigError: there is no such ticket; or the connection or a right is wrong.
            TransientError: the helpdesk is out of reach or busy. Calling again posts nothing twice.
        """
        with self._writing() as rest:
            article = {**_note(text, _subject("comment", marker)), "internal": self._internal(rest.access)}
            self._add(self._ticket(reference, rest)["id"], article, rest)

    def set_state(self, reference: str, state: str) -> None:
        """Set the state that the connection's `states` name, else one of Zammad's own.

        Raises:
            ValueError: another state than those of `ports.Ticketing`.
            ConfigError: there is no such ticket or state; or a right is missing.
            TransientError: the helpdesk is out of reach or busy.
        """
        known_state(state)
        with self._writing() as rest:
            found = self._ticket(reference, rest)
            name = self._state_name(state, rest.access)
            if found.get("state") == name:
                return
            change: Json = {"state": name}
            if name.startswith("pending"):  # Zammad asks for the time at which it reminds
                change["pending_time"] = f"{self._settings.now() + _REMINDER:%Y-%m-%dT%H:%M:%SZ}"
            rest.change("PUT", f"{_API}/tickets/{found['id']}", change)

    def attach(self, reference: str, file_name: str, content: bytes, content_type: str) -> None:
        """Attach a file in an article of its own, once per name.

        Raises:
            ConfigError: there is no such ticket; or a right is missing.
            TransientError: the helpdesk is out of reach or busy.
        """
        data = base64.b64encode(content).decode("ascii")
        with self._writing() as rest:
            article = {
                **_note(f"Attached: {file_name}", _subject("file", file_name)),
                "internal": self._internal(rest.access),
                "attachments": [{"filename": file_name, "data": data, "mime-type": content_type}],
            }
            self._add(self._ticket(reference, rest)["id"], article, rest)

    def link(self, reference: str) -> str:
        """The ticket's address for people."""
        with self._rest() as rest:
            return f"{rest.access.http.base_url}/#ticket/zoom/{self._ticket(reference, rest)['id']}"

    def check(self) -> str:
        """Whether the token is good and the group and the states are there, without writing: for the drill.

        Raises:
            ConfigError: what is missing.
            TransientError: the helpdesk is out of reach or busy.
        """
        with self._rest() as rest:
            rest.document(rest.read(f"{_API}/users/me"))
            self._required("customer", rest.access)
            group = self._required("group", rest.access)
            self._must_name("group", {group}, "groups", rest)
            self._must_name("state", {self._state_name(state, rest.access) for state in STATES}, "ticket_states", rest)
            return f"tickets go to {rest.where}, group {group}; writing was not tried"

    # --- tickets and articles --------------------------------------------------------------------------------------

    def _add(self, ticket: int, article: Json, rest: Rest) -> None:
        def look() -> Json | None:
            return next((a for a in self._articles(ticket, rest) if a.get("subject") == article["subject"]), None)

        def post() -> Json:
            rest.post("POST", f"{_API}/ticket_articles", json={"ticket_id": ticket, **article})
            return article

        rest.once(look, post)

    def _articles(self, ticket: int, rest: Rest) -> list[Json]:
        return self._rows(rest, rest.read(f"{_API}/ticket_articles/by_ticket/{ticket}"))

    def _marked(self, subject: str, rest: Rest) -> Json | None:
        """The ticket with an article of exactly that subject. A search finds answers to it (`RE: …`) too."""
        digits = subject.rpartition("[")[2].rstrip("]")
        for found in self._search("article.subject", "contains", digits, rest):
            if any(article.get("subject") == subject for article in self._articles(found["id"], rest)):
                return found
        return None

    def _ticket(self, reference: str, rest: Rest) -> Json:
        found = self._numbered(reference, rest)
        if found is None:
            raise ConfigError(
                f"{rest.where} has no ticket {reference}, or does not show it to our user.",
                next_step="see whether it was deleted or moved to a group that the token's user may not read.",
            )
        return found

    def _numbered(self, reference: str, rest: Rest) -> Json | None:
        given = re.fullmatch(r"(?:ggus)?[\s:#-]*(\d{1,40})", reference.strip(), re.IGNORECASE | re.ASCII)
        if given is None:
            return None
        search = self._search("ticket.number", "is", given[1], rest)
        return next((found for found in search if str(found["number"]) == given[1]), None)

    def _search(self, attribute: str, operator: str, value: str, rest: Rest) -> Iterator[Json]:
        """Tickets that fulfil a condition, oldest first, page by page, with the names of their states."""
        condition = f"condition[{attribute}]"
        asked = {f"{condition}[operator]": operator, f"{condition}[value]": value, "expand": "true"}
        asked |= {"sort_by": "id", "order_by": "asc"}
        for found in self._pages(f"{_API}/tickets/search", asked, rest):
            yield self._ticket_of(rest, found)

    def _pages(self, path: str, asked: Params, rest: Rest) -> Iterator[Json]:
        before: list[Json] = []
        for page in range(1, MOST_PAGES + 1):
            rows = self._rows(rest, rest.read(path, {**asked, "page": page, "per_page": _PAGE_RECORDS}))
            if rows == before:
                return  # a list that has no pages comes whole each time
            yield from rows
            if len(rows) < _PAGE_RECORDS:
                return
            before = rows
        raise rest.not_understood(f"more than {MOST_PAGES} pages of {path}")

    def _rows(self, rest: Rest, answer: Any) -> list[Json]:
        found = rest.document(answer)
        if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
            raise rest.not_understood("a list was expected")
        return found

    def _ticket_of(self, rest: Rest, found: Any) -> Json:
        if isinstance(found, dict) and isinstance(found.get("id"), int) and found.get("number"):
            return found
        raise rest.not_understood("a ticket with id and number was expected")

    # --- what the connection says ----------------------------------------------------------------------------------

    def _must_name(self, what: str, wanted: set[str], path: str, rest: Rest) -> None:
        there = {str(row.get("name")) for row in self._pages(f"{_API}/{path}", {}, rest) if row.get("active", True)}
        missing = sorted(wanted - there)
        if missing:
            raise ConfigError(
                f"{rest.where} has no {what} {', '.join(missing)}, or does not show it to our user.",
                next_step=f"correct {what} or states in the extra of {rest.access.conn_id}; there are: "
                f"{', '.join(sorted(there)) or 'none'}.",
            )

    def _required(self, name: str, access: TicketAccess) -> str:
        value = text_option(access, name, "")
        if value:
            return value
        raise ConfigError(
            f"{access.conn_id} names no {name} for new tickets.",
            next_step=f'add "{name}" to its extra; see docs/tickets.md.',
        )

    def _internal(self, access: TicketAccess) -> bool:
        return access.options.get("internal", False) is True

    def _state_name(self, state: str, access: TicketAccess) -> str:
        return str({**_STATES, **mapping_option(access, "states")}[state])

    @contextmanager
    def _writing(self) -> Iterator[Rest]:
        with turn(self._settings.directory, self.name), self._rest() as rest:
            yield rest

    def _rest(self) -> Rest:
        access = access_of(self._settings, self.name)
        token = {"Authorization": f"Token token={access.http.password}"}
        return Rest("Zammad", access, words=_words, rights=_RIGHTS, pause=self._pause, headers=token)


def _words(document: Any) -> str:
    return str(document.get("error_human") or document["error"])


def _subject(kind: str, value: str) -> str:
    return f"Unlatch {one_line(value, _LONGEST_SUBJECT)} [{fingerprint(kind, value)}]"


def _note(text: str, subject: str) -> Json:
    return {
        "subject": subject,
        "body": printable(text) or "(no text)",
        "content_type": "text/plain",
        "type": "note",
    }


PLUGIN = Ggus
