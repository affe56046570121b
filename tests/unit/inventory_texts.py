"""Inventories that are right, to be made wrong by tests; what is read of them, and what is found wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from unlatch.errors import ConfigError
from unlatch.inventory import Inventory, load

ROOT = Path(__file__).resolve().parents[2]

GOOD = """\
version: 1
site: {timezone: Europe/Zurich, country: CH}
volumes:
  dbs03: {kind: lab, path: /ORA/dbs03}
hypervisors:
  hv01:
    logs:
      - {format: xend, path: /var/log/xen/xend.log, timezone: Europe/Zurich}
guests:
  dbvrtg4037:
    hypervisor: hv01
    names: ['^\\d+_dbvrtg4037$']
instances:
  voms:
    guest: dbvrtg4037
    engine: mariadb
    volume: dbs03
    os_user: mysql
    datadir: /ORA/dbs03/voms
    host: 127.0.0.1
    port: 3306
    service: {unit: dbod-mysql@voms}
"""

SECOND = """\
  lxr:
    guest: dbvrtg4037
    engine: postgresql
    volume: dbs03
    os_user: postgres
    datadir: /ORA/dbs03/lxr
    host: 127.0.0.1
    port: 5432
    service: {unit: dbod-pg@lxr}
"""


def loaded(directory: Path, text: str) -> Inventory:
    file = directory / "inventory.yaml"
    file.write_text(text)
    return load(file)


def problems(directory: Path, text: str) -> str:
    """What the error says, with the directory cut off."""
    with pytest.raises(ConfigError) as raised:
        loaded(directory, text)
    return raised.value.what.replace(f"{directory}/", "")
