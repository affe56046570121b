"""Into the log of the task that tells: for a site that has named no other way."""

from __future__ import annotations

import logging

from unlatch.models import Receiver

_log = logging.getLogger(__name__)


class Log:
    """The task's log."""

    name = "log"

    def __call__(self, receiver: Receiver, title: str, words: str, marker: str) -> None:
        """Log a warning."""
        _log.warning("for %s: %s\n%s\n(%s)", receiver.name, title, words, marker)


PLUGIN = Log()
