"""People who must hear of something that belongs to no incident."""

from __future__ import annotations

from typing import Protocol


class Alerts(Protocol):
    """Tells people. Called once per change of something, not once per look at it."""

    def alert(self, key: str, title: str, words: str) -> None:
        """Tell it.

        Args:
            key: What it is about, as in `source:hv01:/var/log/xen/xend.log`; the same key later is the same matter.
            title: One line: what happened to what.
            words: The whole of it for a person, with what to do next.

        Raises:
            TransientError: nobody could be told; whoever called tells it again at the next look.
        """
