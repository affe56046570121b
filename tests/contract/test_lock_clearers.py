"""The contract of every lock clearer.

A new one needs tests/contract/lock_clearers/NAME.py: `nas(directory)`, a context manager that gives a `SampleNas`.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

from tests.contract.lock_clearers.samples import GUEST_PATH, HELD, ours
from unlatch.discovery import load_plugins
from unlatch.errors import CheckFailedError, ConfigError, TransientError
from unlatch.models import NasView, Reach
from unlatch.ports import LockClearer

CLEARERS = load_plugins("unlatch.lock_clearers")
FILES = [GUEST_PATH / wanted.file for wanted in HELD]


class Site(NamedTuple):
    """A NAS of one kind and the clearer for it."""

    name: str
    nas: Any
    clearer: LockClearer

    def again(self) -> LockClearer:
        """The clearer as another process makes it."""
        return CLEARERS[self.name].PLUGIN(self.nas.access)

    def ours(self) -> NasView:
        """What the NAS lists for the dead guest's files."""
        return ours(self.again().list(FILES), getattr(self.nas, "inodes", None))


def _samples(name: str) -> ModuleType:
    try:
        return importlib.import_module(f"tests.contract.lock_clearers.{name}")
    except ModuleNotFoundError:
        pytest.fail(f"tests/contract/lock_clearers/{name}.py is missing")


@pytest.fixture(params=sorted(CLEARERS))
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    with _samples(request.param).nas(tmp_path) as nas:
        yield Site(request.param, nas, CLEARERS[request.param].PLUGIN(nas.access))


def test_there_are_lock_clearers() -> None:
    """It should find those that the inventory can name."""
    assert set(CLEARERS) >= {"command", "linux_nfsd", "ontap"}


def test_a_plugin_without_samples_fails() -> None:
    """It should not let a lock clearer in that nobody tried."""
    with pytest.raises(pytest.fail.Exception, match=r"tests/contract/lock_clearers/new_one\.py is missing"):
        _samples("new_one")


def test_the_plugin_is_called_like_its_module(site: Site) -> None:
    """It should be found under the name that the inventory writes."""
    assert CLEARERS[site.name].__name__ == f"unlatch.lock_clearers.{site.name}"
    assert site.clearer.name == site.name


def test_every_lock_is_listed(site: Site) -> None:
    """It should tell the file of each lock by its path or its inode, and the client's address where the NAS does."""
    view = site.clearer.list(FILES)
    names = {number: name for name, number in getattr(site.nas, "inodes", {}).items()}
    found = {
        (str(lock.path.relative_to(GUEST_PATH)) if lock.path else names[lock.inode]): lock.address
        for lock in view.locks
    }
    assert found == {w.file: w.address if site.nas.tells_address else None for w in HELD}
    assert {lock.protocol for lock in view.locks} == {"nfsv3"}
    assert NasView.from_dict(view.as_dict()) == view


def test_listing_changes_nothing(site: Site) -> None:
    """It should answer the same again, and leave every lock where it is."""
    first = site.clearer.list(FILES)
    assert site.again().list(FILES) == first
    assert site.nas.held() == {w.file for w in HELD}


def test_clearing_frees_what_reach_says(site: Site) -> None:
    """It should free the locks that it is given; others' only when reach says so."""
    view = site.ours()
    assert len(view.locks) == 2
    reach = site.clearer.reach(view)
    assert reach is site.nas.reach
    answer = site.clearer.clear(view.locks)
    assert site.nas.held() == ({HELD[2].file} if reach is Reach.FILES else set())
    assert answer.freed is None or answer.freed >= 2
    assert answer.words


def test_clearing_again_is_no_error(site: Site) -> None:
    """It should find nothing to do, also when the same locks are given again, and free nobody else's."""
    view = site.ours()
    site.clearer.clear(view.locks)
    left = site.nas.held()
    answer = site.again().clear(view.locks)
    assert not answer.freed
    assert site.nas.held() == left
    assert not site.again().clear(()).freed


def test_a_missing_privilege_names_the_grant(site: Site) -> None:
    """It should say what grants it, change nothing, and still list."""
    view = site.ours()
    site.nas.forbid()
    with pytest.raises(ConfigError) as refused:
        site.again().clear(view.locks)
    assert site.nas.grant in refused.value.next_step
    assert site.nas.held() == {w.file for w in HELD}
    assert len(site.again().list(FILES).locks) == 3
    site.nas.forbid_all()
    with pytest.raises(ConfigError) as refused:
        site.again().list(FILES)
    assert refused.value.next_step


def test_a_list_that_cannot_be_understood_is_an_error(site: Site) -> None:
    """It should skip no entry: the one that is skipped could be the living holder's."""
    site.nas.garble()
    with pytest.raises(CheckFailedError):
        site.clearer.list(FILES)


@pytest.mark.parametrize("call", [lambda c: c.list(FILES), lambda c: c.clear(NAMELESS.locks)], ids=["list", "clear"])
def test_out_of_reach_is_tried_again(site: Site, call: Callable[[LockClearer], object]) -> None:
    """It should be an error that is worth another try."""
    site.nas.unplug()
    with pytest.raises(TransientError):
        call(site.clearer)


NAMELESS = NasView.from_dict({"locks": [{"path": None, "inode": 7, "protocol": "nfsv3", "id": "lock-0"}]})


def test_what_the_inventory_lacks_is_said_at_once(site: Site) -> None:
    """It should not wait for the incident to find that the volume's entry is not complete."""
    volume = dataclasses.replace(site.nas.access.volume, nas=type(site.nas.access.volume.nas)())
    with pytest.raises(ConfigError, match="dbs03") as found:
        CLEARERS[site.name].PLUGIN(dataclasses.replace(site.nas.access, volume=volume))
    assert "volumes.dbs03" in found.value.next_step
