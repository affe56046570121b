"""A ticket system's server behind real TLS, with a certificate authority of its own, and with moods."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import parse_qsl, urlsplit

from tests.contract.lock_clearers.ontap import make_certificates
from unlatch.models.access import HttpAccess
from unlatch.ticketing import TicketAccess, TicketSettings

Json = dict[str, Any]
AT = datetime(2014, 10, 18, 17, 12, tzinfo=UTC)
LOGIN, SECRET = "unlatch", "s3cret-of-tickets"


class Asked(NamedTuple):
    """One request."""

    method: str
    path: str
    query: Mapping[str, str]
    document: Any
    body: bytes
    headers: Mapping[str, str]


class Answer(NamedTuple):
    """One answer; a document of bytes is sent as it is."""

    status: int
    document: Any
    headers: Mapping[str, str] = {}


@dataclass(frozen=True)
class Mood:
    """What happens to the next request that writes (or to any): an error status, or no answer at all.

    Attributes:
        status: instead of the real answer; None: the connection is dropped.
        done: whether the request was carried out all the same.
        reads: whether it may also hit a request that only reads.
        raw: the body of the answer.
    """

    status: int | None = None
    done: bool = False
    reads: bool = False
    retry_after: str | None = None
    raw: bytes | None = None


class HttpsDesk:
    """A server; subclasses answer as a vendor documents."""

    def __init__(self, directory: Path) -> None:
        self.requests: list[Asked] = []
        self.moods: list[Mood] = []
        self.forbidden: Callable[[Asked], bool] = lambda _: False
        self.lock = threading.Lock()
        self.authority = make_certificates(directory)
        self.server = _QuietServer(("127.0.0.1", 0), _handler_of(self))
        self.server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(directory / "server.pem")
        self.server.socket = context.wrap_socket(
            self.server.socket, server_side=True, do_handshake_on_connect=False, suppress_ragged_eofs=True
        )
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()
        self.url = f"https://127.0.0.1:{self.server.server_address[1]}"
        (directory / "server.json").write_text(json.dumps({"url": self.url, "authority": str(self.authority)}))

    def answer(self, asked: Asked) -> Answer:
        """What the vendor would answer."""
        raise NotImplementedError

    def error(self, status: int, words: str) -> Answer:
        """An error in the vendor's form."""
        raise NotImplementedError

    def lets_in(self, asked: Asked) -> bool:
        """Whether the login or token is right."""
        raise NotImplementedError

    def writes(self) -> list[Asked]:
        """All requests that were to change something."""
        return [asked for asked in self.requests if asked.method != "GET"]

    def unplug(self) -> None:
        """Answer nobody any more."""
        if self.thread.is_alive():
            self.server.shutdown()
            self.server.server_close()
            self.thread.join()

    def respond(self, asked: Asked) -> Answer | bytes | None:
        """One answer; None drops the connection."""
        with self.lock:
            self.requests.append(asked)
            mood = self._mood(asked)
            if mood is not None and not mood.done:
                return self._moody(mood)
            if not self.lets_in(asked):
                return self.error(401, f"not logged in with {SECRET} and the like: {asked.headers['Authorization']}")
            if self.forbidden(asked):
                return self.error(403, "not allowed")
            answer = self.answer(asked)
            return answer if mood is None else self._moody(mood)

    def _mood(self, asked: Asked) -> Mood | None:
        if self.moods and (self.moods[0].reads or asked.method != "GET"):
            return self.moods.pop(0)
        return None

    def _moody(self, mood: Mood) -> Answer | bytes | None:
        if mood.raw is not None:
            return mood.raw
        if mood.status is None:
            return None
        headers = {"Retry-After": mood.retry_after} if mood.retry_after else {}
        return self.error(mood.status, "not now")._replace(headers=headers)


class _QuietServer(ThreadingHTTPServer):
    """It prints nothing about clients that refuse its certificate."""

    def handle_error(self, *_: object) -> None:
        """Nothing to the test's output."""


def _handler_of(desk: HttpsDesk) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def respond(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = urlsplit(self.path)
            is_json = body and self.headers.get("Content-Type") == "application/json"
            document = json.loads(body) if is_json else None
            query = dict(parse_qsl(parts.query))
            found = desk.respond(Asked(self.command, parts.path, query, document, body, dict(self.headers.items())))
            if found is None:
                self.close_connection = True
                return
            if isinstance(found, bytes):
                found, content, kind = Answer(200, None), found, "text/html"
            else:
                raw = isinstance(found.document, bytes)
                content = found.document if raw else json.dumps(found.document).encode()
                kind = "application/json;charset=UTF-8"
            self.send_response(found.status)
            for name, value in {"Content-Length": str(len(content)), "Content-Type": kind, **found.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PATCH = do_PUT = respond  # noqa: N815  # http.server's names

        def log_message(self, *_: object) -> None:
            """Nothing to the test's output."""

    return Handler


def settings_of(directory: Path, system: str, options: Json, **http: Any) -> TicketSettings:
    """The settings with which a worker reaches the server that has left its address in the directory."""
    server = json.loads((directory / "server.json").read_text())
    login, secret = server.get("login", LOGIN), server.get("password", SECRET)
    values = {"base_url": server["url"], "login": login, "password": secret, "verify": server["authority"], **http}
    access = TicketAccess(f"unlatch_ticket_{system}", HttpAccess(**values), options)
    return TicketSettings(directory / "tickets", now=lambda: AT, access=lambda: access)


DeskT = TypeVar("DeskT", bound=HttpsDesk)


@contextmanager
def plugged_in(desk: DeskT) -> Iterator[DeskT]:
    """The server, until the end of the block."""
    try:
        yield desk
    finally:
        desk.unplug()
