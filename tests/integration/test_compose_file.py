"""The container files, looked at without an engine: what they name exists, is pinned, and holds no secret."""

from __future__ import annotations

import json
import re
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "tools" / "compose"
SERVICES = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())["services"]
ONE_SHOT = {"secrets", "init"}
"""Services that do one thing and end; their exit code is what others wait for."""


def locked_versions(name: str) -> dict[str, set[str]]:
    """Version lines by package name; more than one where versions differ between Pythons."""
    versions: dict[str, set[str]] = {}
    for package, rest in re.findall(r"^([a-z0-9._-]+)==([^\\\n]+)", (ROOT / name).read_text(), re.MULTILINE):
        versions.setdefault(package, set()).add(rest.strip())
    return versions


def lines_of(path: Path) -> str:
    """The file without comments."""
    return "\n".join(line.split("#")[0] for line in path.read_text().splitlines())


def test_every_service_reports_its_health() -> None:
    """It should check every lasting service, with time for a cold start, and wait for one-shots by exit code."""
    for name, service in SERVICES.items():
        if name in ONE_SHOT:
            assert service["healthcheck"] == {"disable": True}
            assert "restart" not in service
        else:
            assert {"test", "interval", "timeout", "retries", "start_period"} <= set(service["healthcheck"]), name
            assert service["restart"] == "unless-stopped", name


def test_the_order_of_the_start() -> None:
    """It should wait for conditions, never only for a container to exist, and only for services that there are."""
    for name, service in SERVICES.items():
        for other, wait in service.get("depends_on", {}).items():
            expected = "service_completed_successfully" if other in ONE_SHOT else "service_healthy"
            assert wait["condition"] == expected, f"{name} -> {other}"
            assert other in SERVICES


def test_images_are_pinned() -> None:
    """It should name a version of every image, the same Airflow as the lock, and this project's own version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    dockerfile = (ROOT / "Dockerfile").read_text()
    bases = re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)
    for image in [*bases, *(service["image"] for service in SERVICES.values())]:
        assert re.search(r":\d[\w.-]*$", image), image
    (airflow,) = locked_versions("requirements-runtime.lock")["apache-airflow"]
    assert set(bases) == {f"apache/airflow:{airflow}-python3.11"}
    assert SERVICES["init"]["image"] == f"unlatch:{project['version']}"


def test_nothing_runs_with_more_rights_than_it_needs() -> None:
    """It should drop all capabilities, forbid new privileges, and publish one port, on loopback."""
    for name, service in SERVICES.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "privileged" not in service
        assert "user" not in service, "the image's own unprivileged user"
        if service["image"].startswith("unlatch:"):
            assert service["read_only"] is True, name
            assert "cap_add" not in service, name
    ports = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert ports == {"airflow-apiserver": ["127.0.0.1:${UNLATCH_PORT:-8080}:8080"]}
    assert (ROOT / "Dockerfile").read_text().rfind("USER airflow") > (ROOT / "Dockerfile").read_text().rfind(
        "USER root"
    )


def test_no_secret_is_written_down() -> None:
    """It should set no secret in a file or an environment: those are generated into volumes, and read from there."""
    for service in SERVICES.values():
        assert "environment" not in service
        assert "env_file" not in service
    settings = [*lines_of(COMPOSE / "airflow.cfg").splitlines(), *lines_of(ROOT / "Dockerfile").splitlines()]
    secret = re.compile(r"^\s*(\S*(?:password|secret|fernet|_conn|_url)\S*?)\s*=\s*(\S.*)", re.IGNORECASE)
    found = [match.groups() for line in settings if (match := secret.match(line))]
    assert len(found) >= 5
    for key, value in found:
        if key.endswith("_cmd"):
            assert value.startswith("cat /opt/unlatch/secrets/"), key
        else:
            assert value.startswith(("/opt/unlatch/", "http://airflow-apiserver")), key


def test_secrets_reach_only_those_who_need_them() -> None:
    """It should show the database's passwords to no lasting service but the database, and let none change them."""
    mounted = {
        name: {source: rest for source, _, rest in (volume.partition(":") for volume in service["volumes"])}
        for name, service in SERVICES.items()
    }
    assert {name for name, volumes in mounted.items() if "database-secrets" in volumes} == ONE_SHOT | {"postgres"}
    assert {name for name, volumes in mounted.items() if "login" in volumes} == {"secrets", "airflow-apiserver"}
    for name in SERVICES.keys() - {"secrets"}:
        for source in {"secrets", "database-secrets", "./config"} & set(mounted[name]):
            assert mounted[name][source].endswith(":ro"), f"{name}: {source}"


def test_every_volume_is_declared() -> None:
    """It should declare the named volumes that are used, and bind only files that are in the repository, or config."""
    declared = set(yaml.safe_load((ROOT / "docker-compose.yaml").read_text())["volumes"])
    sources = {volume.split(":")[0] for service in SERVICES.values() for volume in service["volumes"]}
    assert {source for source in sources if not source.startswith("./")} == declared
    for source in {source for source in sources if source.startswith("./")} - {"./config"}:
        assert (ROOT / source).is_file(), source


def test_commands_name_files_of_the_image() -> None:
    """It should call only scripts that the image gets."""
    words = [
        word for service in SERVICES.values() for word in [*service["command"], *service["healthcheck"].get("test", [])]
    ]
    scripts = [word for word in words if word.startswith("/opt/unlatch/compose/")]
    assert scripts
    for script in [*scripts, *re.findall(r"/opt/unlatch/compose/\S+", (COMPOSE / "init.sh").read_text())]:
        assert (COMPOSE / Path(script).name).is_file(), script


def test_the_build_context_holds_no_configuration() -> None:
    """It should send only what is named to the builder: no inventory, key, run-time state or history."""
    lines = (ROOT / ".dockerignore").read_text().split("\n")
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    for allowed in (rule[1:] for rule in rules if rule.startswith("!")):
        assert allowed.split("/")[0] not in {"config", "var", "dist", ".git", ".venv"}
        assert (ROOT / allowed).exists() or allowed == "plugins", allowed


def test_the_image_gets_the_tested_versions() -> None:
    """It should pin the versions that the tests run with, plus the few that only the image needs, all by hash."""
    tested, image = locked_versions("requirements.lock"), locked_versions("requirements-runtime.lock")
    only_image = set(re.findall(r"^([a-z0-9-]+)>=", (COMPOSE / "image.in").read_text(), re.MULTILINE))
    for package, versions in image.items():
        assert versions <= tested.get(package, versions), f"{package}: lock both files again"
    assert image.keys() - tested.keys() <= only_image
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for dependency in project["dependencies"]:
        assert re.split(r"[>=<~!\[ ]", dependency)[0].lower() in image, dependency
    blocks = re.split(r"^(?=\S+==)", (ROOT / "requirements-runtime.lock").read_text(), flags=re.MULTILINE)
    assert all("--hash=sha256:" in block for block in blocks if "==" in block)


@pytest.fixture
def secrets_root(tmp_path: Path) -> Path:
    for name in ("secrets", "login", "database"):
        (tmp_path / name).mkdir()
    return tmp_path


def make_secrets(root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, COMPOSE / "make_secrets.py", root], text=True, capture_output=True, check=True, timeout=60
    )


def contents(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}


def test_secrets_are_made_once(secrets_root: Path) -> None:
    """It should make every secret that the configuration reads, keep it at the next start, and print none of them."""
    printed = make_secrets(secrets_root)
    made = contents(secrets_root)
    again = make_secrets(secrets_root)
    assert contents(secrets_root) == made

    read = re.findall(r"cat /opt/unlatch/(\S+)", (COMPOSE / "airflow.cfg").read_text())
    roles = re.findall(r"cat /run/unlatch/(\w+)`", (COMPOSE / "databases.sh").read_text())
    assert {*read, "secrets/store_url", "login/passwords.json"} <= made.keys()
    assert made.keys() == {*read, *(f"database/{role}" for role in roles)} | {
        "secrets/store_url",
        "login/passwords.json",
        "database/store_owner_url",
    }
    password = json.loads(made["login/passwords.json"])["admin"]
    for value in [password, *(text.strip() for name, text in made.items() if not name.startswith("login"))]:
        assert len(value) >= 20
        for output in (printed.stdout, printed.stderr, again.stdout):
            assert value not in output
    assert "login/passwords.json" in printed.stdout


def test_databases_take_any_text() -> None:
    """It should not take its encoding from the locale of PostgreSQL's image: texts of DAGs are any Unicode."""
    made = re.findall(r"^CREATE DATABASE (.*);$", (COMPOSE / "databases.sh").read_text(), re.MULTILINE)
    assert len(made) == 2
    assert all("ENCODING 'UTF8' TEMPLATE template0" in words for words in made)


def test_an_interrupted_start_completes_its_secrets(secrets_root: Path) -> None:
    """It should finish what an interrupted first start left, with the same passwords in files and URLs."""
    (secrets_root / "database" / "airflow").write_text("kept-password")
    (secrets_root / "database" / ".unlatch.new").write_text("hal")
    make_secrets(secrets_root)
    made = contents(secrets_root)
    assert ":kept-password@" in made["secrets/airflow_url"]
    assert made["database/unlatch"] in made["secrets/store_url"]
    assert made["database/unlatch_owner"] in made["database/store_owner_url"]
    assert not [name for name in made if name.endswith(".new")]


def test_secrets_are_for_their_user_alone(secrets_root: Path) -> None:
    """It should let nobody else read what Airflow's services read."""
    make_secrets(secrets_root)
    for directory, expected in (("secrets", 0o400), ("login", 0o600)):
        for path in (secrets_root / directory).iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == expected, path


@pytest.mark.parametrize("script", sorted(COMPOSE.glob("*.sh")), ids=lambda path: path.name)
def test_scripts_are_valid_shell(script: Path) -> None:
    """It should be accepted by bash."""
    subprocess.run(["bash", "-n", script], check=True, timeout=30)
