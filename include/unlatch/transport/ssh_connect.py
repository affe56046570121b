"""One SSH connection through Airflow's SSH provider, with strict host keys, and its failures in plain words.

The provider tries three times by itself and any failure alike, so that a wrong password would be offered three times;
here it tries once, and what is worth another try is an `UnreachableError`, which Airflow's own retries answer.
"""

from __future__ import annotations

import re
import socket
from typing import Any

import paramiko
from airflow.providers.ssh.hooks.ssh import SSHHook
from airflow.sdk.exceptions import AirflowException

from unlatch.errors import ConfigError, UnlatchError, UnreachableError

CONNECT_LIMIT_S = 10
"""How long TCP, the banner and the login may each take; a connection's own `conn_timeout` extra goes first."""

_KEEPALIVE_S = 15

_INTERRUPTED = re.compile("timeout|shut down|EOF", re.IGNORECASE)
"""What paramiko says of a login that was not refused but never answered; it has one class for both."""


def connect_through_airflow(conn_id: str, host: str) -> paramiko.SSHClient:
    """Open the connection that `conn_id` describes.

    Args:
        conn_id: Airflow connection of type ssh; its extra pins the host key (`host_key: "ssh-ed25519 AAAA…"`).
        host: The machine's name in the inventory, for messages.

    Raises:
        UnreachableError: refused, no route, unknown name, no answer in time: the machine may be on its way.
        ConfigError: no such connection, the host key is not the pinned one, the login was refused.
    """
    hook = _hook(conn_id, host)
    try:
        client: paramiko.SSHClient = hook.get_conn()
    except Exception as error:
        raise _in_plain_words(error, host=host, conn_id=conn_id, hook=hook) from error
    _insist_on_pinned_key(client, hook, host=host, conn_id=conn_id)
    return client


def _hook(conn_id: str, host: str) -> Any:
    try:
        # The explicit False wins over an extra that would switch the check of host keys off.
        hook = SSHHook(
            ssh_conn_id=conn_id,
            no_host_key_check=False,
            conn_retry_attempts=1,
            keepalive_interval=_KEEPALIVE_S,
            banner_timeout=CONNECT_LIMIT_S,
            auth_timeout=CONNECT_LIMIT_S,
        )
    except (AirflowException, ValueError) as error:
        raise ConfigError(
            f"The Airflow connection {conn_id} of {host} cannot be used: {error}",
            next_step=f"create or correct it: airflow connections add {conn_id} --conn-type ssh …; when it is there, "
            "Airflow's API server was out of reach: run the task again.",
        ) from error
    if hook.allow_host_key_change:
        raise ConfigError(
            f"The Airflow connection {conn_id} of {host} allows changed host keys, so it could be any machine.",
            next_step="remove allow_host_key_change from its extra and pin the key there as host_key.",
        )
    hook.conn_timeout = hook.conn_timeout or CONNECT_LIMIT_S
    return hook


def _insist_on_pinned_key(client: paramiko.SSHClient, hook: Any, *, host: str, conn_id: str) -> None:
    """Refuse a machine that only the worker's known_hosts vouches for while the connection pins another key.

    paramiko asks known_hosts first and then does not look at the pinned key any more.
    """
    transport = client.get_transport()
    if hook.host_key is None or (transport is not None and transport.get_remote_server_key() == hook.host_key):
        return
    client.close()
    raise _wrong_host_key(host, conn_id)


def _wrong_host_key(host: str, conn_id: str) -> ConfigError:
    return ConfigError(
        f"The host key of {host} is not the pinned one. Nothing was done on it.",
        next_step=f"check that the machine is the one you think; then update host_key in the extra of {conn_id}.",
    )


def _in_plain_words(error: Exception, *, host: str, conn_id: str, hook: Any) -> UnlatchError:  # noqa: C901, PLR0911  # a table
    where = f"{hook.remote_host}:{hook.port}"
    match error:
        case paramiko.BadHostKeyException():
            return _wrong_host_key(host, conn_id)
        case paramiko.ssh_exception.PasswordRequiredException():
            return ConfigError(
                f"The key file of {conn_id} ({hook.key_file}) is encrypted.",
                next_step="give its passphrase as private_key_passphrase in the extra, or an unencrypted key.",
            )
        case paramiko.AuthenticationException() if not _INTERRUPTED.search(str(error)):
            return ConfigError(
                f"{host} refused the login of {hook.username} (connection {conn_id}).",
                next_step=f"put the public key into ~{hook.username}/.ssh/authorized_keys on {host}, "
                f"or correct login, password or key_file of {conn_id}.",
            )
        case paramiko.ssh_exception.IncompatiblePeer():
            return ConfigError(
                f"{host} at {where} and this worker have no SSH algorithm in common ({error}).",
                next_step=f"compare the type of host_key in the extra of {conn_id} with the server's keys.",
            )
        case paramiko.SSHException() if "known_hosts" in str(error):
            return ConfigError(
                f"The host key of {host} is unknown, so it could be any machine. Nothing was done on it.",
                next_step=f"get the key from the machine itself and pin it as host_key in the extra of {conn_id}: "
                '"ssh-ed25519 AAAA…" (on the machine: cut -d" " -f1,2 /etc/ssh/ssh_host_ed25519_key.pub).',
            )
        case paramiko.ssh_exception.NoValidConnectionsError() | ConnectionError():
            return UnreachableError(
                f"{host} refuses SSH connections at {where}.", next_step="see whether sshd runs there."
            )
        case socket.gaierror():
            return UnreachableError(
                f"The name {hook.remote_host} of {host} cannot be resolved.",
                next_step=f"check the host of {conn_id} and the name service.",
            )
        case FileNotFoundError() | PermissionError():
            return ConfigError(
                f"The key file {hook.key_file} of {conn_id} cannot be read on this worker: {error.strerror}.",
                next_step="put it there, readable by Airflow's user only, or correct key_file in the extra.",
            )
        case paramiko.SSHException() if "not a valid" in str(error):
            return ConfigError(
                f"The key file {hook.key_file} of {conn_id} is no private key that can be used.",
                next_step="give an unencrypted RSA, ECDSA or Ed25519 key in OpenSSH or PEM form.",
            )
        case OSError() | EOFError() | paramiko.SSHException():
            return UnreachableError(
                f"No SSH connection to {host} at {where}: {error or type(error).__name__}.",
                next_step="see whether the machine is up and its network reachable from the worker.",
            )
        case _:
            return ConfigError(
                f"The Airflow connection {conn_id} of {host} cannot be used: {type(error).__name__}.",
                next_step="check its host, port, login and key_file.",
            )
