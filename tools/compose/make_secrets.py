#!/usr/bin/env python3
"""Make every secret that the services share, once. A secret that is there is kept, so this can run at each start.

Files, all below the root of the image's Unlatch directory:

- `secrets/`: what Airflow's services read; for their user alone.
- `login/passwords.json`: the password of `admin`; only the API server gets this volume.
- `database/`: the passwords of PostgreSQL's roles. PostgreSQL's container reads them under another user id, so the
  files are readable for all; the boundary is the volume, which only PostgreSQL and the two one-shot services mount.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import secrets
from collections.abc import Callable
from pathlib import Path

ROLES = ("airflow", "unlatch", "unlatch_owner")
"""Airflow's own database; the store as tasks use it; the store's owner, for migrations alone."""


def keep(path: Path, make: Callable[[], str], *, mode: int = 0o400) -> str:
    """The secret in the file, made first if it is not there. A half-written file is never left behind."""
    if not path.exists():
        new = path.with_name(f".{path.name}.new")
        new.unlink(missing_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as output:
            output.write(make())
            output.flush()
            os.fsync(output.fileno())
        new.chmod(mode)
        new.rename(path)
    return path.read_text()


def make_all(root: Path) -> None:
    """Make what is missing below `root`; its three directories exist."""
    passwords = {role: keep(root / "database" / role, lambda: secrets.token_urlsafe(32), mode=0o444) for role in ROLES}
    # The driver by name: SQLAlchemy's default for plain postgresql:// changed in 2.1.
    address = "postgresql+psycopg2://{role}:{password}@postgres:5432/{database}"
    for path, role, database in (
        (root / "secrets" / "airflow_url", "airflow", "airflow"),
        (root / "secrets" / "store_url", "unlatch", "unlatch"),
        (root / "database" / "store_owner_url", "unlatch_owner", "unlatch"),
    ):
        url = address.format(role=role, password=passwords[role], database=database)
        keep(path, lambda url=url: url)  # type: ignore[misc]
    keep(root / "secrets" / "fernet_key", lambda: base64.urlsafe_b64encode(secrets.token_bytes(32)).decode())
    keep(root / "secrets" / "jwt_secret", lambda: secrets.token_urlsafe(64))
    keep(root / "secrets" / "api_secret_key", lambda: secrets.token_urlsafe(32))
    # Airflow opens this file for writing, even when there is nothing to write.
    keep(root / "login" / "passwords.json", lambda: json.dumps({"admin": secrets.token_urlsafe(18)}) + "\n", mode=0o600)


def main() -> None:
    """Make the secrets and say where the login is."""
    parser = argparse.ArgumentParser(description="Make every secret that the services share, once.")
    parser.add_argument("root", type=Path, nargs="?", default=Path("/opt/unlatch"))
    root = parser.parse_args().root
    make_all(root)
    print(
        f"Secrets are in place. The user is admin; the password is in the volume `login`. To read it:\n"
        f"  docker compose exec airflow-apiserver cat {root}/login/passwords.json"
    )


if __name__ == "__main__":
    main()
