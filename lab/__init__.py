"""The embedded lab: a guest whose databases can crash for real, on one machine, without containers or VMs."""

from lab.errors import LabError, LabUnavailableError
from lab.instances import Instance
from lab.lab import CrashReport, Lab
from lab.requirements import unavailable_reason
from lab.writer import Writer

__all__ = ["CrashReport", "Instance", "Lab", "LabError", "LabUnavailableError", "Writer", "unavailable_reason"]
