"""A way to look into the real RT, in the form in which the contract tests look into the others.

Between the tested code and RT stands a proxy with TLS, which can lose an answer and notes what was asked.
"""

from __future__ import annotations

import base64
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from tests.contract.ticketing import request_tracker as documented
from tests.contract.ticketing.https_desk import Answer, Asked, HttpsDesk, Json, plugged_in
from tests.rt.private_rt import PrivateRt

API = "/REST/2.0"
settings = documented.settings
spoil_name = documented.spoil_name


class Proxy(HttpsDesk):
    """HTTPS before an RT; nothing that it lets through is changed."""

    def __init__(self, directory: Path, rt: PrivateRt) -> None:
        self.rt = rt
        super().__init__(directory)
        self.log_in("unlatch")

    def log_in(self, user: str, password: str | None = None) -> None:
        """Let `settings` have this user's token, or login and password."""
        file = self.authority.parent / "server.json"
        access = {"login": user, "password": password} if password else {"login": "", "password": self.rt.tokens[user]}
        file.write_text(json.dumps({**json.loads(file.read_text()), **access}))

    def lets_in(self, _: Asked) -> bool:
        return True  # RT decides

    def error(self, status: int, words: str) -> Answer:
        return Answer(status, {"message": words})

    def answer(self, asked: Asked) -> Answer:
        target = f"{asked.path}?{urlencode(asked.query)}" if asked.query else asked.path
        kept = {"Authorization", "Accept", "Content-Type"}
        headers = {name: value for name, value in asked.headers.items() if name in kept}
        status, told, document = self.rt.ask(asked.method, target, asked.body, headers)
        return Answer(status, document, {name: told[name] for name in ("Content-Type", "Location") if name in told})


_rt: PrivateRt  # what the functions below look into


@contextmanager
def running(directory: Path, rt: PrivateRt) -> Iterator[Proxy]:
    """A proxy before an RT without tickets."""
    global _rt  # noqa: PLW0603  # as the samples do
    _rt = rt
    for number in tickets(directory):
        as_root("DELETE", f"/ticket/{number}")
    with plugged_in(Proxy(directory, rt)) as proxy:
        yield proxy


def as_root(method: str, path: str, document: Json | None = None, **query: Any) -> Any:
    """What the superuser is told, past the proxy."""
    headers = {"Authorization": f"token {_rt.tokens['root']}", "Accept": "application/json"}
    if document is not None:
        headers["Content-Type"] = "application/json"
    body = json.dumps(document).encode() if document is not None else b""
    target = f"{API}{quote(path)}?{urlencode(query)}" if query else f"{API}{quote(path)}"
    status, _, told = _rt.ask(method, target, body, headers)
    assert status in {200, 201, 204}, told
    return json.loads(told) if told else None


def rows(path: str, **query: Any) -> list[Json]:
    """A list, all pages of it."""
    found: list[Json] = []
    for page in range(1, 100):
        items = as_root("GET", path, page=page, per_page=100, **query)["items"]
        if not items:
            break
        found += items
    return found


def tickets(_: Path) -> list[str]:
    """All that are not deleted."""
    return [row["id"] for row in rows("/tickets", query="id > 0", orderby="id")]


def ticket(reference: str) -> Json:
    found = as_root("GET", f"/ticket/{reference}")
    assert isinstance(found, dict)
    return found


def history(reference: str, kind: str) -> list[Json]:
    """The entries of a kind."""
    found = rows(f"/ticket/{reference}/history", fields="Type,Data,Creator")
    return [row for row in found if row["Type"] == kind]


def parts(entry: Json) -> list[Json]:
    """What one entry carries, decoded."""
    found = []
    for row in rows(f"/transaction/{entry['id']}/attachments"):
        part = as_root("GET", f"/attachment/{row['id']}")
        found.append({**part, "Content": base64.b64decode(part.get("Content") or "")})
    return found


def _texts(reference: str, kind: str) -> list[str]:
    """The first part that has words, of each entry."""
    words = []
    for entry in history(reference, kind):
        text = next((part for part in parts(entry) if part["ContentType"] == "text/plain"), {"Content": b""})
        words.append(text["Content"].decode())
    return words


def title(reference: str) -> str:
    return str(ticket(reference)["Subject"])


def body(reference: str) -> str:
    return _texts(reference, "Create")[0]


def state(reference: str) -> str:
    return documented.STATES[ticket(reference)["Status"]]


def comments(reference: str) -> list[str]:
    return _texts(reference, "Comment")


def theirs(queue: str = "DBoD") -> str:
    """A ticket that a person has opened."""
    return str(as_root("POST", "/ticket", {"Queue": queue, "Subject": "databases down", "Content": "help"})["id"])


def crowd(reference: str) -> None:
    """So many entries that what comes after them is on the third page."""
    with closing(sqlite3.connect(_rt.database, timeout=60)) as database, database:
        database.executemany(
            "INSERT INTO Transactions (ObjectType, ObjectId, Type, Data, Creator, Created)"
            " VALUES ('RT::Ticket', ?, 'Comment', ?, 1, '2014-10-18 17:12:00')",
            [(int(reference), f"Re: databases down {number}") for number in range(220)],
        )
