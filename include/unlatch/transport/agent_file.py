"""Puts the agent onto a guest, once per content, where only the login user can write; checks it before each run."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unlatch.errors import CheckFailedError, ConfigError
from unlatch.transport.ssh import SshSession

CHANGED = 91
"""Exit code of `checked`: the file on the guest is not the one that was uploaded, and it was not run."""

_NO_PLACE, _NO_PYTHON = 93, 92

# A directory that is ours alone to write. The agent runs as another user, so that one must be able to come in.
_OURS = """ours() { [ ! -L "$1" ] && [ -d "$1" ] && [ -O "$1" ] || return 1
case $(stat -c %a "$1") in *[2367]?|*?[2367]) return 1;; esac; }
"""

_SURVEY = (
    "LC_ALL=C; export LC_ALL; umask 022\n"
    + _OURS
    + """open_way() { d=$1; while [ "$d" != / ]; do
case $(stat -Lc %A "$d" 2>/dev/null) in *[xt]) ;; *) return 1;; esac; d=$(dirname "$d"); done; }
python=
for p in /usr/bin/python3 "$(command -v python3)" /usr/libexec/platform-python; do
[ -x "$p" ] && "$p" -I -c 'import sys; sys.exit(sys.version_info < (3, 6))' 2>/dev/null && python=$p && break; done
[ -n "$python" ] || exit 92
if [ -n "$HOME" ] && open_way "$HOME"; then place=$HOME/.unlatch; else place=/var/tmp/unlatch-agent-$(id -u); fi
mkdir -m 0711 "$place" 2>/dev/null
echo "place=$place"
ours "$place" || exit 93
chmod 0711 "$place"
echo "user=$(id -un)"
echo "python=$python"
[ ! -L "$place/$1" ] && have=$(sha256sum <"$place/$1" 2>/dev/null) && echo "have=${have%% *}"
exit 0
"""
)

_CHECKED = (
    "LC_ALL=C; export LC_ALL\n"
    + _OURS
    + """ours "${1%/*}" && [ ! -L "$1" ] && [ "$(sha256sum <"$1" 2>/dev/null)" = "$2  -" ] || exit 91
shift 2; exec "$@"
"""
)


@dataclass(frozen=True)
class AgentFile:
    """The agent as it lies on one guest, and what is needed to run it there."""

    path: str
    sha256: str
    python: str
    login_user: str

    def checked(self, *, os_user: str | None, arguments: Sequence[str]) -> list[str]:
        """The command that runs the agent as `os_user` (None: as the login user) if its file is still the right one."""
        rise = ["sudo", "-n", "-u", os_user, "--"] if os_user and os_user != self.login_user else []
        run = [*rise, self.python, "-I", self.path, *arguments]
        return ["sh", "-c", _CHECKED, "unlatch-agent", self.path, self.sha256, *run]


def deliver(session: SshSession, pyz: Path) -> AgentFile:
    """Upload the agent unless this very content is there already.

    The name carries the content's hash, so that versions live side by side and a running job keeps its own.

    Raises:
        ConfigError: no Python 3.6 or newer on the guest, no directory that only the login user can write, or no agent
            here.
        CheckFailedError: what arrived is not what was sent.
        TransientError: the guest is out of reach.
    """
    try:
        data = pyz.read_bytes()
    except OSError as error:
        raise ConfigError(f"The agent {pyz} cannot be read: {error.strerror}.", next_step="run: make agent") from error
    wanted = hashlib.sha256(data).hexdigest()
    name = f"unlatch-agent-{wanted[:12]}.pyz"
    found = _survey(session, name)
    path = f"{found['place']}/{name}"
    if found.get("have") != wanted:
        session.upload(data, path, mode=0o555)
        if _survey(session, name).get("have") != wanted:
            raise CheckFailedError(
                f"The agent that was uploaded to {path} on {session.host} is not what arrived there.",
                next_step="see who else writes to that directory, and whether its file system is full.",
            )
    return AgentFile(path, wanted, found["python"], found["user"])


def _survey(session: SshSession, name: str) -> dict[str, str]:
    answer = session.run(["sh", "-c", _SURVEY, "survey", name], timeout_s=60)
    lines = answer.stdout.decode("utf-8", "replace").splitlines()
    found = {key: value for key, sign, value in (line.partition("=") for line in lines) if sign}
    if answer.code == _NO_PYTHON:
        raise ConfigError(
            f"{session.host} has no Python 3.6 or newer, which the agent needs.",
            next_step="install the package python3 there: apt-get install python3, or dnf install python3.",
        )
    if answer.code == _NO_PLACE:
        place = found.get("place", "the agent's directory")
        raise ConfigError(
            f"{place} on {session.host} is not a directory that only the login user can write: the agent was not put "
            "there.",
            next_step=f"see who made it (ls -ld {shlex.quote(place)}), then remove it; it is made anew.",
        )
    if answer.code != 0 or not {"place", "user", "python"} <= found.keys():
        raise CheckFailedError(
            f"{session.host} cannot run the agent's set-up (exit code {answer.code}): {answer.text.strip()[:200]}",
            next_step="the login user needs a POSIX shell, coreutils and a quiet login (no output of its rc files).",
        )
    return found
