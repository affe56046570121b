#!/bin/bash
# PostgreSQL's image runs this once, while its data directory is new: one database for Airflow, one for the store.
# The store's tables belong to unlatch_owner, who migrates them; tasks log in as unlatch and own nothing.
# psql itself reads the passwords: they appear in no argument list and no environment.
psql --no-psqlrc --quiet -v ON_ERROR_STOP=1 --username postgres --dbname postgres <<'SQL'
\set airflow `cat /run/unlatch/airflow`
\set unlatch `cat /run/unlatch/unlatch`
\set unlatch_owner `cat /run/unlatch/unlatch_owner`
CREATE ROLE airflow LOGIN PASSWORD :'airflow';
CREATE ROLE unlatch LOGIN PASSWORD :'unlatch';
CREATE ROLE unlatch_owner LOGIN PASSWORD :'unlatch_owner';
-- Not the server's encoding, which follows the locale of its image: texts of DAGs are any Unicode.
CREATE DATABASE airflow OWNER airflow ENCODING 'UTF8' TEMPLATE template0;
CREATE DATABASE unlatch OWNER unlatch_owner ENCODING 'UTF8' TEMPLATE template0;
REVOKE ALL ON DATABASE airflow, unlatch, postgres, template1 FROM PUBLIC;
GRANT CONNECT ON DATABASE unlatch TO unlatch;
SQL
