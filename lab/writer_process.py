"""The writer itself: inserts rows into every database, one commit each, and records what was acknowledged.

Usage: python -m lab.writer_process TARGETS.json. For each target one line per acknowledged commit goes to a file: the
row's id. A line is written only after the server has confirmed the commit, so every id in the file must survive.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

PAUSE_S = 0.005
_INSERT = {
    "mariadb": "INSERT INTO writer (id, note) VALUES (%s, %s)",
    "postgresql": "INSERT INTO public.writer (id, note) VALUES (%s, %s)",
}


def connect(target: dict[str, Any]) -> Any:
    """Open a connection to a target: `{"engine", "port", "user", "password", "database"}`."""
    common = {"host": "127.0.0.1", "port": target["port"], "user": target["user"], "password": target["password"]}
    if target["engine"] == "postgresql":
        import psycopg2  # noqa: PLC0415  # the lab runs without the drivers until somebody writes

        return psycopg2.connect(dbname=target["database"], connect_timeout=10, **common)
    import pymysql  # noqa: PLC0415

    return pymysql.connect(database=target["database"], connect_timeout=10, **common)


def write(target: dict[str, Any]) -> None:
    """Insert and commit until the connection breaks."""
    connection = connect(target)
    cursor = connection.cursor()
    row = int(target["first_id"])
    with open(target["acknowledged"], "ab", buffering=0) as acknowledged:
        while True:
            cursor.execute(_INSERT[target["engine"]], (row, f"written at {time.time():.6f}"))
            connection.commit()
            acknowledged.write(f"{row}\n".encode())
            row += 1
            time.sleep(PAUSE_S)  # leaves the machine's cores to those who are being tested


def main() -> None:
    """Write to all targets at once, each in a thread; a broken connection ends its thread only."""

    def run(target: dict[str, Any]) -> None:
        try:
            write(target)
        except Exception as error:  # noqa: BLE001  # whichever driver's error: the connection is gone
            print(f"{target['name']}: writer ends: {error!r}", file=sys.stderr, flush=True)

    targets = json.loads(Path(sys.argv[1]).read_text())
    threads = [threading.Thread(target=run, args=(target,)) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os._exit(0)


if __name__ == "__main__":
    main()
