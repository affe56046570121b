"""What Airflow connections say, turned into plain values. Airflow is imported late: it takes seconds."""

from __future__ import annotations

from typing import Any

from unlatch.errors import ConfigError, TransientError
from unlatch.models.access import HttpAccess
from unlatch.ticketing import TicketAccess


def http_access(conn_id: str, server: str) -> HttpAccess | None:
    """The values of the connection `conn_id`; None when it is of another type than http or https.

    The address is `https://HOST[:PORT]` of the connection. Its extra may have `verify`: the path of the certificate
    authority's file, or false to check no certificate.

    Raises:
        ConfigError: Airflow has no such connection, or `verify` is neither a path nor a truth value.
    """
    found = _connection(conn_id, f"the NAS {server}")
    if (found.conn_type or "") not in {"http", "https"}:
        return None
    return _http_access(conn_id, found, server)


def ticket_access(system: str) -> TicketAccess:
    """The values of the connection `unlatch_ticket_<system>`; what its extra has beside `verify` is the system's.

    Raises:
        ConfigError: Airflow has no such connection, it is of another type than http, or names no host.
        TransientError: Airflow could not tell.
    """
    conn_id = f"unlatch_ticket_{system}"
    try:
        found = _connection(conn_id, f"the ticket system {system}")
    except ConfigError:
        raise
    except Exception as error:  # whatever Airflow's client raises: a step must not end because it cannot tell
        raise TransientError(
            f"The Airflow connection {conn_id} could not be read: {type(error).__name__}.",
            next_step="see whether Airflow's API server and its secrets backends answer.",
        ) from error
    if (found.conn_type or "") not in {"http", "https"} or not found.host:
        raise ConfigError(
            f"The Airflow connection {conn_id} is not of type http, or has no host.",
            next_step="make it again with --conn-type http and --conn-host; see docs/tickets.md.",
        )
    options = {key: value for key, value in (found.extra_dejson or {}).items() if key != "verify"}
    return TicketAccess(conn_id, _http_access(conn_id, found, ""), options)


def _connection(conn_id: str, what: str) -> Any:
    from airflow.sdk import BaseHook  # noqa: PLC0415  # see the module's docstring
    from airflow.sdk.exceptions import AirflowException  # noqa: PLC0415

    try:
        return BaseHook.get_connection(conn_id)
    except AirflowException as error:
        raise ConfigError(
            f"The Airflow connection {conn_id} of {what} is not there.",
            next_step=f"airflow connections add {conn_id} …; when it is there, Airflow's API server was out of reach: "
            "run the task again.",
        ) from error


def _http_access(conn_id: str, found: Any, server: str) -> HttpAccess:
    verify = (found.extra_dejson or {}).get("verify", True)
    if not isinstance(verify, (bool, str)) or verify == "":
        raise ConfigError(
            f"verify in the extra of {conn_id} is {verify!r}.",
            next_step="give the path of the certificate authority's file, or leave it out.",
        )
    host = (found.host or server).removeprefix("https://").removeprefix("http://").rstrip("/")
    port = f":{found.port}" if found.port else ""
    return HttpAccess(f"https://{host}{port}", found.login or "", found.password or "", verify)


def host_names(conn_id: str) -> tuple[str, ...]:
    """What the connection calls its host; nothing when there is no such connection, which its own use will say."""
    from airflow.sdk import BaseHook  # noqa: PLC0415  # see the module's docstring
    from airflow.sdk.exceptions import AirflowException  # noqa: PLC0415

    try:
        host = BaseHook.get_connection(conn_id).host
    except AirflowException:
        return ()
    return (str(host),) if host else ()
