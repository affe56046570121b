"""ServiceNow's Table API and Attachment API as its reference describes them."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.contract.ticketing.https_desk import LOGIN, SECRET, Answer, Asked, HttpsDesk, Json, plugged_in, settings_of
from unlatch.ticketing import TicketSettings

STATES = {"1": "open", "2": "in progress", "3": "waiting", "6": "resolved", "7": "closed"}
OPTIONS: Json = {"assignment_group": "Database on Demand", "fields": {"impact": "1", "category": "database"}}
OPENED = "Opened by Unlatch"


class Instance(HttpsDesk):
    """One instance. Tables are lists of records, whose values are texts, as the Table API tells them."""

    def __init__(self, directory: Path) -> None:
        self.tables: dict[str, list[Json]] = {
            "incident": [],
            "sys_journal_field": [],
            "sys_user_group": [{"sys_id": "287ebd7da9fe198100f92cc8d1d2154e", "name": "Database on Demand"}],
        }
        self.attachments: list[Json] = []
        self.hides_journal = False
        super().__init__(directory)

    def lets_in(self, asked: Asked) -> bool:
        login = base64.b64encode(f"{LOGIN}:{SECRET}".encode()).decode()
        return asked.headers.get("Authorization") == f"Basic {login}"

    def error(self, status: int, words: str) -> Answer:
        return Answer(status, {"error": {"message": words, "detail": None}, "status": "failure"})

    def answer(self, asked: Asked) -> Answer:
        if asked.path.startswith("/api/now/attachment"):
            return self._attachment(asked)
        table, _, sys_id = asked.path.removeprefix("/api/now/table/").partition("/")
        if table not in self.tables:
            return self.error(400, f"Invalid table {table}")
        if asked.method == "GET":
            hidden = table == "sys_journal_field" and self.hides_journal
            return self._page(asked, [] if hidden else self.tables[table])
        if asked.method == "POST":
            return self._created(table, asked.document)
        record = next((r for r in self.tables[table] if r["sys_id"] == sys_id), None)
        if record is None:
            return self.error(404, "No Record found")
        return self._updated(record, asked.document)

    def note(self, sys_id: str, text: str) -> None:
        """A work note, as anybody makes one."""
        journal = self.tables["sys_journal_field"]
        number = len(journal)
        made = f"2014-10-18 {number // 3600:02d}:{number // 60 % 60:02d}:{number % 60:02d}"
        journal.append(
            {"sys_id": _id(f"note{number}"), "name": "incident", "element": "work_notes", "element_id": sys_id,
             "value": text, "sys_created_on": made, "sys_created_by": LOGIN}
        )  # fmt: skip

    def add(self, **values: str) -> Json:
        """An incident."""
        number = len(self.tables["incident"]) + 1
        fields = {"state": "1", "correlation_id": "", "description": "", "short_description": "", **values}
        record = {"sys_id": _id(f"incident{number}"), "number": f"INC{10000 + number:07d}", **fields}
        record["sys_created_on"] = f"2014-10-18 17:00:{number:02d}"
        self.tables["incident"].append(record)
        return record

    def _created(self, table: str, document: Json) -> Answer:
        values = dict(document)
        note = values.pop("work_notes", None)
        record = self.add(**values)
        if note:
            self.note(record["sys_id"], note)
        return Answer(201, {"result": record}, {"Location": f"{self.url}/api/now/table/{table}/{record['sys_id']}"})

    def _updated(self, record: Json, document: Json) -> Answer:
        values = {**record, **document}
        for states, needed in (({"6", "7"}, ("close_code", "close_notes")), ({"3"}, ("hold_reason",))):
            missing = [field for field in needed if not document.get(field)]
            if document.get("state") in states and missing:
                detail = f"Data Policy Exception: The following fields are mandatory: {missing}"
                return Answer(403, {"error": {"message": "Operation Failed", "detail": detail}, "status": "failure"})
        note = values.pop("work_notes", None)
        record.update(values)
        if note:
            self.note(record["sys_id"], note)
        return Answer(200, {"result": record})

    def _page(self, asked: Asked, records: list[Json]) -> Answer:
        order = ""
        for term in filter(None, asked.query.get("sysparm_query", "").split("^")):
            if term.startswith("ORDERBY"):
                order = term.removeprefix("ORDERBY")
                continue
            field, _, value = term.partition("=")
            if any(field in record for record in records):  # what it does not know is left out of the query
                records = [r for r in records if str(r.get(field, "")).casefold() == value.casefold()]
        records = sorted(records, key=lambda r: str(r.get(order, ""))) if order else records
        limit, offset = int(asked.query["sysparm_limit"]), int(asked.query.get("sysparm_offset", "0"))
        fields = asked.query.get("sysparm_fields")
        wanted = fields.split(",") if fields else None
        shown = [{k: v for k, v in r.items() if not wanted or k in wanted} for r in records[offset : offset + limit]]
        headers = {"X-Total-Count": str(len(records))}
        if offset + limit < len(records):
            headers["Link"] = f'<https://127.0.0.2{asked.path}?sysparm_offset={offset + limit}>;rel="next"'
        return Answer(200, {"result": shown}, headers)

    def _attachment(self, asked: Asked) -> Answer:
        if asked.method == "GET":
            return self._page(asked, self.attachments)
        made = {**asked.query, "sys_id": _id(f"attachment{len(self.attachments)}")}
        made |= {"size_bytes": str(len(asked.body)), "content_type": asked.headers["Content-Type"]}
        self.attachments.append({**made, "content": asked.body.decode("latin-1")})
        return Answer(201, {"result": made})


def _id(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


current: Instance


@contextmanager
def running(directory: Path) -> Iterator[Instance]:
    global current  # what the functions below look into
    with plugged_in(Instance(directory)) as current:
        yield current


def settings(directory: Path, **http: Any) -> TicketSettings:
    return settings_of(directory, "servicenow", OPTIONS, **http)


def tickets(directory: Path) -> list[str]:
    return [record["number"] for record in current.tables["incident"]]


def _record(reference: str) -> Json:
    return next(record for record in current.tables["incident"] if record["number"] == reference)


def title(reference: str) -> str:
    return str(_record(reference)["short_description"])


def body(reference: str) -> str:
    return str(_record(reference)["description"])


def state(reference: str) -> str:
    return STATES[_record(reference)["state"]]


def comments(reference: str) -> list[str]:
    """The notes' texts in their order, without the line of the marker and the note that comes with the incident."""
    mine = [n for n in current.tables["sys_journal_field"] if n["element_id"] == _record(reference)["sys_id"]]
    texts = [note["value"].partition("\n")[2] for note in mine]
    return [text for text in texts if not text.startswith(OPENED)]


def theirs() -> str:
    """A ticket that a person has opened."""
    return str(current.add(short_description="databases down")["number"])


def spoil_name(options: Json) -> Json:
    """Options that name something that is not there."""
    return {**options, "assignment_group": "Nobody"}


def crowd(reference: str) -> None:
    """So many words of other people that ours are not on the first page."""
    journal = current.tables["sys_journal_field"]
    ours = list(journal)
    journal.clear()
    for number in range(250):
        current.note(_record(reference)["sys_id"], f"said {number}")
    for note in ours:
        current.note(note["element_id"], note["value"])


PAGES = 3
