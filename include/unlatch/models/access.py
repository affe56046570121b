"""How systems that speak HTTPS are reached: what an Airflow connection says, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class HttpAccess:
    """A server with an HTTPS interface: a NAS, a ticket system.

    Attributes:
        base_url: Scheme, host and port, as in `https://nas.example.org`.
        login: A user there; may be empty where a token stands for the user.
        password: Its password or token.
        verify: Whether the server's certificate is checked; a path is that of the certificate authority's file.
    """

    base_url: str
    login: str
    password: str = field(repr=False)
    verify: bool | str = True
