"""The command `unlatch`: what operators and programs ask outside the web UI. It reads; repairs run in Airflow."""

from unlatch.cli.program import main

__all__ = ["main"]
