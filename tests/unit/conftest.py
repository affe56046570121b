"""Worlds for the tests of the runbook, the casebook and the watch."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.fakes import Clock, World
from unlatch.models import Instance
from unlatch.store.sql_store import SqlStore


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A directory in memory, where there is one: the store syncs each of its many writes to the disk."""
    memory = Path("/dev/shm")  # the directory is made anew
    directory = Path(tempfile.mkdtemp(prefix="unlatch-", dir=memory if memory.is_dir() else None))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with its tables, to be copied: making them takes longer than most tests."""
    file = tmp_path_factory.mktemp("store") / "empty.db"
    SqlStore(f"sqlite:///{file}", clock=Clock()).migrate()
    return file


@pytest.fixture
def new_world(scratch: Path, empty_store: Path) -> Callable[..., World]:
    """Makes worlds, each with a store of its own."""
    numbers = itertools.count()

    def make(*instances: Instance, **kwargs: Any) -> World:
        file = scratch / f"{next(numbers)}.db"
        shutil.copyfile(empty_store, file)
        return World(file, *instances, **kwargs)

    return make


@pytest.fixture
def world(new_world: Callable[..., World]) -> World:
    """One crashed guest with one instance."""
    return new_world()
