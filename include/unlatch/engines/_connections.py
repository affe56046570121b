"""Login values of an instance, from its Airflow connection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from unlatch.errors import ConfigError
from unlatch.models import Instance

CONNECT_LIMIT_S = 5.0
"""How long the connection to a database may take, login included."""

QUERY_LIMIT_S = 15.0
"""How long each answer of a database may take."""


@dataclass(frozen=True)
class Login:
    """Plain values for a client library. Host and port are the connection's where it has them, else the inventory's."""

    conn_id: str
    host: str
    port: int
    user: str
    password: str = field(repr=False)
    database: str | None
    extra: Mapping[str, Any] = field(repr=False)

    @property
    def where(self) -> str:
        """The server, for messages."""
        return f"{self.host}:{self.port}"

    def options(self, *names: str) -> dict[str, Any]:
        """Those of the connection's extras that are named here; all others are none of a client library's business."""
        return {name: self.extra[name] for name in names if self.extra.get(name) not in (None, "")}


def login_of(instance: Instance) -> Login:
    """The values of the instance's `login_conn_id`.

    Raises:
        ConfigError: the inventory names no connection, or Airflow has none of that name.
    """
    conn_id = instance.login_conn_id
    if not conn_id:
        raise ConfigError(
            f"The inventory gives {instance.name} no login_conn_id, so nobody can log in to prove access.",
            next_step=f"add login_conn_id: unlatch_db_{instance.name}, and that connection in Airflow.",
        )
    from airflow.sdk import BaseHook  # noqa: PLC0415  # seconds to import, and only a login needs it
    from airflow.sdk.exceptions import AirflowException  # noqa: PLC0415

    try:
        found = BaseHook.get_connection(conn_id)
    except AirflowException as error:
        raise ConfigError(
            f"The Airflow connection {conn_id} of {instance.name} is not there.",
            next_step=f"airflow connections add {conn_id} …; when it is there, Airflow's API server was out of reach: "
            "run the task again.",
        ) from error
    return Login(
        conn_id=conn_id,
        host=found.host or instance.host,
        port=int(found.port or instance.port),
        user=found.login or "",
        password=found.password or "",
        database=found.schema or None,
        extra=found.extra_dejson or {},
    )
