"""A real Request Tracker: half a minute to make, and long to install, so `make test-rt` asks for it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.test_ticketing import SYSTEMS, Desk
from tests.contract.test_ticketing_remote import Site
from tests.rt import private_rt, real_tracker
from tests.rt.private_rt import PrivateRt
from tests.rt.real_tracker import Proxy

ASKED = "UNLATCH_RT_TESTS"
NAME = "request_tracker"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run nothing here unless asked for."""
    here = Path(__file__).parent
    why = "runs only by `make test-rt`: it installs request-tracker5 with some 250 packages"
    reason = private_rt.missing() if os.environ.get(ASKED) else why
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.timeout(900))  # hundreds of requests, each with a login
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def rt() -> Iterator[PrivateRt]:
    with private_rt.running() as server:
        yield server


@pytest.fixture
def proxy(rt: PrivateRt, tmp_path: Path) -> Iterator[Proxy]:
    with real_tracker.running(tmp_path, rt) as server:
        yield server


@pytest.fixture
def desk(proxy: Proxy, tmp_path: Path) -> Desk:
    return Desk(NAME, SYSTEMS[NAME].PLUGIN(real_tracker.settings(tmp_path)), real_tracker, tmp_path)


@pytest.fixture
def site(proxy: Proxy, tmp_path: Path) -> Site:
    return Site(NAME, real_tracker, proxy, tmp_path, [])
