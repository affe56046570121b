"""Alerts into the log, for a site that has named no other way to tell people."""

from __future__ import annotations

import logging

_log = logging.getLogger(__name__)


class LoggedAlerts:
    """`ports.Alerts` as warnings in the log of the task that finds them."""

    def alert(self, key: str, title: str, words: str) -> None:
        """See `ports.Alerts`."""
        _log.warning("%s: %s (%s)", title, words, key)
