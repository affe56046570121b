"""Settings that must stand before anything imports Airflow: tests never touch a user's own Airflow or store."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from hypothesis import settings

settings.register_profile("unlatch", deadline=None)  # a loaded machine is no defect
settings.load_profile("unlatch")

ROOT = Path(__file__).resolve().parent.parent

_home = Path(tempfile.mkdtemp(prefix="unlatch-tests-"))
for _name in [name for name in os.environ if name.startswith(("AIRFLOW_", "UNLATCH_"))]:
    if _name not in {
        "UNLATCH_LAB_CACHE",
        "UNLATCH_NFS_LAB",
        "UNLATCH_NFS_TESTS",
        "UNLATCH_NFS_KEEP",
        "UNLATCH_RT_TESTS",
    }:
        del os.environ[_name]
os.environ.update(
    {
        "AIRFLOW_HOME": str(_home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__UNIT_TEST_MODE": "True",
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{_home}/airflow.db",
        "UNLATCH_INVENTORY": str(_home / "inventory.yaml"),
        "UNLATCH_STORE_URL": f"sqlite:///{_home}/unlatch.db",
    }
)


def pytest_unconfigure() -> None:
    """Leave nothing behind."""
    import shutil  # noqa: PLC0415  # only here

    shutil.rmtree(_home, ignore_errors=True)
