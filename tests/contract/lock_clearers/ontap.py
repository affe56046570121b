"""ONTAP's REST interface as its reference describes it, behind real TLS with a certificate authority of our own."""

from __future__ import annotations

import base64
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.contract.lock_clearers.samples import HELD, volume
from unlatch.lock_clearers import HttpAccess, NasAccess
from unlatch.models import Reach

LOGIN, PASSWORD = "unlatch", "s3cret-of-ontap"
LOCKS = "/api/protocols/locks"
Json = dict[str, Any]


def record(file: str, address: str | None, number: int, **more: object) -> Json:
    """A lock as the reference shows it."""
    found: Json = {
        "svm": {"uuid": "5b4b6847-9ae4-11eb-8597-0050568ec154", "name": "vs1"},
        "volume": {"uuid": "429dcc79-9af2-11eb-b313-0050568ec154", "name": "dbs03"},
        "interface": {"name": "vs1.data", "ip": {"address": "10.140.115.95"}},
        "path": f"/junction/dbs03/{file}",
        "uuid": f"bf03d8b4-e145-498a-902d-b9fe5d546d{number:02d}",
        "constituent": False,
        "protocol": "nlm",
        "type": "byte_range",
        "state": "granted",
        "owner_id": "a" * 16,
        "byte_lock": {"offset": 0, "length": 18446744073709551615, "exclusive": True, "mandatory": False},
        **({"client_address": address} if address else {}),
        **more,
    }
    return found


@dataclass
class OntapNas:
    directory: Path
    reach: Reach = Reach.FILES
    tells_address: bool = True
    grant: str = f"security login rest-role create -vserver vs1 -role unlatch -api {LOCKS} -access all"
    records: list[Json] = field(default_factory=list)
    forbidden: set[str] = field(default_factory=set)
    busy: list[tuple[int, str | None]] = field(default_factory=list)
    """The next answers: a status, and what Retry-After says."""
    page_records: int = 2
    garbled: bool = False
    requests: list[str] = field(default_factory=list)
    next_href: str | None = None
    privileges: dict[str, str] | None = field(default_factory=lambda: {LOCKS: "all"})
    account_owners: tuple[str, ...] = ("vs1",)
    access: NasAccess = field(init=False)

    def __post_init__(self) -> None:
        self.records = [record(w.file, w.address, n) for n, w in enumerate(HELD)]
        authority = make_certificates(self.directory)
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.directory / "server.pem")
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05})
        self.thread.start()
        url = f"https://127.0.0.1:{self.server.server_address[1]}"
        http = HttpAccess(url, LOGIN, PASSWORD, str(authority))
        self.access = NasAccess(volume("/junction/dbs03", svm="vs1", volume="dbs03"), _no_ssh, http)

    def held(self) -> set[str]:
        return {r["path"].removeprefix("/junction/dbs03/") for r in self.records}

    def forbid(self) -> None:
        self.forbidden = {"DELETE"}

    def forbid_all(self) -> None:
        self.forbidden = {"GET", "DELETE"}

    def garble(self) -> None:
        self.garbled = True

    def security(self, path: str, asked: dict[str, list[str]]) -> tuple[int, Json]:
        """Accounts and roles, as the reference shows them; 403 where the role may not read itself."""
        if self.privileges is None:
            return 403, _error("6", "not authorized for that command")
        if path == "/api/security/accounts":
            assert asked["name"] == [LOGIN]
            owners = [{"name": name, "uuid": f"uuid of {name}"} for name in self.account_owners]
            return 200, _page([{"owner": owner, "name": LOGIN, "role": {"name": "locks"}} for owner in owners])
        assert path == "/api/security/roles/uuid%20of%20vs1/locks/privileges", path
        return 200, _page([{"path": p, "access": access} for p, access in self.privileges.items()])

    def unplug(self) -> None:
        if self.thread.is_alive():
            self.server.shutdown()
            self.server.server_close()
            self.thread.join()


def _no_ssh(argv: object) -> Any:
    raise AssertionError(f"ONTAP is not asked over SSH: {argv}")


def _handler_of(nas: OntapNas) -> type[BaseHTTPRequestHandler]:  # noqa: C901  # one class
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if not self._lets_in():
                return
            parts = urlsplit(self.path)
            asked = parse_qs(parts.query)
            if parts.path.startswith("/api/security/"):
                self._answer(*nas.security(parts.path, asked))
                return
            if parts.path != LOCKS or asked["svm.name"] != ["vs1"] or asked["volume.name"] != ["dbs03"]:
                self._answer(404, _error("4", "entry doesn't exist"))
                return
            assert asked["fields"] == ["*"]
            if nas.garbled:
                self._answer(200, {"records": [{"path": "/junction/dbs03/voms/ibdata1"}], "num_records": 1})
                return
            start = int(asked.get("start.index", ["0"])[0])
            page = nas.records[start : start + nas.page_records]
            found: Json = {"records": page, "num_records": len(page), "_links": {"self": {"href": self.path}}}
            if start + nas.page_records < len(nas.records):
                base = self.path.split("&start.index", maxsplit=1)[0]
                following = nas.next_href or f"{base}&start.index={start + nas.page_records}"
                found["_links"]["next"] = {"href": following}
            self._answer(200, found)

        def do_DELETE(self) -> None:
            if not self._lets_in():
                return
            uuid = self.path.removeprefix(f"{LOCKS}/")
            left = [r for r in nas.records if r["uuid"] != uuid]
            gone = len(left) == len(nas.records)
            nas.records = left
            self._answer(404 if gone else 200, _error("4", "entry doesn't exist") if gone else {})

        def _lets_in(self) -> bool:
            nas.requests.append(f"{self.command} {self.path}")
            login = base64.b64encode(f"{LOGIN}:{PASSWORD}".encode()).decode()
            if nas.busy:
                status, retry_after = nas.busy.pop(0)
                headers = {"Retry-After": retry_after} if retry_after else {}
                self._answer(status, _error("1", "busy"), headers)
            elif self.headers["Authorization"] != f"Basic {login}":
                self._answer(401, _error("6691623", "User is not authorized."))
            elif self.command in nas.forbidden:
                self._answer(403, _error("6", "not authorized for that command"))
            else:
                return True
            return False

        def _answer(self, status: int, document: Json, headers: dict[str, str] | None = None) -> None:
            body = json.dumps(document).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/hal+json")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing to the test's output."""

    return Handler


def _page(records: list[Json]) -> Json:
    return {"records": records, "num_records": len(records), "_links": {"self": {"href": "/api/resourcelink"}}}


def _error(code: str, message: str) -> Json:
    return {"error": {"code": code, "message": message, "target": "uuid"}}


def make_certificates(directory: Path) -> Path:
    """A certificate authority, and a server certificate of 127.0.0.1 by it; the authority's file."""
    authority_key, server_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Unlatch test authority")])
    now = datetime.now(UTC)

    def builder(subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(authority_name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
        )

    is_authority = x509.BasicConstraints(ca=True, path_length=0)
    authority = builder(authority_name, authority_key).add_extension(is_authority, critical=True)
    server_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "nas")])
    names = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    server = builder(server_name, server_key).add_extension(names, critical=False)
    pem = serialization.Encoding.PEM
    key_text = server_key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (directory / "server.pem").write_bytes(key_text + server.sign(authority_key, hashes.SHA256()).public_bytes(pem))
    (directory / "ca.pem").write_bytes(authority.sign(authority_key, hashes.SHA256()).public_bytes(pem))
    return directory / "ca.pem"


@contextmanager
def nas(directory: Path) -> Iterator[OntapNas]:
    made = OntapNas(directory)
    try:
        yield made
    finally:
        made.unplug()
