"""ServiceNow incidents through its Table API, with a user who has the role itil and may read journal entries.

An incident of ours carries Unlatch's incident id as `correlation_id`. Every work note of ours begins with a line
`[unlatch:MARKER]`, which is looked for in `sys_journal_field` before a note is posted. The first note is made together
with the incident, so an incident without any readable note means that the journal cannot be read: then nothing is
posted, because a marker that cannot be seen would be posted again and again.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from unlatch.errors import ConfigError
from unlatch.models import Json
from unlatch.ticketing import TicketAccess, TicketSettings
from unlatch.ticketing._rest import (
    MOST_PAGES,
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

_TABLES = "/api/now/table"
_ATTACHMENTS = "/api/now/attachment"
_STATES = {"open": "1", "in progress": "2", "waiting": "3", "resolved": "6", "closed": "7"}
_OPENED = "opened"
_PAGE_RECORDS = 100
_LONGEST_TITLE = 160
_LONGEST_DESCRIPTION = 4000
_SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,99}")
_MARK = re.compile(r"\[(/?)(unlatch:|code\])", re.IGNORECASE)
_RIGHTS = (
    "give the user the role itil, and let it read sys_journal_field (an ACL of type record, operation read); "
    "a data policy may also ask for fields: see docs/tickets.md."
)


class ServiceNow:
    """Incidents of one ServiceNow instance."""

    name = "servicenow"

    def __init__(self, settings: TicketSettings, pause: Callable[[float], None] = time.sleep) -> None:
        self._settings = settings
        self._pause = pause

    def open(self, incident: str, title: str, body: str, reference: str | None = None) -> str:
        """Open the incident, or find it.

        Args:
            incident: becomes the correlation id.
            title: one line, cut at 160 characters.
            body: the description.
            reference: the number of an incident that people have opened: then that one is used, and `body` becomes its
                first note of ours. A reference of another system is named in the description.

        Returns:
            The incident's number.

        Raises:
            ConfigError: the connection, a role, or the assignment group is wrong.
            TransientError: ServiceNow is out of reach or busy.
        """
        with self._writing() as rest:
            theirs = self._by("number", reference, rest) if reference else None
            if theirs is not None:
                marker, text = f"{_OPENED}/{incident}", f"{title}\n\n{body}"
                self._note(theirs["sys_id"], marker, text, rest, first=True)
                self._note(theirs["sys_id"], marker, text, rest)  # finds it: then the journal can be read
                return str(theirs["number"])
            correlation = incident if _SAFE_ID.fullmatch(incident) else f"unlatch-{fingerprint('incident', incident)}"
            made: Json = {}

            def create() -> Json:
                nonlocal made
                made = made or self._new(correlation, title, body, reference, rest)
                return self._record(rest, rest.post("POST", self._table(rest), json=made))

            found = rest.once(lambda: self._by("correlation_id", correlation, rest), create)
            return str(found["number"])

    def comment(self, reference: str, marker: str, text: str) -> None:
        """Add a work note, once per `marker`.

        Raises:
            ConfigError: there is no such incident; or the connection or a role is wrong.
            TransientError: ServiceNow is out of reach or busy. Calling again posts nothing twice.
        """
        with self._writing() as rest:
            self._note(self._ticket(reference, rest)["sys_id"], marker, text, rest)

    def set_state(self, reference: str, state: str) -> None:
        """Set the state's number: `open` 1, `in progress` 2, `waiting` 3, `resolved` 6, `closed` 7.

        Raises:
            ValueError: another state.
            ConfigError: there is no such incident; a role, or a field that the site makes mandatory, is missing.
            TransientError: ServiceNow is out of reach or busy.
        """
        known_state(state)
        with self._writing() as rest:
            found = self._ticket(reference, rest)
            number = self._state_number(state, rest.access)
            if str(found["state"]) == number:
                return
            change: Json = {"state": number}
            if state == "waiting":
                change["hold_reason"] = text_option(rest.access, "hold_reason", "4")
            elif state in {"resolved", "closed"}:
                change["close_code"] = text_option(rest.access, "close_code", "Solution provided")
                change["close_notes"] = "Unlatch: see the work notes."
            rest.change("PATCH", f"{self._table(rest)}/{found['sys_id']}", change)

    def attach(self, reference: str, file_name: str, content: bytes, content_type: str) -> None:
        """Attach a file, once per name.

        Raises:
            ConfigError: there is no such incident; or the user may not attach files of that kind.
            TransientError: ServiceNow is out of reach or busy.
        """
        name = file_name.replace("^", "_")
        with self._writing() as rest:
            record = self._ticket(reference, rest)["sys_id"]
            query = f"table_sys_id={record}^file_name={name}"

            def look() -> Json | None:
                found = self._records(rest, rest.read(_ATTACHMENTS, {"sysparm_query": query, "sysparm_limit": 1}))
                return next((entry for entry in found if entry.get("file_name") == name), None)

            def post() -> Json:
                where = {"table_name": self._table_name(rest.access), "table_sys_id": record, "file_name": name}
                kind = {"Content-Type": content_type}
                answer = rest.post("POST", f"{_ATTACHMENTS}/file", params=where, data=content, headers=kind)
                return self._record(rest, answer)

            rest.once(look, post)

    def link(self, reference: str) -> str:
        """The incident's address for people; nothing is asked."""
        access = access_of(self._settings, self.name)
        table = self._table_name(access)
        return f"{access.http.base_url}/nav_to.do?uri={table}.do?sysparm_query=number={reference}"

    def check(self) -> str:
        """Whether the user can see the incidents, the journal and the group, without writing: for the drill.

        Raises:
            ConfigError: what is missing.
            TransientError: ServiceNow is out of reach or busy.
        """
        with self._rest() as rest:
            for path in (self._table(rest), f"{_TABLES}/sys_journal_field"):
                self._records(rest, rest.read(path, {"sysparm_fields": "sys_id", "sysparm_limit": 1}))
            group = text_option(rest.access, "assignment_group", "")
            self._assigned(group, rest)
            to = f" for the group {group}" if group else ""
            return f"incidents go to {rest.where}, table {self._table_name(rest.access)}{to}; writing was not tried"

    # --- what a record is ------------------------------------------------------------------------------------------

    def _new(self, correlation: str, title: str, body: str, reference: str | None, rest: Rest) -> Json:
        text = f"Also known as: {reference}\n\n{body}" if reference else body
        return {
            **mapping_option(rest.access, "fields"),
            **self._assigned(text_option(rest.access, "assignment_group", ""), rest),
            "short_description": one_line(title, _LONGEST_TITLE),
            "description": _plain(text)[:_LONGEST_DESCRIPTION],
            "correlation_id": correlation,
            "correlation_display": "Unlatch",
            "state": self._state_number("open", rest.access),
            "work_notes": f"{_mark(_OPENED)}\nOpened by Unlatch, which adds its notes here.",
        }

    def _assigned(self, group: str, rest: Rest) -> Json:
        """Looked up first: ServiceNow takes an incident for an unknown group, and leaves it with nobody."""
        if not group:
            return {}
        asked = {"sysparm_query": f"name={group}", "sysparm_fields": "sys_id,name"}
        for found in self._records(rest, rest.read(f"{_TABLES}/sys_user_group", {**asked, "sysparm_limit": 10})):
            if found.get("name") == group:
                return {"assignment_group": found["sys_id"]}
        raise ConfigError(
            f"{rest.where} has no group {group!r}, or does not show it to our user.",
            next_step=f"correct assignment_group in the extra of {rest.access.conn_id}.",
        )

    def _ticket(self, reference: str, rest: Rest) -> Json:
        found = self._by("number", reference, rest)
        if found is None:
            raise ConfigError(
                f"{rest.where} has no incident {reference}, or does not show it to our user.",
                next_step="see whether it was deleted or moved to another table, and the user's roles.",
            )
        return found

    def _by(self, field: str, value: str, rest: Rest) -> Json | None:
        """The record whose field is that. ServiceNow leaves out of a query what it does not know, and tells all."""
        if not _SAFE_ID.fullmatch(value):
            return None  # `^` and the like are operators of the query language, and in no number
        fields = "sys_id,number,state,correlation_id"
        asked = {"sysparm_query": f"{field}={value}^ORDERBYsys_created_on", "sysparm_fields": fields}
        for found in self._all(self._table(rest), asked, rest):
            if str(found.get(field, "")).casefold() != value.casefold():
                raise rest.not_understood(f"asked for the {field} {value} it told others: the table has no such field")
            if not all(found.get(name) for name in ("sys_id", "number", "state")):
                raise rest.not_understood(f"the incident {value} has no sys_id, number or state that can be read")
            return found
        return None

    def _note(self, record: str, marker: str, text: str, rest: Rest, *, first: bool = False) -> None:
        mark = _mark(marker)

        def look() -> bool | None:
            notes = 0
            asked = {"sysparm_query": f"element_id={record}^element=work_notes^ORDERBYsys_created_on"}
            for entry in self._all(f"{_TABLES}/sys_journal_field", {**asked, "sysparm_fields": "value"}, rest):
                notes += 1
                if str(entry.get("value", "")).startswith(mark):
                    return True
            if not notes and not first:
                raise ConfigError(
                    f"{rest.where} shows no work note of an incident that has some, so nobody can tell what has been"
                    " posted already.",
                    next_step="let the user read sys_journal_field (an ACL of type record, operation read).",
                )
            return None

        def post() -> bool:
            rest.post("PATCH", f"{self._table(rest)}/{record}", json={"work_notes": f"{mark}\n{_plain(text)}"})
            return True

        rest.once(look, post)

    # --- tables ----------------------------------------------------------------------------------------------------

    def _all(self, path: str, asked: dict[str, str], rest: Rest) -> Iterator[Json]:
        """All records, page by page. A page may be short, when some of its records are hidden from the user."""
        for page in range(MOST_PAGES):
            where: dict[str, str | int] = {"sysparm_limit": _PAGE_RECORDS, "sysparm_offset": page * _PAGE_RECORDS}
            answer = rest.read(path, {**asked, **where})
            yield from self._records(rest, answer)
            if "next" not in answer.links:  # a signal only: its address is not followed, nor given the password
                return
        raise rest.not_understood(f"more than {MOST_PAGES} pages of {path}")

    def _records(self, rest: Rest, answer: Any) -> list[Json]:
        document = rest.document(answer)
        found = document.get("result") if isinstance(document, dict) else None
        if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
            raise rest.not_understood("a list of records was expected")
        return found

    def _record(self, rest: Rest, answer: Any) -> Json:
        document = rest.document(answer)
        found = document.get("result") if isinstance(document, dict) else None
        if not isinstance(found, dict) or not found.get("sys_id"):
            raise rest.not_understood("a record was expected")
        return found

    def _table_name(self, access: TicketAccess) -> str:
        table = text_option(access, "table", "incident")
        if not re.fullmatch(r"[a-z][a-z0-9_]*", table):
            raise ConfigError(f"{table!r} is no table.", next_step=f"correct table in the extra of {access.conn_id}.")
        return table

    def _table(self, rest: Rest) -> str:
        return f"{_TABLES}/{self._table_name(rest.access)}"

    def _state_number(self, state: str, access: TicketAccess) -> str:
        return str({**_STATES, **mapping_option(access, "states")}[state])

    # --- the connection --------------------------------------------------------------------------------------------

    @contextmanager
    def _writing(self) -> Iterator[Rest]:
        with turn(self._settings.directory, self.name), self._rest() as rest:
            yield rest

    def _rest(self) -> Rest:
        access = access_of(self._settings, self.name)
        login = (access.http.login, access.http.password)
        return Rest("ServiceNow", access, words=_words, rights=_RIGHTS, pause=self._pause, auth=login)


def _words(document: Any) -> str:
    error = document["error"]
    return f"{error['message']}: {error['detail']}" if error.get("detail") else str(error["message"])


def _mark(marker: str) -> str:
    return f"[unlatch:{fingerprint('comment', marker)}]"


def _plain(text: str) -> str:
    """Words from logs, which must neither look like a marker of ours nor switch the journal to HTML (`[code]`)."""
    return _MARK.sub(r"[ \1\2", printable(text))


PLUGIN = ServiceNow
