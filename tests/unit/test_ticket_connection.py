"""The connection of a ticket system: read late, split into what it means, and no step's end when it is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from unlatch import assembly, connections
from unlatch.errors import ConfigError

VARIABLE = "AIRFLOW_CONN_UNLATCH_TICKET_GGUS"
INVENTORY = """
version: 1
site: {ticketing: ggus}
hypervisors: {}
guests: {}
volumes: {}
instances: {}
"""


def _connection(monkeypatch: pytest.MonkeyPatch, **values: object) -> None:
    monkeypatch.setenv(VARIABLE, json.dumps({"conn_type": "http", "host": "helpdesk.example.org", **values}))


def test_a_connection_is_split_into_what_it_means(monkeypatch: pytest.MonkeyPatch) -> None:
    """It should take the server, the secret and the certificate for itself, and leave the rest to the system."""
    extra = {"verify": "/etc/ssl/site-ca.pem", "group": "DBoD", "states": {"waiting": "on hold"}}
    _connection(monkeypatch, login="unlatch", password="s3cret", port=8443, extra=extra)
    access = connections.ticket_access("ggus")
    assert access.http.base_url == "https://helpdesk.example.org:8443"
    assert (access.http.login, access.http.password, access.http.verify) == ("unlatch", "s3cret", extra["verify"])
    assert access.options == {"group": "DBoD", "states": {"waiting": "on hold"}}
    assert access.conn_id == "unlatch_ticket_ggus"
    assert "s3cret" not in repr(access)


@pytest.mark.parametrize("values", [{"conn_type": "ssh"}, {"host": ""}, {"extra": {"verify": 1}}])
def test_a_connection_of_another_kind_is_told(monkeypatch: pytest.MonkeyPatch, values: dict[str, object]) -> None:
    """It should name the connection."""
    _connection(monkeypatch, **values)
    with pytest.raises(ConfigError, match="unlatch_ticket_ggus"):
        connections.ticket_access("ggus")


def test_the_connection_is_read_when_a_ticket_is_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It should make the ports of a step without it, and say what is missing when it is used."""
    (tmp_path / "inventory.yaml").write_text(INVENTORY)
    monkeypatch.setenv("UNLATCH_INVENTORY", str(tmp_path / "inventory.yaml"))
    monkeypatch.setenv("UNLATCH_TICKETS", str(tmp_path / "tickets"))
    monkeypatch.delenv(VARIABLE, raising=False)
    tickets = assembly.ticketing()
    assert tickets.name == "ggus"
    with pytest.raises(ConfigError, match="unlatch_ticket_ggus"):
        tickets.comment("22001", "a", "text")
