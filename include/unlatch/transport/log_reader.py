"""Logs read on from durable positions, for the watch: over SSH, or on this machine."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime

from unlatch.errors import TransientError
from unlatch.models import Hypervisor, HypervisorLog, Json
from unlatch.transport.local_shell import LocalShell
from unlatch.transport.log_access import access_to
from unlatch.transport.log_position import READ_LIMIT_BYTES
from unlatch.transport.shell import Shell, ShellOpener

_TIMEOUT_S = 30.0
_ATTEMPTS = 3  # a rotation takes a moment; one that goes on for three readings is not one

_log = logging.getLogger(__name__)


class PositionReader:
    """Reads hypervisors' logs from durable cursors on (`ports.LogReader`). One command per call.

    Reading changes nothing: with the same cursor the same lines come again, and more.
    """

    def __init__(
        self,
        shell_for: ShellOpener,
        *,
        limit_bytes: int = READ_LIMIT_BYTES,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Take how to reach a hypervisor (its connection's id, its name), and how much one call may carry."""
        self._shell_for = shell_for
        self._limit_bytes = limit_bytes
        self._now = now

    def read_new(self, hypervisor: Hypervisor, log: HypervisorLog, cursor: Json | None) -> tuple[list[str], Json]:
        """Whole new lines since `cursor`, and the next cursor; see `log_position` and `journal_position`.

        None starts at the log's present end. After a rotation the rest of the old file comes first, then the new one
        from its beginning. A log that is away for the moment has nothing new. At most `limit_bytes` are carried: call
        again until the cursor's `read_at` moves to be up to date. A line longer than that is dropped. The cursor of a
        log that is not there says so (`missing`).

        Raises:
            TransientError: out of reach, or rotated again and again while it was read.
            ConfigError: not readable for the login user, wrong connection, wrong host key.
        """
        access = access_to(log)
        shell: Shell = LocalShell() if log.local else self._shell_for(hypervisor.conn_id, hypervisor.name)
        for attempt in range(_ATTEMPTS):
            asked_at = self._now()
            answer = shell.run(access.poll(cursor, self._limit_bytes), timeout_s=_TIMEOUT_S)
            try:
                news = access.news(
                    answer.stdout, cursor, host=hypervisor.name, asked_at=asked_at, limit_bytes=self._limit_bytes
                )
            except TransientError:
                if attempt == _ATTEMPTS - 1:
                    raise
                continue
            if news.gap:
                _log.warning(
                    "%s on %s: what was read last is gone or compressed, so lines between may be missing. "
                    "Keep one rotated log uncompressed (delaycompress), and a journal for longer than an outage.",
                    access.where,
                    hypervisor.name,
                )
            if news.missing:
                _log.warning(
                    "There is no %s on %s now. It is read from its beginning when it appears; "
                    "if it never does, correct its place in the inventory.",
                    access.where,
                    hypervisor.name,
                )
            place = {key: value for key, value in news.cursor.items() if key != "missing"}
            return list(news.lines), {**place, "missing": True} if news.missing else place
        raise AssertionError("unreachable")
