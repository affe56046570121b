"""A NAS with two commands of the site: one lists what a file says, the other takes lines out of it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.contract.lock_clearers.samples import HELD, volume
from unlatch.errors import ConfigError, TransientError
from unlatch.lock_clearers import NasAccess
from unlatch.models import Reach
from unlatch.ports import CommandAnswer

_CLEAR = """#!/bin/sh
set -e
cd "$(dirname "$0")"
[ -e forbidden ] && { echo "permission denied" >&2; exit 1; }
for id in "$@"; do grep -v "\\"id\\": \\"$id\\"" locks >new || true; mv new locks; done
echo "$# cleared"
"""


@dataclass
class SiteNas:
    directory: Path
    reach: Reach = Reach.FILES
    tells_address: bool = True
    grant: str = "NOPASSWD: "
    unplugged: bool = False
    access: NasAccess = field(init=False)

    def __post_init__(self) -> None:
        self._script("list-locks", '#!/bin/sh\ncd "$(dirname "$0")"\n[ ! -e hidden ] || exit 1\ncat locks\n')
        self._script("clear-locks", _CLEAR)
        lines = [
            json.dumps({"path": f"/vol/dbs03/{w.file}", "client": None, "address": w.address, "protocol": "nfsv3"}
                       | {"id": f"lock-{number}"})
            for number, w in enumerate(HELD)
        ]  # fmt: skip
        (self.directory / "locks").write_text("\n".join(lines) + "\n")
        commands = {name: [str(self.directory / f"{name}-locks")] for name in ("list", "clear")}
        self.access = NasAccess(volume("/vol/dbs03", **commands), self.run)

    def _script(self, name: str, text: str) -> None:
        (self.directory / name).write_text(text)
        (self.directory / name).chmod(0o755)

    def run(self, argv: Sequence[str]) -> CommandAnswer:
        if self.unplugged:
            raise TransientError("nas refuses connections.")
        hidden = "hidden" if argv[0].endswith("list-locks") else "forbidden"
        if (self.directory / hidden).exists():  # as sudo on the NAS would
            raise ConfigError("sudo on nas does not let Unlatch work as root: no", next_step="grant: x NOPASSWD: y")
        ran = subprocess.run(argv, capture_output=True, text=True, check=False)
        return CommandAnswer(ran.returncode, ran.stdout + (ran.stderr if ran.returncode else ""))

    def held(self) -> set[str]:
        lines = (self.directory / "locks").read_text().splitlines()
        return {json.loads(line)["path"].removeprefix("/vol/dbs03/") for line in lines}

    def forbid(self) -> None:
        (self.directory / "forbidden").touch()

    def forbid_all(self) -> None:
        self.forbid()
        (self.directory / "hidden").touch()

    def garble(self) -> None:
        with (self.directory / "locks").open("a") as file:
            file.write("2 locks more, see the log\n")

    def unplug(self) -> None:
        self.unplugged = True


@contextmanager
def nas(directory: Path) -> Iterator[SiteNas]:
    yield SiteNas(directory)
