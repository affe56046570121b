"""The copy of the agent that the guest makes with byte code of its own Python: made once, checked, never a must."""

from __future__ import annotations

import hashlib
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.private_sshd import LOGIN_USER, PrivateSshd, directory_for_all, missing
from tests.integration.ssh_guest import CONN_ID, ENVIRONMENT, GUEST
from unlatch.transport.agent_file import AgentFile, deliver
from unlatch.transport.host_agent import SshHostAgent
from unlatch.transport.ssh import SshSession

pytest_plugins = ["tests.integration.ssh_fixtures"]
pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))

ROOT = Path(__file__).resolve().parents[2]
COPY = re.compile(r".*/\.unlatch/unlatch-agent-([0-9a-f]{12})-cpython-\d+-([0-9a-f]{12})\.pyz")
WRONG = "raise SystemExit('this must not run')"


@pytest.fixture(scope="module")
def pyz() -> Iterator[Path]:
    """The real agent."""
    with directory_for_all() as directory:
        built = directory / "unlatch-agent.pyz"
        subprocess.run([sys.executable, ROOT / "tools" / "build_agent.py", "--output", built], check=True)
        yield built


@pytest.fixture
def guest(connected: SshSession) -> SshSession:
    """A guest that the agent was never on."""
    on(connected, "rm -rf ~/.unlatch")
    return connected


def on(session: SshSession, script: str, *words: str) -> str:
    """Run shell lines on the guest as the login user."""
    answer = session.run(["sh", "-c", script, "x", *words], timeout_s=60)
    assert answer.code == 0, answer.text
    return answer.stdout.decode()


def as_root(sshd: PrivateSshd, *argv: str) -> None:
    """Run a command in the guest's mount namespace."""
    assert sshd.server is not None
    subprocess.run(["nsenter", "-m", "-t", str(sshd.server.pid), *argv], check=True)


def is_copy(placed: AgentFile, pyz: Path) -> bool:
    """Whether what will run is a copy of this very agent, under a name that says what is in it."""
    name = COPY.fullmatch(placed.path)
    source = hashlib.sha256(pyz.read_bytes()).hexdigest()
    return name is not None and name[1] == source[:12] and name[2] == placed.sha256[:12]


def test_the_guest_makes_it_once(guest: SshSession, pyz: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It should be made at the first delivery, with no more to ask, and be found with one question from then on."""
    asked: list[object] = []
    run = SshSession.run
    monkeypatch.setattr(SshSession, "run", lambda *a, **k: (asked.append(a), run(*a, **k))[1])
    first = deliver(guest, pyz)
    assert is_copy(first, pyz)
    assert len(asked) == 3  # look, upload, look
    before = on(guest, "stat -c '%a %i %n' ~/.unlatch/*")
    assert [line.split()[0] for line in before.splitlines()] == ["555", "555"]
    asked.clear()
    assert deliver(guest, pyz) == first
    assert len(asked) == 1
    assert on(guest, "stat -c '%a %i %n' ~/.unlatch/*") == before


def test_it_is_what_runs(guest: SshSession, pyz: Path) -> None:
    """It should be the program that answers, from its byte code: that names the file which it was made of."""
    agent = SshHostAgent(guest, GUEST, pyz)
    assert agent.version()
    placed = agent._placed()
    script = "import sys; sys.path.insert(0, sys.argv[1]); from unlatch_agent import cli; print(cli.main.__code__)"
    told = guest.run([placed.python, "-I", "-c", script, placed.path], timeout_s=60).text
    name = f"unlatch-agent-{hashlib.sha256(pyz.read_bytes()).hexdigest()[:12]}.pyz"
    assert f"/.unlatch/{name}/unlatch_agent/cli.py" in told
    assert placed.path in placed.checked(os_user=None, arguments=["facts"])


def test_it_is_made_for_an_agent_that_is_there(guest: SshSession, pyz: Path) -> None:
    """It should be made also where only the agent itself is, left by an older release, without another upload."""
    original = on(guest, 'rm "$1"; stat -c "%i %n" ~/.unlatch/*', deliver(guest, pyz).path)
    assert is_copy(deliver(guest, pyz), pyz)
    assert original in on(guest, "stat -c '%i %n' ~/.unlatch/*")


@pytest.mark.parametrize(
    "spoil", ['chmod u+w "$1"; echo more >>"$1"; chmod 555 "$1"', 'rm "$1"', 'ln -s x "$1.l"; mv "$1.l" "$1"']
)
def test_a_changed_copy_is_made_anew(spoil: str, guest: SshSession, pyz: Path) -> None:
    """It should not run what somebody changed, in this process or the next, but a right copy in its place."""
    agent = SshHostAgent(guest, GUEST, pyz)
    agent.facts()
    before = agent._placed()
    on(guest, spoil, before.path)
    assert agent.facts().boot_id
    assert is_copy(agent._placed(), pyz)
    assert on(guest, 'sha256sum <"$1"', agent._placed().path).split()[0] == agent._placed().sha256
    on(guest, spoil, agent._placed().path)
    assert SshHostAgent(guest, GUEST, pyz).facts().boot_id


def test_both_changed(guest: SshSession, pyz: Path) -> None:
    """It should upload the agent and make its copy anew."""
    agent = SshHostAgent(guest, GUEST, pyz)
    agent.facts()
    on(guest, 'cd ~/.unlatch; chmod u+w *; for f in *; do echo "$1" >"$f"; done', WRONG)
    assert agent.facts().boot_id
    assert is_copy(agent._placed(), pyz)


@pytest.mark.parametrize(
    "plant",
    [
        'chmod 755 "$1"',
        'ln "$1" ~/another-name',
        'mv "$1" ~/elsewhere; ln -s ~/elsewhere "$1"',
        'mv "$1" "${1%-*}-000000000000.pyz"',
        "owner",
    ],
)
def test_what_only_looks_like_a_copy(plant: str, guest: SshSession, sshd: PrivateSshd, pyz: Path) -> None:
    """It should take no file that others could have put there or could change, or whose name is not its hash's."""
    right = deliver(guest, pyz)
    place = right.path.rpartition("/")[0]
    planted = f"{right.path.rpartition('-')[0]}-{hashlib.sha256(WRONG.encode()).hexdigest()[:12]}.pyz"
    on(guest, 'rm "$1"; printf %s "$2" >"$3"; chmod 555 "$3"', right.path, WRONG, planted)
    if plant == "owner":
        as_root(sshd, "chown", "nobody", planted)
    else:
        on(guest, plant, planted)
    agent = SshHostAgent(guest, GUEST, pyz)
    assert agent.facts().boot_id
    assert is_copy(agent._placed(), pyz)
    assert agent._placed().path.startswith(place)
    on(guest, "rm -f ~/another-name ~/elsewhere")


def test_no_room_for_it(
    open_directory: Path, pyz: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It should run the agent itself where the copy finds no room, say so, leave nothing, and not try at each turn."""
    server = PrivateSshd(open_directory / "small", setup=(f"mount -o remount,size=1m ~{LOGIN_USER}",)).start()
    try:
        monkeypatch.setenv(ENVIRONMENT, server.connection())
        with (
            SshSession.through_airflow(CONN_ID, host=GUEST) as session,
            caplog.at_level(logging.WARNING, logger="unlatch.transport.agent_file"),
        ):
            look = "stat -c '%y %n' ~/.unlatch/.[!.]* ~/.unlatch/* 2>/dev/null || true"
            agent = SshHostAgent(session, GUEST, pyz)
            assert agent.facts().boot_id
            assert re.fullmatch(r"unlatch-agent-[0-9a-f]{12}\.pyz", Path(agent._placed().path).name)
            assert GUEST in caplog.text
            assert "no_space: " in caplog.text
            left = on(session, look)
            assert [Path(line.split()[-1]).suffix for line in left.splitlines()] == [".failed", ".pyz"]
            caplog.clear()
            assert SshHostAgent(session, GUEST, pyz).facts().boot_id
            assert "no_space: " in caplog.text
            assert on(session, look) == left
            # The next hour, with more room.
            as_root(server, "sh", "-c", f"mount -o remount,size=9m ~{LOGIN_USER}")
            on(session, 'touch -d "61 minutes ago" ~/.unlatch/*.failed')
            assert is_copy(deliver(session, pyz), pyz)
    finally:
        server.stop()


@pytest.mark.parametrize("tool", ["timeout", "find"])
def test_a_tool_is_missing(tool: str, open_directory: Path, pyz: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It should run the agent also where one of the tools that the copy is made with cannot be run."""
    hide = f"mount --bind /dev/null /usr/bin/{tool}"
    server = PrivateSshd(open_directory / tool, setup=(hide,)).start()
    try:
        monkeypatch.setenv(ENVIRONMENT, server.connection())
        with SshSession.through_airflow(CONN_ID, host=GUEST) as session:
            agent = SshHostAgent(session, GUEST, pyz)
            assert agent.facts().boot_id
            assert is_copy(agent._placed(), pyz) == (tool == "find")
    finally:
        server.stop()
