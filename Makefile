# Everything a user or developer runs. `make` alone prints this list.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PY := .venv/bin/python
WORKERS ?= 2
UV_LOCK := .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url --no-header --generate-hashes

.PHONY: help setup check test test-faults bench bench-detect test-nfs test-nfs-short test-rt agent demo lock

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## install what is missing: Debian packages (root or sudo), .venv from requirements.lock
	@tools/setup.sh

check: setup ## ruff, mypy (strict on include/), import rules
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	$(PY) -m pytest -q -p no:randomly tests/unit/test_import_rules.py

agent: ## build dist/unlatch-agent.pyz (needs only python3, no setup)
	@python3 tools/build_agent.py

test: setup agent ## all tests, with real databases, sshd, locks and Airflow
	$(PY) -m pytest -n $(WORKERS) --dist loadfile

test-faults: setup agent ## stop the agent at every system call on ext4, xfs, btrfs: hours, as root; FAULTS=50 for a sample
	FAULTS=$(or $(FAULTS),full) $(PY) -m pytest tests/faults -n $(WORKERS) --dist load -p no:randomly -q

BENCH_SCALE ?= 1
bench: setup ## recreate, check-locks and detection beside the usual tools: 45 minutes, as root; BENCH_SCALE=0.01 for a look
	$(PY) -m bench --scale $(BENCH_SCALE) $(BENCH)
	$(PY) -m bench.detect --scale $(BENCH_SCALE)

bench-detect: setup ## only detection: twenty minutes; as root also through killed daemons; BENCH='--section speed' for a part
	$(PY) -m bench.detect --scale $(BENCH_SCALE) $(BENCH)

# The NFS lab: a folder of scripts that is not part of the project, relative to here; its tests are skipped without it.
UNLATCH_NFS_LAB ?= ../shared/lab
NFS = UNLATCH_NFS_TESTS=1 UNLATCH_NFS_LAB=$(UNLATCH_NFS_LAB) $(PY) -m pytest tests/nfs -p no:randomly --capture=sys

test-nfs: setup agent ## repairs on real NFS in virtual machines: an hour, as root; K=name for some of them
	$(NFS) -k '$(K)'

test-nfs-short: setup agent ## one repair and one refusal of those: under ten minutes
	$(NFS) -m nfs_short

test-rt: setup ## tickets in a real Request Tracker: installs request-tracker5 (root), runs it on loopback; K=name for some
	@tools/setup.sh tools/apt-packages-rt.txt
	UNLATCH_RT_TESTS=1 $(PY) -m pytest tests/rt -p no:randomly -k '$(K)'

lock: setup ## write both lock files anew from pyproject.toml
	$(UV_LOCK) --extra dev -o requirements.lock pyproject.toml
	$(UV_LOCK) --constraint requirements.lock -o requirements-runtime.lock pyproject.toml tools/compose/image.in

demo: setup agent ## the whole life cycle on real databases, in a real Airflow (DEMO_EXIT=1: exit when done)
	$(PY) -m lab.demo
