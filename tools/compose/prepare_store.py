#!/usr/bin/env python3
"""Create or upgrade the store's tables as their owner, then give the role that tasks use the rights that it needs.

That role can add rows to the audit and read them. It cannot change or delete them, nor drop the triggers that refuse
it, because it owns nothing: even a task that was taken over leaves the audit's past alone. Can run at each start.
"""

from __future__ import annotations

import sys
from pathlib import Path

from sqlalchemy import create_engine, text

from unlatch.store import migration
from unlatch.store.database import Database

RIGHTS = (
    "GRANT USAGE ON SCHEMA public TO unlatch",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO unlatch",
    "REVOKE UPDATE, DELETE ON audit FROM unlatch",
    "REVOKE INSERT, UPDATE, DELETE ON unlatch_schema FROM unlatch",
)


def main() -> None:
    """Prepare the store whose owner's URL is in the file that the first argument names."""
    url = Path(sys.argv[1]).read_text().strip()
    migration.migrate(Database(url, wait_s=60))
    with create_engine(url).begin() as connection:
        for right in RIGHTS:
            connection.execute(text(right))
    print("The store is up to date.")


if __name__ == "__main__":
    main()
