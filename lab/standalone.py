"""A real Airflow on this machine, for the demo and the tests: SQLite, tuned for quick tasks, warmed, ended as a whole.

Its components are processes of their own, so that a test can kill one and start it again.

Not for production: one machine, users whose passwords lie in a file, SQLite.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.site import REPOSITORY, cache_directory
from lab.state import choose_port

USER, VIEWER = "admin", "viewer"

API, PROCESSOR, TRIGGERER, SCHEDULER = COMPONENTS = ("api-server", "dag-processor", "triggerer", "scheduler")

_TUNING = {
    # Seconds count here: the defaults are for clusters on which polling costs more than waiting.
    "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.1",
    "SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
    "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
    "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
    "WORKERS__MIN_HEARTBEAT_INTERVAL": "1",  # see tools/compose/airflow.cfg
    "CORE__PARALLELISM": "8",
    "CORE__MP_START_METHOD": "fork",
    "DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "60",
    "DAG_PROCESSOR__REFRESH_INTERVAL": "5",
    "TRIGGERER__JOB_HEARTBEAT_SEC": "2",
    "TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10",
}


_AIRFLOW = str(Path(sys.executable).with_name("airflow"))


class Standalone:
    """One Airflow in one directory, with its own ports, an administrator and a viewer."""

    def __init__(
        self,
        home: Path,
        *,
        inventory: Path,
        connections: Mapping[str, Mapping[str, Any]],
        var: Path,
        more: Mapping[str, str] | None = None,
    ) -> None:
        """Describe it; nothing is started.

        Args:
            home: AIRFLOW_HOME; made by `start`.
            inventory: Unlatch's inventory.
            connections: Airflow connections by id; they are given to the processes, not written down.
            var: Where Unlatch keeps its store and tickets.
            more: Environment variables beside those.
        """
        self.home = home.resolve()
        self.var = var.resolve()
        self.passwords: dict[str, str] = {}
        self.url = ""
        self._inventory = inventory
        self._more = dict(more or {})
        self._connections = connections
        self._components: dict[str, subprocess.Popen[bytes]] = {}
        self._log_ports: dict[str, int] = {}
        self._keys: dict[str, str] = {}
        self._tokens: dict[str, str] = {}

    @property
    def password(self) -> str:
        """The administrator's."""
        return self.passwords[USER]

    @property
    def store_url(self) -> str:
        """Where Unlatch's store is."""
        return f"sqlite:///{self.var / 'unlatch.db'}"

    @property
    def tickets(self) -> Path:
        """Where the tickets are."""
        return self.var / "tickets"

    def environment(self) -> dict[str, str]:
        """What every process of this Airflow, and `unlatch` beside it, gets in its environment."""
        port = self.url.rpartition(":")[2]
        settings = {
            **_TUNING,
            "CORE__DAGS_FOLDER": str(REPOSITORY / "dags"),
            "CORE__PLUGINS_FOLDER": str(REPOSITORY / "plugins"),
            "CORE__LOAD_EXAMPLES": "False",
            "CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:ADMIN,{VIEWER}:VIEWER",
            "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(self.home / "passwords.json"),
            "CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.home / 'airflow.db'}",
            "API__HOST": "127.0.0.1",
            "API__PORT": port,
            "API__BASE_URL": self.url,
            "API__WORKERS": "1",
            **{name: str(port) for name, port in self._log_ports.items()},
            **self._keys,
        }
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "UNLATCH_", "_AIRFLOW"))}
        return {
            **kept,
            "PATH": f"{Path(sys.executable).parent}:{kept.get('PATH', '')}",
            "AIRFLOW_HOME": str(self.home),
            **{f"AIRFLOW__{name}": value for name, value in settings.items()},
            **{f"AIRFLOW_CONN_{name.upper()}": json.dumps(value) for name, value in self._connections.items()},
            "UNLATCH_INVENTORY": str(self._inventory),
            "UNLATCH_STORE_URL": self.store_url,
            "UNLATCH_TICKETS": str(self.tickets),
            "UNLATCH_AGENT": str(REPOSITORY / "dist/unlatch-agent.pyz"),
            "PYTHONUNBUFFERED": "1",
            **self._more,
        }

    def start(self, *, limit_s: float = 240.0) -> None:
        """Start everything afresh, wait until it is healthy, and warm it. A previous one here is ended and forgotten.

        Raises:
            LabError: it is not healthy in time; the message has the end of its log.
        """
        self.stop()
        self.home.mkdir(parents=True, exist_ok=True)
        self.var.mkdir(parents=True, exist_ok=True)
        api, *logs = _free_ports(3)
        self.url = f"http://127.0.0.1:{api}"
        self._log_ports = dict(
            zip(("LOGGING__WORKER_LOG_SERVER_PORT", "LOGGING__TRIGGER_LOG_SERVER_PORT"), logs, strict=True)
        )
        # Else each component makes up its own, and none believes the other.
        self._keys = {
            "API__SECRET_KEY": secrets.token_urlsafe(32),
            "API_AUTH__JWT_SECRET": secrets.token_urlsafe(48),
            "CORE__FERNET_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        }
        self.passwords = {name: secrets.token_urlsafe(12) for name in (USER, VIEWER)}
        passwords = self.home / "passwords.json"
        passwords.touch(mode=0o600)
        passwords.write_text(json.dumps(self.passwords))
        self._fresh_database()
        self.launch(API, PROCESSOR, TRIGGERER)
        # A task that starts before the API answers is lost, and its retry comes late.
        self._wait("answering", self._answers, limit_s)
        self.launch(SCHEDULER)
        self._wait("healthy", self._healthy, limit_s)
        self._wait("warm", self._warm, limit_s)

    def launch(self, *components: str) -> None:
        """Start components, each with its children in a session of its own; does not wait until they are healthy."""
        for name in components:
            with self._log(name).open("ab") as log:
                self._components[name] = subprocess.Popen(
                    [_AIRFLOW, name],
                    env=self.environment(),
                    cwd=REPOSITORY,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # SIGTERM to the parent alone would orphan its children
                )
            self._session(name).write_text(str(self._components[name].pid))

    def kill(self, *components: str) -> None:
        """End components with all their children by SIGKILL, as the end of their machine would. Idempotent."""
        self._end(components, ((signal.SIGKILL, 10.0),))

    def _fresh_database(self) -> None:
        """An empty, migrated database, and an empty store beside it.

        Both at once: a watch that waits from an earlier start knows positions that a new store does not.
        Migrating takes long, so the result is kept for the next start of this version of Airflow.
        """
        for path in (*self.home.glob("airflow.db*"), *self.var.glob("unlatch.db*")):
            path.unlink()
        shutil.rmtree(self.home / "logs", ignore_errors=True)
        kept = cache_directory() / f"airflow-{version('apache-airflow-core')}.db"
        database = self.home / "airflow.db"
        if not kept.exists():
            done = subprocess.run(
                [_AIRFLOW, "db", "migrate"],
                env=self.environment(),
                cwd=REPOSITORY,
                check=False,
                capture_output=True,
                text=True,
            )
            if done.returncode != 0:
                raise LabError(f"airflow db migrate failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
            kept.parent.mkdir(parents=True, exist_ok=True)
            fresh = kept.with_name(f"{kept.name}.{os.getpid()}")
            shutil.copyfile(database, fresh)
            fresh.replace(kept)
        shutil.copyfile(kept, database)

    def stop(self) -> None:
        """End all its processes, also those of a run that was killed. Idempotent."""
        self._end(COMPONENTS, ((signal.SIGTERM, 10.0), (signal.SIGKILL, 10.0)))
        self._tokens.clear()

    def _end(self, components: Iterable[str], signals: Iterable[tuple[int, float]]) -> None:
        files = [self._session(name) for name in components if self._session(name).exists()]
        sessions = {int(path.read_text()) for path in files}
        for number, patience_s in signals:
            deadline = time.monotonic() + patience_s
            while (left := _airflow_processes(sessions)) and time.monotonic() < deadline:
                for pid in left:
                    _signal(pid, number)
                time.sleep(0.2)
        for path in files:
            path.unlink()
        for name in components:
            if name in self._components:
                self._components.pop(name).wait(timeout=10)  # else it stays as a zombie

    def call(self, method: str, path: str, body: Any = None, *, user: str = USER) -> Any:
        """One call of the REST API, as the administrator unless `user` says otherwise; parsed JSON.

        Raises:
            urllib.error.HTTPError: the API refused; `.code` says why.
        """
        if user not in self._tokens:
            login = {"username": user, "password": self.passwords[user]}
            self._tokens[user] = self._request("POST", "/auth/token", login, token=None)["access_token"]
        return self._request(method, f"/api/v2{path}", body, token=self._tokens[user])

    def trigger(self, dag: str, conf: Mapping[str, Any], run_id: str | None = None) -> str:
        """Start a run; its id."""
        body = {"logical_date": None, "conf": conf, **({"dag_run_id": run_id} if run_id else {})}
        return str(self.call("POST", f"/dags/{dag}/dagRuns", body)["dag_run_id"])

    def tasks(self, dag: str, run_id: str) -> list[dict[str, Any]]:
        """The task instances of a run."""
        path = f"/dags/{dag}/dagRuns/{run_id}/taskInstances?limit=200"
        return list(self.call("GET", path)["task_instances"])

    def run_state(self, dag: str, run_id: str) -> str | None:
        """The state of a run; None while there is none."""
        try:
            return str(self.call("GET", f"/dags/{dag}/dagRuns/{run_id}")["state"])
        except urllib.error.HTTPError as error:
            if error.code == 404:  # noqa: PLR2004  # HTTP's own number
                return None
            raise

    def log_tail(self, lines: int = 15) -> str:
        """The end of what each of its components wrote."""
        tails = []
        for name in COMPONENTS:
            if self._log(name).exists():
                words = self._log(name).read_text(errors="replace").splitlines()[-lines:]
                tails.append("\n".join([f"--- {name}", *words]))
        return "\n".join(tails)

    def _log(self, component: str) -> Path:
        return self.home / f"{component}.log"

    def _session(self, component: str) -> Path:
        return self.home / f"{component}.session"

    def _answers(self) -> bool:
        """The first call of the execution API costs seconds; no task should pay for it."""
        self._request("GET", "/execution/health", None, token=None)
        return True

    def _healthy(self) -> bool:
        health = self._request("GET", "/api/v2/monitor/health", None, token=None)
        return all(
            health[part]["status"] == "healthy" for part in ("metadatabase", "scheduler", "triggerer", "dag_processor")
        )

    def _warm(self) -> bool:
        """The DAGs have been read."""
        for problem in self.call("GET", "/importErrors?limit=10")["import_errors"]:
            raise LabError(f"Airflow cannot read {problem['filename']}:\n{problem['stack_trace']}")
        known = {dag["dag_id"] for dag in self.call("GET", "/dags?limit=100")["dags"]}
        return {"watch_hypervisors", "remediate_guest"} <= known

    def _wait(self, what: str, look: Callable[[], bool], limit_s: float) -> None:
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            for name, component in self._components.items():
                if component.poll() is not None:
                    raise LabError(f"{name} ended with exit code {component.returncode}:\n{self.log_tail()}")
            try:
                if look():
                    return
            except (urllib.error.URLError, ConnectionError, TimeoutError, KeyError):
                pass  # not up yet
            time.sleep(0.3)
        raise LabError(f"Airflow is not {what} after {limit_s:.0f} s:\n{self.log_tail()}")

    def _request(self, method: str, path: str, body: Any, *, token: str | None) -> Any:
        request = urllib.request.Request(self.url + path, method=method)
        request.add_header("Content-Type", "application/json")
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        data = None if body is None else json.dumps(body).encode()
        try:
            with urllib.request.urlopen(request, data=data, timeout=30) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            with error:
                error.add_note(error.read().decode("utf-8", "replace"))
            raise
        return json.loads(text) if text.strip() else None


def _free_ports(count: int) -> list[int]:
    chosen: set[int] = set()
    while len(chosen) < count:
        chosen.add(choose_port(chosen))
    return list(chosen)


def _airflow_processes(sessions: Collection[int]) -> list[int]:
    """Processes of those sessions that are ours: a recycled number must not cost a stranger its life."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            after_name = (entry / "stat").read_text().rpartition(")")[2].split()
            ours = (entry / "cwd").readlink() == REPOSITORY and b"airflow" in (entry / "cmdline").read_bytes()
        except OSError:
            continue  # it has just ended
        if int(after_name[3]) in sessions and ours:
            found.append(int(entry.name))
    return found


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
