"""Unlatch: brings databases back after their machine crashed and left their files locked."""
