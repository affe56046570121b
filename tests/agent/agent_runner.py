"""Running the built agent from tests: warm (a fork of a loaded interpreter) or as a fresh process."""

from __future__ import annotations

import functools
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
NOBODY = 65534
_numbers = itertools.count()


@dataclass
class Answer:
    """What one run of the agent gave."""

    code: int
    text: str
    errors: str

    @property
    def document(self) -> dict[str, Any]:
        """The JSON document."""
        return json.loads(self.text)

    @property
    def error_code(self) -> str | None:
        """The error's code, None without an error."""
        error = self.document["error"]
        return None if error is None else error["code"]

    @property
    def files(self) -> list[dict[str, Any]]:
        """The document's files."""
        return self.document["files"]

    @property
    def progress(self) -> list[dict[str, Any]]:
        """The progress lines."""
        return [json.loads(line)["progress"] for line in self.errors.splitlines()]

    def done(self) -> Answer:
        """Demand success."""
        assert self.code == 0, (self.text, self.errors)
        return self

    def refused(self, code: str, exit_code: int = 3) -> Answer:
        """Demand an error with its three texts and its exit code."""
        assert (self.error_code, self.code) == (code, exit_code), (self.text, self.errors)
        error = self.document["error"]
        assert self.document["ok"] is False
        assert error["message"]
        assert error["next"]
        return self


@dataclass
class Agent:
    """One interpreter with the built file."""

    interpreter: str
    file: Path
    scratch: Path
    prefix: list[str] = field(default_factory=list)
    _warm: subprocess.Popen[str] | None = None

    @property
    def state(self) -> Path:
        """The agent's state directory of this test."""
        return self.scratch / "state"

    @property
    def environment(self) -> dict[str, str]:
        """What the agent finds in its environment."""
        return {"UNLATCH_AGENT_STATE": str(self.state)}

    def run(
        self, *argv: object, faults: dict[str, Any] | None = None, stdin: str | None = None, uid: int | None = None
    ) -> Answer:
        """Run a verb with --json from the warm interpreter and wait for it."""
        self.send(*argv, faults=faults, stdin=stdin, uid=uid)
        return self.receive()

    def send(
        self, *argv: object, faults: dict[str, Any] | None = None, stdin: str | None = None, uid: int | None = None
    ) -> None:
        """Begin a run; ``receive`` waits for it."""
        if self._warm is None:
            command = [*self.prefix, self.interpreter, str(HERE / "warm_agent.py"), str(self.file)]
            self._warm = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._errors = self.scratch / f"errors-{next(_numbers)}"
        verb, *others = [str(argument) for argument in argv]
        request = {
            "argv": [verb, "--json", *others],
            "environment": self.environment,
            "faults": faults,
            "stdin": stdin,
            "uid": uid,
            "errors": str(self._errors),
        }
        assert self._warm.stdin is not None
        self._warm.stdin.write(json.dumps(request) + "\n")
        self._warm.stdin.flush()

    def receive(self) -> Answer:
        """Wait for the run that was begun."""
        assert self._warm is not None
        assert self._warm.stdout is not None
        answer = json.loads(self._warm.stdout.readline())
        return Answer(answer["code"], answer["stdout"], self._errors.read_text())

    def fresh(self, *argv: object, prefix: list[str] | None = None, stdin: str | None = None) -> Answer:
        """Run the file as a process of its own, arguments as they are."""
        command = [*(prefix or []), self.interpreter, str(self.file), *[str(argument) for argument in argv]]
        done = subprocess.run(
            command,
            input=stdin or "",
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **self.environment},
        )
        return Answer(done.returncode, done.stdout, done.stderr)

    def another(self, scratch: Path) -> Agent:
        """The same agent with a warm interpreter of its own, for two runs at a time."""
        return Agent(self.interpreter, self.file, scratch, self.prefix)

    def stop(self) -> None:
        """End the warm interpreter."""
        if self._warm is not None and self._warm.stdin is not None and self._warm.stdout is not None:
            self._warm.stdin.close()
            self._warm.wait()
            self._warm.stdout.close()
            self._warm = None


@functools.cache
def interpreter(version: str) -> str | None:
    """Find a Python of a version: this one, on the PATH, or among pyenv's."""
    if version == f"{sys.version_info[0]}.{sys.version_info[1]}":
        return sys.executable
    homes = [os.environ.get("PYENV_ROOT"), str(Path.home() / ".pyenv")]
    candidates = [shutil.which(f"python{version}")]
    for home in filter(None, homes):
        candidates += [str(path) for path in sorted(Path(home).glob(f"versions/{version}.*/bin/python"))]
    for candidate in filter(None, candidates):
        question = "import sys; print('%d.%d' % sys.version_info[:2])"
        answer = subprocess.run([candidate, "-c", question], capture_output=True, text=True, check=False)
        if answer.stdout.strip() == version:
            return candidate
    return None


def permit(prepared: Answer | dict[str, Any], incident: str = "inc-1", **changes: Any) -> str:
    """Make the permit that a controller would give for what prepare answered."""
    document = prepared.document if isinstance(prepared, Answer) else prepared
    keys = ("path", "inode", "dev", "size_bytes", "mtime_ns", "content_sha256")
    value = {
        "schema": 1,
        "incident": incident,
        "instance": "voms",
        "boot_id": BOOT_ID.read_text().strip(),
        "expires_boottime_s": time.clock_gettime(time.CLOCK_BOOTTIME) + 600,
        "evidence_digest": "0" * 64,
        "files": [{key: entry[key] for key in keys if key in entry} for entry in document["files"]],
    }
    value.update(changes)
    return json.dumps(value)


def our_files(directory: Path) -> set[str]:
    """The names of the agent's own files in a directory."""
    return {path.name for path in directory.iterdir() if path.name.startswith(".unlatch-")}
