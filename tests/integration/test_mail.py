"""Mail through Airflow's SMTP provider to a real server on this machine; providers that are not installed."""

from __future__ import annotations

import email
import json
import socket
import sys
from collections.abc import Iterator
from email.message import Message
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword

from unlatch.discovery import load_plugins
from unlatch.errors import ConfigError, TransientError
from unlatch.models import Receiver

LOGIN, PASSWORD = "unlatch", "not-in-any-log-4711"
SENDERS = {name: module.PLUGIN for name, module in load_plugins("unlatch.notifications").items()}


class Letters:
    """Keeps what it is given; `answer` is what it says to that."""

    def __init__(self) -> None:
        self.kept: list[Message] = []
        self.answer = "250 OK"

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802  # aiosmtpd's name
        if self.answer.startswith("250"):
            self.kept.append(email.message_from_bytes(envelope.content))
        return self.answer


def let_in(_server: Any, _session: Any, _envelope: Any, _mechanism: Any, data: Any) -> AuthResult:
    good = isinstance(data, LoginPassword) and (data.login, data.password) == (LOGIN.encode(), PASSWORD.encode())
    return AuthResult(success=good, handled=False)


@pytest.fixture
def letters() -> Iterator[tuple[Letters, int]]:
    """A mail server that wants a login."""
    kept = Letters()
    with socket.socket() as chosen:  # the server itself does not know what port 0 became
        chosen.bind(("127.0.0.1", 0))
        port = chosen.getsockname()[1]
    server = Controller(kept, hostname="127.0.0.1", port=port, authenticator=let_in, auth_require_tls=False)
    server.start()
    yield kept, port
    server.stop()


def connect(monkeypatch: pytest.MonkeyPatch, port: int, password: str = PASSWORD) -> Receiver:
    extra = {
        "disable_ssl": True,
        "disable_tls": True,
        "from_email": "unlatch@example.org",
        "retry_limit": 1,
        "timeout": 5,
    }
    given = {
        "conn_type": "smtp",
        "host": "127.0.0.1",
        "port": port,
        "login": LOGIN,
        "password": password,
        "extra": extra,
    }
    monkeypatch.setenv("AIRFLOW_CONN_UNLATCH_MAIL", json.dumps(given))
    return Receiver("dbas", "mail", "unlatch_mail", ("dba@example.org", "chief@example.org"))


def test_a_letter(letters: tuple[Letters, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """It should reach every address, say what happened, and be the same message when it is sent again."""
    kept, port = letters
    receiver = connect(monkeypatch, port)
    for _ in range(2):
        SENDERS["mail"](receiver, "dbvrtg4037 crashed\nBcc: eve@example.org", "<b>voms</b> is down", "a/b")
    first, second = kept.kept
    assert first["To"] == "dba@example.org, chief@example.org"
    assert first["From"] == "unlatch@example.org"
    assert first["Subject"] == "dbvrtg4037 crashed Bcc: eve@example.org"
    assert first["Bcc"] is None
    assert first["Message-ID"] == second["Message-ID"]
    (part,) = [p for p in first.walk() if p.get_content_type() == "text/html"]
    assert part.get_payload(decode=True) == b"<pre>&lt;b&gt;voms&lt;/b&gt; is down</pre>"


@pytest.mark.parametrize(
    ("answer", "password", "kind"),
    [("451 later", PASSWORD, TransientError), ("250 OK", "wrong-4711", ConfigError)],
)
def test_what_a_server_refuses(
    letters: tuple[Letters, int],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    *,
    answer: str,
    password: str,
    kind: type[Exception],
) -> None:
    """It should tell what passes from what a person must correct, without the password."""
    kept, port = letters
    kept.answer = answer
    receiver = connect(monkeypatch, port, password)
    with pytest.raises(kind) as caught:
        SENDERS["mail"](receiver, "title", "words", "m")
    assert "4711" not in f"{caught.value}{caplog.text}"


def test_a_server_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """It should be tried again."""
    with pytest.raises(TransientError, match="dbas could not be told by mail"):
        SENDERS["mail"](connect(monkeypatch, 1), "title", "words", "m")


def test_a_connection_that_is_missing() -> None:
    """It should say which."""
    with pytest.raises(ConfigError, match="dbas could not be told"):
        SENDERS["mail"](Receiver("dbas", "mail", "unlatch_none", ("a@example.org",)), "title", "words", "m")


@pytest.mark.parametrize("by", ["slack", "apprise"])
def test_a_provider_that_is_not_installed(by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It should name the package."""
    for name in [name for name in sys.modules if name.startswith(f"airflow.providers.{by}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, f"airflow.providers.{by}", None)
    with pytest.raises(ConfigError, match=f"apache-airflow-providers-{by} is not installed"):
        SENDERS[by](Receiver("dbas", by), "title", "words", "m")


def test_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """It should need nothing."""
    SENDERS["log"](Receiver("dbas", "log"), "title", "words", "m")
    assert "title" in caplog.text
