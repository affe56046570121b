"""Guests and hypervisors over SSH."""
