#!/usr/bin/env python3
"""Health check of one Airflow component: exit code 0 when its heartbeat is fresh, as the API server reports it.

Asking the API costs some milliseconds; `airflow jobs check` would load all of Airflow in each container, every time.
"""

from __future__ import annotations

import http.client
import json
import sys

EXECUTION = "/execution/health"
"""The API that tasks call. Its first answer takes many seconds, longer than a task's patience on a busy machine; so
the API server counts as healthy, and the scheduler starts, only after this one was given."""

HEALTH = "/api/v2/monitor/health"


def get(path: str, *, timeout_s: int) -> bytes:
    """What the API server answers.

    Raises:
        OSError: it does not answer, or with an error.
    """
    connection = http.client.HTTPConnection("airflow-apiserver", 8080, timeout=timeout_s)
    connection.request("GET", path)
    answer = connection.getresponse()
    if answer.status != http.HTTPStatus.OK:
        raise OSError(f"{path}: {answer.status} {answer.reason}")
    return answer.read()


def main() -> int:
    """Check the component that the first argument names: apiserver, scheduler, triggerer or dag_processor."""
    component = sys.argv[1]
    try:
        if component == "apiserver":
            get(EXECUTION, timeout_s=60)
        report = json.loads(get(HEALTH, timeout_s=8))
    except (OSError, http.client.HTTPException) as error:
        print(f"{component}: the API server does not answer: {error}")
        return 1
    status = (report.get("metadatabase" if component == "apiserver" else component) or {}).get("status")
    print(f"{component}: {status}")
    return 0 if status == "healthy" else 1


if __name__ == "__main__":
    sys.exit(main())
