"""Puts the agent onto a guest, once per content, where only the login user can write; checks it before each run.

The guest makes a copy with byte code of its own Python, which starts faster; where that fails the file itself is run.
"""

from __future__ import annotations

import hashlib
import logging
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unlatch.errors import CheckFailedError, ConfigError
from unlatch.transport.ssh import SshSession

CHANGED = 91
"""Exit code of `checked`: the file on the guest is not the one that was put there, and it was not run."""

_log = logging.getLogger(__name__)

_NO_PLACE, _NO_PYTHON = 93, 92

# A directory that is ours alone to write. The agent runs as another user, so that one must be able to come in.
_OURS = """ours() { [ ! -L "$1" ] && [ -d "$1" ] && [ -O "$1" ] || return 1
case $(stat -c %a "$1") in *[2367]?|*?[2367]) return 1;; esac; }
"""

# A copy of the agent with byte code is taken if it is the login user's alone and its name has its hash. It is made if
# there is none; that failed, it is not tried again for an hour.
_SURVEY = (
    "LC_ALL=C; export LC_ALL; umask 022\n"
    + _OURS
    + """open_way() { d=$1; while [ "$d" != / ]; do
case $(stat -Lc %A "$d" 2>/dev/null) in *[xt]) ;; *) return 1;; esac; d=$(dirname "$d"); done; }
python= why=
for p in /usr/bin/python3 "$(command -v python3)" /usr/libexec/platform-python; do
[ -x "$p" ] && tag=$("$p" -I -c "$3" 2>/dev/null) && python=$p && break; done
[ -n "$python" ] || exit 92
if [ -n "$HOME" ] && open_way "$HOME"; then place=$HOME/.unlatch; else place=/var/tmp/unlatch-agent-$(id -u); fi
mkdir -m 0711 "$place" 2>/dev/null
echo "place=$place"
ours "$place" || exit 93
chmod 0711 "$place"
echo "user=$(id -un)"
echo "python=$python"
hashed() { [ -f "$1" ] && [ ! -L "$1" ] && s=$(sha256sum <"$1" 2>/dev/null) && s=${s%% *}; }
hashed "$place/$1" || exit 0
echo "have=$s"
[ "$s" = "$2" ] || exit 0
stem=$place/${1%.pyz}-$tag
faster() { for f in "$stem"-*.pyz; do
[ -O "$f" ] && hashed "$f" && [ "$(stat -c %h.%a "$f")" = 1.555 ] || continue
case $f in *-"$(printf %.12s "$s")".pyz) echo "faster=$f"; echo "faster_sha256=$s"; exit 0;; esac; done; }
faster
if [ -z "$(find "$stem.failed" -mmin -60 2>/dev/null)" ]; then
why=$(timeout 15 "$python" -I "$place/$1" precompile --io-timeout 10 "$place" 2>&1 >/dev/null)
why="exit code $?: $(printf %s "$why" | head -n 1 | head -c 300)"
faster
printf '%s\n' "$why" >"$stem.failed"
fi
printf 'slower=%s\n' "${why:-$(head -n 1 "$stem.failed")}"
exit 0
"""
)

# The name of the interpreter's byte code; an error before 3.6.
_TAG = "import sys; print(sys.implementation.cache_tag); sys.exit(sys.version_info < (3, 6))"

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
    """Upload the agent unless this very content is there already, and have the guest make a copy with byte code.

    Both names carry the content's hash, so that versions live side by side and a running job keeps its own. The hash of
    byte code cannot be known beforehand: it is the guest's word, about a file where only the login user can write.

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
    found = _survey(session, name, wanted)
    path = f"{found['place']}/{name}"
    if found.get("have") != wanted:
        session.upload(data, path, mode=0o555)
        found = _survey(session, name, wanted)
        if found.get("have") != wanted:
            raise CheckFailedError(
                f"The agent that was uploaded to {path} on {session.host} is not what arrived there.",
                next_step="see who else writes to that directory, and whether its file system is full.",
            )
    if "faster_sha256" in found:
        return AgentFile(found["faster"], found["faster_sha256"], found["python"], found["user"])
    _log.warning("The agent runs without byte code on %s, and starts slower: %s", session.host, found.get("slower"))
    return AgentFile(path, wanted, found["python"], found["user"])


def _survey(session: SshSession, name: str, wanted: str) -> dict[str, str]:
    answer = session.run(["sh", "-c", _SURVEY, "survey", name, wanted, _TAG], timeout_s=60)
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
