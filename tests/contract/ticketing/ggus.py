"""Zammad's REST interface as its documentation describes it, with the states of a helpdesk that has its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.contract.ticketing.https_desk import SECRET, Answer, Asked, HttpsDesk, Json, plugged_in, settings_of
from unlatch.ticketing import TicketSettings

STATES = {"assigned": "open", "in progress": "in progress", "on hold": "waiting", "solved": "resolved"}
OPTIONS: Json = {
    "group": "DBoD",
    "customer": "unlatch@example.org",
    "states": {name: state for state, name in STATES.items()},
    "fields": {"priority": "3 high"},
}


class Zammad(HttpsDesk):
    """One helpdesk."""

    def __init__(self, directory: Path) -> None:
        self.ticket_rows: list[Json] = []
        self.articles: list[Json] = []
        self.groups = ["Users", "DBoD"]
        own = ["new", "open", "pending reminder", "closed", "merged"]
        self.states = [*own, *(name for name in STATES if name not in own)]
        super().__init__(directory)

    def lets_in(self, asked: Asked) -> bool:
        return asked.headers.get("Authorization") == f"Token token={SECRET}"

    def error(self, status: int, words: str) -> Answer:
        return Answer(status, {"error": words, "error_human": words})

    def answer(self, asked: Asked) -> Answer:  # noqa: PLR0911  # one line per request
        path = asked.path.removeprefix("/api/v1/")
        match asked.method, path.split("/"):
            case "GET", ["users", "me"]:
                return Answer(200, {"id": 3, "login": "unlatch", "active": True})
            case "GET", ["groups"]:
                return self._page(
                    asked, [{"id": n, "name": name, "active": True} for n, name in enumerate(self.groups)]
                )
            case "GET", ["ticket_states"]:
                return Answer(200, [{"id": n, "name": name, "active": True} for n, name in enumerate(self.states)])
            case "GET", ["tickets", "search"]:
                return self._page(asked, self._search(asked))
            case "GET", ["ticket_articles", "by_ticket", ticket]:
                return Answer(200, [a for a in self.articles if a["ticket_id"] == int(ticket)])
            case "POST", ["tickets"]:
                return self._created(asked.document)
            case "POST", ["ticket_articles"]:
                return Answer(201, self.article(**asked.document))
            case "PUT", ["tickets", ticket]:
                return self._updated(int(ticket), asked.document)
        return self.error(404, f"No route matches [{asked.method}] {asked.path}")

    def add(self, **values: Any) -> Json:
        """A ticket."""
        number = len(self.ticket_rows) + 1
        row = {"id": number, "number": f"{22000 + number}", "state": "new", "title": "", **values}
        self.ticket_rows.append(row)
        return row

    def article(self, **values: Any) -> Json:
        """An article."""
        row = {"id": len(self.articles) + 1, "sender": "Agent", **values}
        self.articles.append(row)
        return row

    def _created(self, document: Json) -> Answer:
        article = document.pop("article")
        for name, known in (("group", self.groups), ("state", self.states)):
            if document[name] not in known:
                return self.error(422, f"No lookup value found for '{name}': \"{document[name]}\"")
        row = self.add(**document)
        self.article(ticket_id=row["id"], **article)
        return Answer(201, row)

    def _updated(self, ticket: int, document: Json) -> Answer:
        row = next((row for row in self.ticket_rows if row["id"] == ticket), None)
        if row is None:
            return self.error(404, "Couldn't find Ticket")
        if document["state"] not in self.states:
            return self.error(422, f"No lookup value found for 'state': \"{document['state']}\"")
        if document["state"].startswith("pending") and "pending_time" not in document:
            return self.error(422, "Missing required value for field 'pending_time'!")
        row.update(document)
        return Answer(200, row)

    def _search(self, asked: Asked) -> list[Json]:
        assert asked.query["expand"] == "true"
        number = asked.query.get("condition[ticket.number][value]")
        if number is not None:
            assert asked.query["condition[ticket.number][operator]"] == "is"
            return [row for row in self.ticket_rows if row["number"] == number]
        words = asked.query["condition[article.subject][value]"]
        assert asked.query["condition[article.subject][operator]"] == "contains"
        found = {a["ticket_id"] for a in self.articles if words in a.get("subject", "")}
        return [row for row in self.ticket_rows if row["id"] in found]

    def _page(self, asked: Asked, rows: list[Json]) -> Answer:
        page, size = int(asked.query["page"]), min(int(asked.query["per_page"]), 200)
        return Answer(200, rows[(page - 1) * size : page * size])


current: Zammad


@contextmanager
def running(directory: Path) -> Iterator[Zammad]:
    global current  # what the functions below look into
    with plugged_in(Zammad(directory)) as current:
        yield current


def settings(directory: Path, **http: Any) -> TicketSettings:
    return settings_of(directory, "ggus", OPTIONS, **http)


def tickets(directory: Path) -> list[str]:
    return [row["number"] for row in current.ticket_rows]


def _row(reference: str) -> Json:
    return next(row for row in current.ticket_rows if row["number"] == reference)


def _articles(reference: str) -> list[str]:
    return [article["body"] for article in current.articles if article["ticket_id"] == _row(reference)["id"]]


def title(reference: str) -> str:
    return str(_row(reference)["title"])


def body(reference: str) -> str:
    return _articles(reference)[0]


def state(reference: str) -> str:
    found = _row(reference)["state"]
    return STATES.get(found, found)


def comments(reference: str) -> list[str]:
    """The articles after the first."""
    return _articles(reference)[1:]


def theirs() -> str:
    """A ticket that a person has opened."""
    row = current.add(title="databases down")
    current.article(ticket_id=row["id"], subject="help", body="nothing works")
    return str(row["number"])


def spoil_name(options: Json) -> Json:
    """Options that name something that is not there."""
    return {**options, "group": "Nobody"}


def crowd(reference: str) -> None:
    """So many answers to our first article, in tickets of their own, that ours is not on the first page."""
    ours = next(a for a in current.articles if a["ticket_id"] == _row(reference)["id"])
    rows, articles = list(current.ticket_rows), list(current.articles)
    current.ticket_rows.clear()
    current.articles.clear()
    for number in range(110):
        row = current.add(id=number + 1000, number=str(number + 30000))
        current.article(ticket_id=row["id"], subject=f"RE: {ours['subject']}", body="me too")
    current.ticket_rows += rows
    current.articles += articles


PAGES = 3
