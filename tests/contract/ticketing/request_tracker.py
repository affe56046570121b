"""Request Tracker's REST 2 interface, answering as RT 5.0.3 was seen to answer (`make test-rt` asks a real one).

What its documentation does not say: a status that is refused is a 200 whose document tells why; a comment without the
right is a 400; totals are for superusers; a comment's subject comes back as `Data`, folded when it is long.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.contract.ticketing.https_desk import SECRET, Answer, Asked, HttpsDesk, Json, plugged_in, settings_of
from unlatch.ticketing import TicketSettings

STATES = {"reported": "open", "open": "in progress", "stalled": "waiting", "resolved": "resolved", "archived": "closed"}
OPTIONS: Json = {
    "queue": "DBoD",
    "states": {state: name for name, state in STATES.items()},
    "fields": {"Priority": "50"},
}


class RequestTracker(HttpsDesk):
    """One RT with one queue, whose lifecycle is the site's own."""

    def __init__(self, directory: Path) -> None:
        self.ticket_rows: list[Json] = []
        self.transactions: list[Json] = []
        self.statuses = ["new", "rejected", "deleted", *STATES]
        self.shows: Callable[[Json], bool] = lambda _: True
        self.may: Callable[[str], bool] = lambda _: True
        super().__init__(directory)

    def lets_in(self, asked: Asked) -> bool:
        return asked.headers.get("Authorization") in {f"token {SECRET}", "Basic dW5sYXRjaDpzM2NyZXQtb2YtdGlja2V0cw=="}

    def error(self, status: int, words: str) -> Answer:
        return Answer(status, {"message": words})

    def answer(self, asked: Asked) -> Answer:  # noqa: PLR0911  # one line per request
        path = asked.path.removeprefix("/REST/2.0/")
        match asked.method, path.split("/"):
            case "GET", ["queues"]:
                return self._page(asked, self._queues(json.loads(asked.query["query"])))
            case "GET", ["tickets"]:
                return self._page(asked, self._search(asked.query["query"]))
            case "GET", ["ticket", ticket]:
                row = self._row(ticket)
                return Answer(200, self._serialized(row)) if row else self.error(404, "Not Found")
            case "GET", ["ticket", ticket, "history"]:
                return self._page(asked, [row for row in self.transactions if row["ticket"] == int(ticket)])
            case "POST", ["ticket"]:
                return self._created(asked.document)
            case "POST", ["ticket", ticket, "comment"]:
                return self._commented(int(ticket), asked.document)
            case "PUT", ["ticket", ticket]:
                return Answer(200, self._updated(self._row(ticket) or {}, asked.document))
        return self.error(404, "Not Found")

    def add(self, **values: Any) -> Json:
        """A ticket."""
        row = {"id": len(self.ticket_rows) + 1, "Status": "new", "Subject": "", "RefersTo": [], **values}
        self.ticket_rows.append(row)
        return row

    def transaction(self, ticket: int, kind: str, data: str = "", **values: Any) -> Json:
        """One entry of a ticket's history."""
        number = str(len(self.transactions) + 1)
        row = {"id": number, "type": "transaction", "ticket": ticket, "Type": kind, "Data": data, **values}
        self.transactions.append(row)
        return row

    def _row(self, ticket: str) -> Json | None:
        return next((row for row in self.ticket_rows if str(row["id"]) == ticket), None)

    def _serialized(self, row: Json) -> Json:
        here = f"{self.url}/REST/2.0/ticket/{row['id']}"
        links = [
            {"ref": "self", "type": "ticket", "id": row["id"], "_url": here},
            *({"ref": "refers-to", "type": "external", "_url": uri} for uri in row["RefersTo"]),
            {"ref": "history", "_url": f"{here}/history"},
        ]
        return {"id": row["id"], "Subject": row["Subject"], "Status": row["Status"], "_hyperlinks": links}

    def _queues(self, query: list[Json]) -> list[Json]:
        create = [{"ref": "create", "type": "ticket", "_url": "…"}] if self.may("CreateTicket") else []
        queues = [{"id": "3", "type": "queue", "Name": "DBoD", "Disabled": "0", "_hyperlinks": create}]
        return [row for row in queues if row["Name"] == query[0]["value"]]

    def _search(self, query: str) -> list[Json]:
        number = re.fullmatch(r"id = (\d+)", query)
        link = re.fullmatch(r"RefersTo = '([^'\\]+)'", query)
        assert number or link, query
        found = (
            row
            for row in self.ticket_rows
            if (str(row["id"]) == number[1] if number else row["RefersTo"] and link and link[1] in row["RefersTo"])
        )
        return [{"id": str(row["id"]), "type": "ticket", "_url": "…"} for row in found]

    def _created(self, document: Json) -> Answer:
        if document["Queue"] != "DBoD" or not self.may("CreateTicket"):
            return self.error(403, f"No permission to create tickets in the queue '{document['Queue']}'")
        if document["Status"] not in self.statuses:
            return self.error(400, f"'{document['Status']}' is an invalid value for status")
        assert document["ContentType"] == "text/plain"
        kept = {key: value for key, value in document.items() if key not in {"Content", "ContentType", "RefersTo"}}
        row = self.add(**kept, RefersTo=[document["RefersTo"]])
        self.transaction(row["id"], "Create", content=document["Content"])
        return Answer(201, {"_url": f"{self.url}/REST/2.0/ticket/{row['id']}", "type": "ticket", "id": str(row["id"])})

    def _commented(self, ticket: int, document: Json) -> Answer:
        if not self.may("CommentOnTicket"):
            return self.error(400, "Permission Denied")
        assert document["ContentType"] == "text/plain"
        assert all(file["FileName"] and file["FileContent"] for file in document.get("Attachments", []))
        data = "\n ".join(textwrap.wrap(document["Subject"], 60)) + "\n"
        files = document.get("Attachments", [])
        row = self.transaction(ticket, "Comment", data, content=document["Content"], files=files)
        return Answer(201, ["Comments added"], {"Location": f"/REST/2.0/transaction/{row['id']}"})

    def _updated(self, row: Json, document: Json) -> list[str]:
        if not self.may("ModifyTicket"):
            return [f"Ticket {row['id']}: Permission Denied"]
        if "AddRefersTo" in document:
            row["RefersTo"].append(document["AddRefersTo"])
            return [f"Link created (Ticket {row['id']} refers to {document['AddRefersTo']})"]
        if document["Status"] not in self.statuses:
            return [f"Ticket {row['id']}: Status '{document['Status']}' isn't a valid status for this ticket."]
        before, row["Status"] = row["Status"], document["Status"]
        return [f"Ticket {row['id']}: Status changed from '{before}' to '{row['Status']}'"]

    def _page(self, asked: Asked, rows: list[Json]) -> Answer:
        """Rows that are hidden leave their page short."""
        page, size = int(asked.query["page"]), min(int(asked.query["per_page"]), 100)
        shown = [row for row in rows[(page - 1) * size : page * size] if self.shows(row)]
        items = [{key: value for key, value in row.items() if key not in {"content", "files"}} for row in shown]
        counts = {"count": len(items), "page": page, "per_page": size, "total": None, "pages": None}
        return Answer(200, {**counts, "items": items})


current: RequestTracker


@contextmanager
def running(directory: Path) -> Iterator[RequestTracker]:
    global current  # what the functions below look into
    with plugged_in(RequestTracker(directory)) as current:
        yield current


def settings(directory: Path, **http: Any) -> TicketSettings:
    return settings_of(directory, "request_tracker", OPTIONS, **http)


def tickets(directory: Path) -> list[str]:
    return [str(row["id"]) for row in current.ticket_rows]


def _row(reference: str) -> Json:
    return next(row for row in current.ticket_rows if str(row["id"]) == reference)


def _texts(reference: str, kind: str) -> list[str]:
    mine = (row for row in current.transactions if str(row["ticket"]) == reference)
    return [row["content"] for row in mine if row["Type"] == kind and "content" in row]


def title(reference: str) -> str:
    return str(_row(reference)["Subject"])


def body(reference: str) -> str:
    return _texts(reference, "Create")[0]


def state(reference: str) -> str:
    return STATES[_row(reference)["Status"]]


def comments(reference: str) -> list[str]:
    """The comments of ours."""
    return _texts(reference, "Comment")


def theirs() -> str:
    """A ticket that a person has opened."""
    row = current.add(Subject="databases down")
    current.transaction(row["id"], "Create", content="nothing works")
    return str(row["id"])


def spoil_name(options: Json) -> Json:
    """Options that name something that is not there."""
    return {**options, "queue": "Nobody"}


def crowd(reference: str) -> None:
    """So many others' entries before ours that ours is not on the first page."""
    ours = list(current.transactions)
    current.transactions.clear()
    for _ in range(110):
        current.transaction(int(reference), "Comment", "Re: databases down\n")
        current.transaction(int(reference), "EmailRecord", "<rt-5.0.3-1-1-1@example.org>")
    current.transactions += ours
