"""What tests of the way to a guest share: names, an instance, and an agent that answers as a test wants."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

from lab.private_sshd import LOGIN_USER
from unlatch.models import Instance, Service

CONN_ID = "unlatch_guest_test"
ENVIRONMENT = "AIRFLOW_CONN_UNLATCH_GUEST_TEST"
GUEST = "dbtest01"

# Answers what the file named in the first argument's directory says, so that each test decides what the agent is.
FAKE_AGENT = """
import json, os, sys
sys.path.pop(0)
canned = json.load(open("{answers}"))
verb = sys.argv[1]
answer = canned.get(verb, canned.get("*", {{}}))
if answer.get("stdin"):
    answer["seen"] = sys.stdin.read()
for line in answer.get("stderr", []):
    sys.stderr.write(line + "\\n")
sys.stderr.flush()
if "stdout" in answer:
    sys.stdout.write(answer["stdout"])
else:
    body = {{"schema": 1, "verb": verb, "ok": True, "files": [], "error": None, "uid": os.getuid()}}
    body.update(answer.get("body", {{}}))
    if "seen" in answer:
        body["seen"] = answer["seen"]
    json.dump(body, sys.stdout)
sys.stdout.flush()
if answer.get("kill"):
    os.kill(os.getpid(), 9)
sys.exit(answer.get("code", 0))
"""

FACTS = {
    "facts": {
        "host": GUEST,
        "boot_id": "b00",
        "booted_at": "2026-01-02T03:04:05.5Z",
        "uptime_s": 12.25,
        "now": "2026-01-02T03:04:17.75Z",
        "agent_version": "9.9",
    },
    "paths": [{"path": "/ORA/dbs03", "mountpoint": "/ORA/dbs03", "fstype": "nfs4", "local_lock": "none"}],
}


def instance(os_user: str = LOGIN_USER, **changes: Any) -> Instance:
    fields: dict[str, Any] = {
        "name": "voms",
        "guest": GUEST,
        "engine": "mariadb",
        "volume": "dbs03",
        "os_user": os_user,
        "datadir": PurePosixPath("/ORA/dbs03/voms"),
        "host": "127.0.0.1",
        "port": 3306,
        "service": Service(start=("true",), stop=("true",), status=("false",), hold=("true",), release=("true",)),
    }
    return Instance(**{**fields, **changes})


Answers = Callable[[dict[str, Any]], None]
