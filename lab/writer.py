"""A client that commits rows all the time, so that a crash always hits work in progress."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from lab import processes, writer_process
from lab.errors import LabError
from lab.instances import Instance
from lab.processes import ProcessId

START_TIMEOUT_S = 20.0
ENOUGH_ROWS = 5
_SOURCES = str(Path(__file__).resolve().parent.parent)


class Writer:
    """Starts and stops the writing process and compares what it was promised with what is there.

    The list of acknowledged rows lives in files, so it survives this object, the process and the crash.
    """

    def __init__(
        self,
        directory: Path,
        root: Path,
        instances: Mapping[str, Instance],
        remember: Callable[[ProcessId | None], None],
        process: ProcessId | None,
    ) -> None:
        """Look at one lab's writer.

        Args:
            directory: Where its files are.
            root: The lab's root, to mark the process.
            instances: The databases to write to.
            remember: Told who the process is, for other commands on the same lab.
            process: The process that runs already, if any.
        """
        self._directory = directory
        self._root = root
        self._instances = instances
        self._remember = remember
        self._process = process

    @property
    def running(self) -> bool:
        """Whether the writing process lives."""
        return self._process is not None and self._process.alive()

    def start(self) -> None:
        """Start writing and return when every instance has acknowledged a few rows. Idempotent.

        Raises:
            LabError: A database takes no rows; the message has the writer's own words.
        """
        if not self.running:
            self._directory.mkdir(parents=True, exist_ok=True)
            targets = self._directory / "targets.json"
            descriptor = os.open(targets, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as stream:
                json.dump([self._target(instance) for instance in self._instances.values()], stream)
            program = (
                f"import sys; sys.path.insert(0, {_SOURCES!r}); from lab import writer_process; writer_process.main()"
            )
            argv = [sys.executable, "-c", program, str(targets)]
            with (self._directory / "writer.log").open("wb") as log:
                started = processes.start(argv, root=self._root, stdout=log)
            self._process = ProcessId.of(started.pid)
            self._remember(self._process)
        self._await_rows()

    def stop(self) -> None:
        """End the writing process. Idempotent."""
        if self._process is not None:
            self._process.kill()
            self._process = None
            self._remember(None)

    def forget(self) -> None:
        """Stop, and forget what was acknowledged: the databases start from scratch."""
        self.stop()
        for path in self._directory.glob("*.acknowledged"):
            path.unlink()

    @property
    def acknowledged(self) -> dict[str, int]:
        """How many commits each instance has acknowledged since the last `forget`."""
        return {name: len(self._rows(name)) for name in self._instances}

    def missing_after(self) -> dict[str, list[int]]:
        """Return, per instance, the ids of acknowledged rows that are not in the database now.

        Raises:
            Exception: The driver's error when a database does not let the writer in.
        """
        return {name: sorted(self._rows(name) - self._present(instance)) for name, instance in self._instances.items()}

    def _await_rows(self) -> None:
        before = self.acknowledged
        deadline = time.monotonic() + START_TIMEOUT_S
        while any(count < before[name] + ENOUGH_ROWS for name, count in self.acknowledged.items()):
            if time.monotonic() > deadline or not self.running:
                words = (self._directory / "writer.log").read_text(errors="replace").strip()
                raise LabError(f"not every database takes the writer's rows: {self.acknowledged}. It says: {words}")
            time.sleep(0.02)

    def _target(self, instance: Instance) -> dict[str, str | int]:
        return {
            "name": instance.name,
            "engine": instance.engine,
            "port": instance.port,
            "user": instance.login,
            "password": instance.password,
            "database": instance.database,
            "acknowledged": str(self._path(instance.name)),
            "first_id": time.time_ns(),  # never an id of an earlier run
        }

    def _path(self, name: str) -> Path:
        return self._directory / f"{name}.acknowledged"

    def _rows(self, name: str) -> set[int]:
        try:
            text = self._path(name).read_text()
        except FileNotFoundError:
            return set()
        return {int(line) for line in text.splitlines()}

    def _present(self, instance: Instance) -> set[int]:
        connection = writer_process.connect(dict(self._target(instance)))
        try:
            cursor = connection.cursor()
            table = "public.writer" if instance.engine == "postgresql" else "writer"
            cursor.execute(f"SELECT id FROM {table}")
            return {int(row[0]) for row in cursor.fetchall()}
        finally:
            connection.close()
