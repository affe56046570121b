"""A guest behind a real sshd, as pytest fixtures; name this module in `pytest_plugins` to use them."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.private_sshd import PrivateSshd, directory_for_all
from tests.integration.ssh_guest import CONN_ID, ENVIRONMENT, FAKE_AGENT, GUEST, Answers
from unlatch.transport.host_agent import SshHostAgent
from unlatch.transport.ssh import SshSession


@pytest.fixture(scope="module")
def sshd() -> Iterator[PrivateSshd]:
    with directory_for_all() as directory:
        server = PrivateSshd(directory).start()
        yield server
        server.stop()


@pytest.fixture
def connected(sshd: PrivateSshd, monkeypatch: pytest.MonkeyPatch) -> Iterator[SshSession]:
    monkeypatch.setenv(ENVIRONMENT, sshd.connection())
    with SshSession.through_airflow(CONN_ID, host=GUEST) as session:
        yield session


@pytest.fixture
def through(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], SshSession]]:
    """A session over whatever connection the test describes."""
    opened: list[SshSession] = []

    def make(connection: str) -> SshSession:
        monkeypatch.setenv(ENVIRONMENT, connection)
        opened.append(SshSession.through_airflow(CONN_ID, host=GUEST))
        return opened[-1]

    yield make
    for session in opened:
        session.close()


@pytest.fixture
def open_directory() -> Iterator[Path]:
    with directory_for_all() as directory:
        yield directory


@pytest.fixture
def answers(open_directory: Path) -> Answers:
    """Sets what the fake agent answers, by verb."""

    def write(canned: dict[str, Any]) -> None:
        (open_directory / "answers.json").write_text(json.dumps(canned))

    write({})
    return write


@pytest.fixture
def fake_pyz(open_directory: Path, answers: Answers) -> Path:
    pyz = open_directory / "agent.pyz"
    with zipfile.ZipFile(pyz, "w") as bundle:
        bundle.writestr("__main__.py", FAKE_AGENT.format(answers=open_directory / "answers.json"))
    return pyz


@pytest.fixture
def agent(connected: SshSession, fake_pyz: Path) -> SshHostAgent:
    return SshHostAgent(connected, GUEST, fake_pyz)
