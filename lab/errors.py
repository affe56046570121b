"""What can go wrong in the lab."""

from __future__ import annotations


class LabError(Exception):
    """The lab could not do what was asked; the message says what to look at next."""


class LabUnavailableError(LabError):
    """This machine or this user cannot run the lab at all; the message says what is missing."""
