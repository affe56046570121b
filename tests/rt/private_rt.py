"""Debian's request-tracker5 in a temporary directory: its own SQLite database, configuration, caches and loopback port.

Nothing of an RT that the machine may have is read or written: `RT_SITE_CONFIG` names another configuration.
"""

from __future__ import annotations

import http.client
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from lab.private_sshd import free_port
from tests.integration.private_databases import PrivateServer

USER = "www-data"
SETUP = "/usr/sbin/rt-setup-database-5"
SERVER = "/usr/share/request-tracker5/libexec/rt-server"
HERE = Path(__file__).parent
CONFIGURATION = """
Set($rtname, 'unlatch.test');
Set($Organization, 'unlatch.test');
Set($DatabaseType, 'SQLite');
Set($DatabaseName, '{directory}/rt.sqlite');
Set($WebDomain, '127.0.0.1');
Set($WebPort, {port});
Set($WebPath, '');
Set($WebSessionClass, 'Apache::Session::File');
Set($MailCommand, 'mbox');  # into the directory: nobody gets mail from a test
Set($LogToSyslog, undef);
Set($LogToSTDERR, 'info');
Set(%Lifecycles, service => {{
    initial => ['reported'], active => ['open', 'stalled'], inactive => ['resolved', 'archived', 'deleted'],
    defaults => {{ on_create => 'reported' }},
    transitions => {{
        '' => ['reported', 'open'],
        reported => ['open', 'stalled', 'resolved', 'archived', 'deleted'],
        open => ['reported', 'stalled', 'resolved', 'archived', 'deleted'],
        stalled => ['reported', 'open', 'resolved', 'archived', 'deleted'],
        resolved => ['reported', 'open', 'stalled', 'archived', 'deleted'],
        archived => ['reported', 'open', 'stalled', 'resolved', 'deleted'],
        deleted => [],
    }},
    rights => {{ '* -> deleted' => 'DeleteTicket', '* -> *' => 'ModifyTicket' }},
}});
$RT::VarPath = '{directory}/var';
$RT::MasonDataDir = '{directory}/mason';
$RT::MasonSessionDir = '{directory}/sessions';
1;
"""


def missing() -> str | None:
    """Why this cannot run here, or None."""
    if os.geteuid() != 0:
        return "the private Request Tracker runs as www-data, so the tests need root"
    if not Path(SETUP).exists() or not Path(SERVER).exists():
        return "request-tracker5 is not installed (make test-rt installs it)"
    return None


class _Server(PrivateServer):
    """Starlet: a process that ends its workers when it is asked to end, and not when it is killed."""

    def stop(self) -> None:
        """End it and its workers."""
        if self.server is not None and self.server.poll() is None:
            self.server.terminate()
            self.server.wait()


@dataclass(frozen=True)
class PrivateRt:
    """One RT that answers on a loopback port.

    Attributes:
        directory: everything of it.
        port: HTTP.
        tokens: a token per user.
    """

    directory: Path
    port: int
    tokens: Mapping[str, str] = field(repr=False)

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.directory / "rt.sqlite"

    def ask(
        self, method: str, target: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """One request: status, headers, document."""
        there = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            there.request(method, target, body or None, dict(headers or {}))
            answer = there.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            there.close()


@contextmanager
def running() -> Iterator[PrivateRt]:
    """A fresh RT until the end of the block; then nothing of it is left."""
    directory, port = Path(tempfile.mkdtemp(prefix="unlatch-rt-")), free_port()
    server = None
    try:
        for name in ("var", "mason", "sessions", "no-more-configuration"):
            (directory / name).mkdir()
        (directory / "site.pm").write_text(CONFIGURATION.format(directory=directory, port=port))
        (directory / "root-password").write_text(secrets.token_urlsafe(24))
        shutil.copy(HERE / "site.pl", directory)
        for path in (directory, *directory.iterdir()):
            shutil.chown(path, USER, USER)
        ours = [f"RT_SITE_CONFIG={directory}/site.pm", f"RT_SITE_CONFIG_DIR={directory}/no-more-configuration"]
        _set_up(ours, "--action", "init", "--root-password-file", str(directory / "root-password"))
        _set_up(ours, "--action", "insert", "--datafile", str(directory / "site.pl"))
        tokens = dict(line.split() for line in (directory / "var" / "tokens").read_text().splitlines())
        command = ["env", *ours, SERVER, "--server", "Starlet", "--host", "127.0.0.1", "--port", str(port)]
        server = _Server([*command, "--max-workers", "2"], USER, port, directory / "server.log")
        server.start()
        yield PrivateRt(directory, port, tokens)
    finally:
        if server is not None:
            server.stop()
        shutil.rmtree(directory)


def _set_up(configuration: list[str], *arguments: str) -> None:
    as_user = ["setpriv", "--reuid", USER, "--regid", USER, "--init-groups", "env", *configuration]
    command = [*as_user, SETUP, "--skip-create", "--dba", "nobody", "--dba-password", "none", *arguments]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
