#!/bin/bash
# Both databases to this version's tables. Runs before the other services at each start; does nothing when up to date.
set -euo pipefail
airflow db migrate
python /opt/unlatch/compose/prepare_store.py /opt/unlatch/database/store_owner_url
