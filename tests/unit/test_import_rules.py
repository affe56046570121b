"""Who may import what: the layering of docs/architecture.md, read from the imports themselves."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PURE = {
    "models",
    "errors",
    "lifecycle",
    "decisions",
    "limits",
    "remedies",
    "root_commands",
    "in_parallel",
    "memory",
    "working_days",
    "service_hours",
}
PLUG_INS = {"evidence", "engines", "crash_sources", "lock_clearers", "ticketing"}
EVERYTHING_BELOW_WIRING = {
    *PURE, *PLUG_INS, "ports", "recording", "runbook", "postmortem", "inventory", "notifications", "transport", "store",
    "discovery", "casebook", "crash_events", "crash_logs", "word_search", "watching", "crash_facts", "settings",
    "connections", "hosts", "assembly",
    "notices", "metrics", "deliveries", "fencing", "late_writers", "log_lines", "alerting", "source_health",
    "deaths", "source_watch",
}  # fmt: skip

# room -> (rooms of unlatch that it may import, libraries beyond the standard one)
ALLOWED: dict[str, tuple[set[str], set[str]]] = {
    "models": (set(), set()),
    "errors": (set(), set()),
    "lifecycle": (set(), set()),
    "decisions": ({"models", "errors", "lifecycle"}, set()),
    "limits": ({"models", "errors", "lifecycle"}, set()),
    "remedies": ({"models"}, set()),
    "root_commands": (set(), set()),
    "in_parallel": (set(), set()),
    "memory": ({"errors"}, set()),
    "working_days": ({"models", "errors"}, set()),
    "purge_days": ({*PURE, "ports", "incident_pages"}, set()),
    "old_holder": ({*PURE, "ports", "recording", "looking", "fencing"}, set()),
    "cleaning": (
        {
            *PURE,
            "ports",
            "recording",
            "deliveries",
            "actions",
            "assessment",
            "late_writers",
            "old_holder",
            "purge_days",
            "wording",
        },
        set(),
    ),
    "drill_history": ({*PURE, "ports", "recording", "postmortem"}, set()),
    "rechecking": ({*PURE, "ports", "incident_pages", "late_writers", "purge_days"}, set()),
    "recheck_report": ({*PURE, "postmortem"}, set()),
    "wiring_rechecks": (
        {*EVERYTHING_BELOW_WIRING, "drill_history", "rechecking", "recheck_report", "site_calendar", "wiring_drill"},
        {"airflow"},
    ),
    "closing": ({*PURE, "ports", "recording", "deliveries", "casebook", "purge_days", "wording"}, set()),
    "wiring_cleaning": (
        {*EVERYTHING_BELOW_WIRING, "wiring", "cleaning", "closing", "purge_days", "site_calendar"},
        {"airflow"},
    ),
    "site_calendar": ({"models", "working_days"}, {"holidays"}),
    "ports": ({*PURE}, set()),
    "service_hours": ({*PURE}, set()),
    "metrics": ({*PURE, "ports"}, set()),
    "notices": ({*PURE, "ports", "deliveries", "service_hours"}, set()),
    "deliveries": ({*PURE, "ports"}, set()),
    "recording": ({*PURE, "ports", "deliveries"}, set()),
    "wording": ({*PURE}, set()),
    "guest_view": ({*PURE, "ports"}, set()),
    "slots": ({*PURE, "ports", "recording"}, set()),
    "excerpts": (set(), set()),
    "crash_facts": ({*PURE, "ports", "recording", "casebook", "excerpts"}, set()),
    "incident_pages": ({"ports"}, set()),
    "together": ({*PURE, "ports", "recording", "deaths"}, set()),
    "held_back": ({*PURE, "ports", "recording", "incident_pages", "deaths", "together"}, set()),
    "looking": ({*PURE, "ports", "recording", "guest_view"}, set()),
    "sweeping": ({*PURE, "ports", "recording", "looking"}, set()),
    "start_right": ({*PURE, "ports", "recording", "slots"}, set()),
    "fencing": ({*PURE, "ports", "recording"}, set()),
    "late_writers": ({*PURE, "ports", "recording", "deliveries", "assessment", "incident_pages"}, set()),
    "freeing": ({*PURE, "ports", "recording", "assessment", "actions", "looking", "sweeping", "start_right"}, set()),
    "settings": ({"errors"}, set()),
    "hosts": ({*PURE, "ports"}, set()),
    "connections": ({"errors", "models", "ticketing"}, {"airflow"}),
    "assembly": ({*EVERYTHING_BELOW_WIRING}, {"airflow"}),
    "assessment": ({*PURE, "ports", "recording", "looking", "sweeping", "fencing", "held_back", "slots"}, set()),
    "actions": ({*PURE, "ports", "recording", "assessment"}, set()),
    "runbook": (
        {
            *PURE,
            "deliveries",
            "ports",
            "recording",
            "assessment",
            "actions",
            "wording",
            "looking",
            "freeing",
            "late_writers",
            "start_right",
            "sweeping",
            "slots",
        },
        set(),
    ),
    "log_lines": (set(), set()),
    "word_search": (set(), {"pydantic_core"}),
    "alerting": (set(), set()),
    "flapping": ({*PURE, "ports"}, set()),
    "source_health": ({*PURE}, set()),
    "crash_events": ({*PURE}, set()),
    "crash_logs": ({*PURE, "crash_events", "log_lines", "word_search"}, set()),
    "deaths": ({*PURE}, set()),
    "watching": ({*PURE, "ports", "crash_events", "deaths", "source_health", "alerting", "flapping"}, set()),
    "source_watch": ({*PURE, "ports", "source_health"}, set()),
    "joining": ({*PURE, "ports"}, set()),
    "casebook": (
        {
            *PURE,
            "joining",
            "together",
            "crash_events",
            "deliveries",
            "ports",
            "purge_days",
            "recording",
            "site_calendar",
            "wording",
        },
        set(),
    ),
    "postmortem": ({*PURE}, {"fpdf"}),
    "discovery": ({"errors"}, set()),
    "inventory": ({*PURE}, {"pydantic", "yaml", "holidays"}),
    "evidence": ({*PURE, "ports"}, set()),
    "engines": ({*PURE, "ports"}, {"psycopg2", "pymysql", "airflow"}),
    "crash_sources": ({*PURE, "ports"}, set()),
    "lock_clearers": ({*PURE, "ports"}, {"requests", "airflow"}),
    "ticketing": ({*PURE, "ports"}, {"requests", "airflow"}),
    "notifications": ({*PURE, "ports"}, {"airflow"}),
    "transport": ({*PURE, "ports", "excerpts"}, {"paramiko", "asyncssh", "airflow"}),
    "store": ({*PURE, "ports"}, {"sqlalchemy", "alembic"}),
    "drill": ({*PURE, "ports", "recording", "assessment", "actions", "wording", "hosts"}, set()),
    "console": ({"store", *PURE}, {"fastapi", "airflow"}),
    "wiring": ({*EVERYTHING_BELOW_WIRING}, {"airflow"}),
    "wiring_telling": ({*EVERYTHING_BELOW_WIRING, "deliveries"}, {"airflow"}),
    "wiring_logs": ({*PURE, "crash_logs", "discovery", "settings"}, set()),
    "wiring_watch": ({*EVERYTHING_BELOW_WIRING}, {"airflow"}),
    "wiring_drill": ({*EVERYTHING_BELOW_WIRING, "drill"}, {"airflow"}),
    "orchestration": (
        {"wiring", "wiring_cleaning", "wiring_rechecks", "wiring_watch", "wiring_telling", *PURE},
        {"airflow"},
    ),
    "cli": (
        {
            "wiring",
            "wiring_rechecks",
            "wording",
            "wiring_cleaning",
            "wiring_watch",
            "wiring_drill",
            "wiring_logs",
            "wiring_telling",
            *PURE,
        },
        {"rich"},
    ),
}


def _imports(file: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(file.read_text(), str(file))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: relative import; write the whole name"
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def _room(file: Path) -> str:
    first = file.relative_to(ROOT / "include" / "unlatch").parts[0]
    return first.removesuffix(".py")


def _is_standard(name: str) -> bool:
    return name.split(".", maxsplit=1)[0] in sys.stdlib_module_names


CONTROLLER_FILES = sorted((ROOT / "include" / "unlatch").rglob("*.py"))


@pytest.mark.parametrize("file", CONTROLLER_FILES, ids=lambda f: str(f.relative_to(ROOT / "include")))
def test_controller_module_imports_only_what_its_room_may(file: Path) -> None:
    """It should fail on any edge that the table above does not have."""
    room = _room(file)
    if room == "__init__":
        return
    assert room in ALLOWED, f"{file}: a new room; decide in ALLOWED who it may import"
    rooms, libraries = ALLOWED[room]
    for name, line in _imports(file):
        top = name.split(".")[0]
        if top == "unlatch":
            target = name.split(".")[1]
            assert target == room or target in rooms, f"{file}:{line}: {room} may not import unlatch.{target}"
        elif not _is_standard(name):
            assert top in libraries, f"{file}:{line}: {room} may not import {top}"


@pytest.mark.parametrize(
    "file",
    sorted((ROOT / "include" / "unlatch_agent").rglob("*.py")),
    ids=lambda f: str(f.relative_to(ROOT / "include")),
)
def test_agent_imports_only_the_standard_library(file: Path) -> None:
    """It should run on any machine that has Python: nothing but the standard library and itself."""
    for name, line in _imports(file):
        assert _is_standard(name) or name.split(".")[0] == "unlatch_agent", f"{file}:{line}: imports {name}"


def test_dag_files_and_plugins_import_only_the_top_layer() -> None:
    """It should keep business logic out of dags/ and plugins/."""
    for file in [*(ROOT / "dags").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")]:
        for name, line in _imports(file):
            top = name.split(".")[0]
            if top == "unlatch":
                room = name.split(".")[1]
                assert room in {"orchestration", "wiring", "console"}, f"{file}:{line}: may not import {name}"
            else:
                assert _is_standard(name) or top in {"airflow", "pendulum"}, f"{file}:{line}: may not import {name}"


def test_nothing_imports_dags_or_plugins() -> None:
    """It should leave dags/ and plugins/ to Airflow alone."""
    for file in (ROOT / "include").rglob("*.py"):
        for name, line in _imports(file):
            assert name.split(".")[0] not in {"dags", "plugins"}, f"{file}:{line}: imports {name}"
