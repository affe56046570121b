"""How far a copy is: bytes, rate, and the time that it still needs."""

import threading
import time
from typing import Callable, Optional

from unlatch_agent.errors import Json

EVERY_S = 0.5
Advance = Callable[[int], None]


class Counting:
    """What the making of copies tells of itself. This one gives mere signs of life: another process counts."""

    def __init__(self, beat: Callable[[Optional[Json]], None]) -> None:
        """Tell ``beat``."""
        self._beat = beat

    def start(self, path: str, phase: str, halves: int = 0) -> Advance:  # noqa: ARG002 (for who counts)
        """Go on with a file's next pass.

        Args:
            path: the file.
            phase: what is done with it.
            halves: the bytes of its passes before this one.

        Returns:
            what counts the bytes of this pass.
        """
        self._beat(None)
        return self._advance

    def _advance(self, _: int) -> None:
        self._beat(None)

    def finish_file(self) -> None:
        """Count a whole file."""

    def live(self) -> None:
        """Give a sign of life in a pass that counts no bytes."""
        self._beat(None)


class Progress(Counting):
    """Counts the bytes of many files through both passes (copy, compare) and tells a few times per second.

    A byte counts half when copied and half when compared, so that the bytes done end at the size. Several
    threads may count at a time.
    """

    def __init__(self, bytes_total: int, beat: Callable[[Optional[Json]], None], files_total: int = 0) -> None:
        """Count up to ``bytes_total``, telling ``beat``."""
        self._total = bytes_total
        self._files_total = files_total
        self._files_done = 0
        super().__init__(beat)
        self._began = time.monotonic()
        self._told = 0.0
        self._halves = 0
        self._kept = 0
        self._last: Json = {}
        self._lock = threading.Lock()

    def keep(self, size_bytes: int) -> None:
        """Count a file that an earlier run has finished."""
        self._kept += size_bytes
        self._files_done += 1

    def keep_part(self, size_bytes: int) -> None:
        """Count bytes that an earlier run has copied, of a file that goes on."""
        self._kept += size_bytes // 2

    def count(self, path: str, size_bytes: int) -> None:
        """Count a file that another process has copied and compared."""
        with self._lock:
            self._halves += 2 * size_bytes
            self._files_done += 1
            self._last = {"path": path, "phase": "compare", "file_bytes_done": size_bytes}
            self._tell(at_once=False)

    def start(self, path: str, phase: str, halves: int = 0) -> Advance:
        """Go on with a file's next pass, telling of it."""
        counted = [halves]

        def advance(size_bytes: int) -> None:
            with self._lock:
                self._halves += size_bytes
                counted[0] += size_bytes
                self._last = {"path": path, "phase": phase, "file_bytes_done": counted[0] // 2}
                self._tell(at_once=False)

        advance(0)
        return advance

    def finish_file(self) -> None:
        """Count a whole file."""
        with self._lock:
            self._files_done += 1

    def live(self) -> None:
        """Give a sign of life in a pass that counts no bytes."""
        with self._lock:
            self._tell(at_once=False)

    def finish(self) -> None:
        """Tell the end."""
        if self._last:
            self._tell(at_once=True)

    def _tell(self, at_once: bool) -> None:
        now = time.monotonic()
        if not self._last or (not at_once and now - self._told < EVERY_S):
            self._beat(None)
            return
        self._told = now
        fresh = self._halves / 2.0
        rate = fresh / max(now - self._began, 1e-6)
        done = min(self._total, self._kept + int(fresh))
        self._beat(
            dict(
                self._last,
                bytes_done=done,
                bytes_total=self._total,
                files_done=self._files_done,
                files_total=self._files_total,
                rate_bytes_s=int(rate),
                eta_s=round((self._total - done) / rate, 1) if rate > 0 else None,
            )
        )
