"""An asyncssh connection described by an Airflow connection, with the pinned host key only; failures in plain words."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import asyncssh
from airflow.providers.common.compat.connection import get_async_connection

from unlatch.errors import ConfigError, TransientError, UnlatchError

CONNECT_LIMIT_S = 10
_KEEPALIVE_S = 15
_DEFAULT_PORT = 22


async def open_through_airflow(conn_id: str, host: str) -> asyncssh.SSHClientConnection:
    """Open the connection that `conn_id` describes; the caller closes it.

    Args:
        conn_id: Airflow connection of type ssh; its extra must pin the host key (`host_key: "ssh-ed25519 AAAA…"`).
        host: The machine's name in the inventory, for messages.

    Raises:
        TransientError: refused, no route, unknown name, no answer in time.
        ConfigError: no such connection, no pinned host key or another one, the login was refused.
    """
    try:
        described = await get_async_connection(conn_id)
    except Exception as error:
        raise TransientError(
            f"The Airflow connection {conn_id} of {host} could not be read: {error}",
            next_step=f"see whether it exists: airflow connections get {conn_id}",
        ) from error
    options = await asyncio.to_thread(_options, described, conn_id, host)
    try:
        return await asyncssh.connect(described.host, **options)
    except (asyncssh.Error, OSError, TimeoutError, ValueError) as error:
        raise _in_plain_words(error, described=described, conn_id=conn_id, host=host) from error


def _options(described: Any, conn_id: str, host: str) -> dict[str, Any]:
    """The arguments of asyncssh. Nothing of the worker's own SSH configuration, agent or known_hosts has a say."""
    extra = described.extra_dejson
    options: dict[str, Any] = {
        "port": described.port or _DEFAULT_PORT,
        "username": described.login,
        "known_hosts": ([_pinned_key(extra, conn_id, host)], [], []),
        "config": [],
        "agent_path": None,
        "connect_timeout": CONNECT_LIMIT_S,
        "login_timeout": CONNECT_LIMIT_S,
        "keepalive_interval": _KEEPALIVE_S,
    }
    passphrase = extra.get("private_key_passphrase") or extra.get("passphrase")
    try:
        if extra.get("private_key"):
            options["client_keys"] = [asyncssh.import_private_key(extra["private_key"], passphrase)]
        elif extra.get("key_file"):
            options["client_keys"] = [asyncssh.read_private_key(extra["key_file"], passphrase)]
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError, OSError) as error:
        raise ConfigError(
            f"The private key of {conn_id} cannot be used on this worker: {error}",
            next_step="correct key_file or private_key in its extra; the file must be readable by Airflow's user.",
        ) from error
    if described.password:
        options["password"] = described.password
        options.setdefault("client_keys", None)
    return options


def _pinned_key(extra: dict[str, Any], conn_id: str, host: str) -> asyncssh.SSHKey:
    text = str(extra.get("host_key") or "").split()
    unchecked = [k for k in ("no_host_key_check", "allow_host_key_change") if str(extra.get(k)).lower() == "true"]
    if unchecked or not text:
        why = f"sets {unchecked[0]}" if unchecked else "pins no host key"
        raise ConfigError(
            f"The Airflow connection {conn_id} of {host} {why}, so it could be any machine.",
            next_step='pin the key as host_key in its extra: "ssh-ed25519 AAAA…", taken from the machine itself.',
        )
    try:
        return asyncssh.import_public_key(" ".join(text[:2]) if len(text) > 1 else f"ssh-rsa {text[0]}")
    except (asyncssh.KeyImportError, ValueError) as error:
        raise ConfigError(
            f"The host_key of {conn_id} is no public key: {error}", next_step='write it as "ssh-ed25519 AAAA…".'
        ) from error


def _in_plain_words(  # noqa: PLR0911  # a table
    error: Exception, *, described: Any, conn_id: str, host: str
) -> UnlatchError:
    where = f"{described.host}:{described.port or _DEFAULT_PORT}"
    match error:
        case asyncssh.HostKeyNotVerifiable():
            return ConfigError(
                f"The host key of {host} is not the pinned one. Nothing was done on it.",
                next_step="check that the machine is the one you think; "
                f"then update host_key in the extra of {conn_id}.",
            )
        case asyncssh.PermissionDenied():
            return ConfigError(
                f"{host} refused the login of {described.login} (connection {conn_id}).",
                next_step=f"put the public key into ~{described.login}/.ssh/authorized_keys on {host}, "
                f"or correct login, password or key_file of {conn_id}.",
            )
        case asyncssh.KeyExchangeFailed():
            return ConfigError(
                f"{host} at {where} and this worker have no SSH algorithm in common ({error}).",
                next_step=f"compare the type of host_key in the extra of {conn_id} with the server's keys.",
            )
        case socket.gaierror():
            return TransientError(
                f"The name {described.host} of {host} cannot be resolved.",
                next_step=f"check the host of {conn_id} and the name service.",
            )
        case ConnectionRefusedError():
            return TransientError(
                f"{host} refuses SSH connections at {where}.", next_step="see whether sshd runs there."
            )
        case ValueError():
            return ConfigError(f"The Airflow connection {conn_id} of {host} cannot be used: {error}")
        case _:
            return TransientError(
                f"No SSH connection to {host} at {where}: {error or type(error).__name__}.",
                next_step="see whether the machine is up and its network reachable from the worker.",
            )
