"""The NFS lab as pytest fixtures. They are expensive (a boot is a minute), so `make test-nfs` asks for them by name."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab import private_sshd
from tests.integration.repair import Repair, configure
from tests.nfs import nfs_scripts
from tests.nfs.nfs_hypervisor import Hypervisor
from tests.nfs.nfs_lab import UNITS, NfsLab, say
from tests.nfs.nfs_provision import open_databases, provision_guest, provision_nas
from tests.nfs.nfs_scripts import ROOT
from tests.nfs.nfs_site import Site

AGENT = ROOT / "dist" / "unlatch-agent.pyz"
ASKED = "UNLATCH_NFS_TESTS"
KEEP = "UNLATCH_NFS_KEEP"
"""Set to leave the machines up at the end, for whoever writes these tests; the next session takes them over."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run nothing here unless asked for: it takes an hour and all of the machine."""
    here = Path(__file__).parent
    why = "runs only by `make test-nfs`: it boots virtual machines and takes long"
    reason = (nfs_scripts.missing() or private_sshd.missing()) if os.environ.get(ASKED) else why
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.nfs)
            item.add_marker(pytest.mark.timeout(1800))
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def agent() -> Path:
    """The agent, built from the sources as they are."""
    subprocess.run([sys.executable, ROOT / "tools" / "build_agent.py"], check=True, capture_output=True)
    return AGENT


@pytest.fixture(scope="session")
def machines() -> Iterator[NfsLab]:
    """The lab, not up yet; powered off at the end of the session."""
    lab = NfsLab(nfs_scripts.scripts_directory())
    why = lab.build()
    if why is not None:
        lab.close()
        pytest.skip(f"the NFS lab cannot be built here: {why[-2000:]}")
    yield lab
    if not os.environ.get(KEEP):
        lab.down()
    lab.close()


@pytest.fixture(scope="session")
def hypervisor(machines: NfsLab) -> Iterator[Hypervisor]:
    """The machine under the guest; its sshd is started with the lab."""
    made = Hypervisor(machines)
    yield made
    made.stop()
    shutil.rmtree(made.directory)


def _is_healthy(lab: NfsLab, vers: str) -> bool:
    if (
        lab.is_spoiled
        or lab.vers != vers
        or lab.pid("client") is None
        or lab.pid("nas") is None
        or lab.pid("standby") is not None
    ):
        return False
    lab.root("nas", "nft delete table inet nsm 2>/dev/null; true")
    return all(lab.active(instance) == "active" for instance in UNITS)


def _boot(machines: NfsLab, vers: str) -> None:
    """From the images. A machine on which they do not come up the first time cannot run these tests, and says so."""
    first = not machines.has_booted
    try:
        machines.up(fresh=True, vers=vers)
    except AssertionError as error:
        if not first:
            raise
        pytest.skip(f"the NFS lab's machines do not come up here: {str(error)[-2000:]}")


@pytest.fixture(scope="session")
def healthy(machines: NfsLab, hypervisor: Hypervisor, agent: Path) -> Callable[..., NfsLab]:
    """Call it for the lab with three databases up and all that administrators grant.

    A lab that an earlier test has left like that is used again, quarantine and all; any other boots from its images.
    """

    def made(vers: str = "3") -> NfsLab:
        if machines.vers is None and machines.runs(vers) and all(machines.active(i) == "active" for i in UNITS):
            machines.up(vers=vers)
            hypervisor.start()
        if _is_healthy(machines, vers):
            provision_nas(machines, agent)
            provision_guest(machines, agent)
            return machines
        hypervisor.stop()
        _boot(machines, vers)
        hypervisor.start()
        provision_nas(machines, agent)
        provision_guest(machines, agent)
        open_databases(machines)
        return machines

    return made


@pytest.fixture
def lab(healthy: Callable[..., NfsLab]) -> NfsLab:
    """The lab on NFSv3, healthy."""
    return healthy("3")


@pytest.fixture
def lab_v4(healthy: Callable[..., NfsLab]) -> NfsLab:
    """The lab on NFSv4.2, healthy."""
    return healthy("4.2")


@pytest.fixture
def unlatch(
    machines: NfsLab, hypervisor: Hypervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Repair[Site]]:
    """Call it for an Unlatch that has never heard of the lab until now; arguments as of `Site`.

    A second call gives the same Unlatch (store, tickets) another inventory.
    """

    def made(**site: object) -> Repair[Site]:
        place = Site(machines, hypervisor, tmp_path, **site)
        monkeypatch.setenv("UNLATCH_AGENT", str(AGENT))
        configure(place, tmp_path, monkeypatch)
        return Repair(place)

    return made


@pytest.fixture
def standby(machines: NfsLab, agent: Path) -> Iterator[NfsLab]:
    """The second guest, up and set up once the test asks for it by `lab.standby("up")`; off at the end."""
    yield machines
    if machines.vers is not None and machines.pid("standby") is not None:
        machines.standby("down")
        say("the standby is off")
