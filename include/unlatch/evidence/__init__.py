"""Checks on whether the previous incarnation lives, one file each: `PLUGIN`. Files with `_` are shared parts."""
