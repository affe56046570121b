"""recreate: prepare and commit by hand, on a person's typed word."""

from typing import Dict, Sequence

from unlatch_agent import bootclock, commit, journal, permit, prepare
from unlatch_agent.copying import Asked
from unlatch_agent.errors import Json, RefusedError
from unlatch_agent.ioguard import Beat
from unlatch_agent.journal import Journal
from unlatch_agent.safety import Target

_LIFE_S = 600.0


def run(incident: str, targets: Sequence[Target], asked: Asked, io_timeout_s: float, beat: Beat) -> Json:
    """Give files a new inode. The caller holds the host lock and has checked the typed word.

    It refuses what prepare and commit refuse, a local holder above all. A file without any lock is
    accepted. Idempotent: files that are already swapped are left alone.

    Raises:
        AgentError: as prepare and commit do.
    """
    journals = journal.of_directories((target.directory for target in targets), incident, beat)
    entries = [journals[target.directory].entry(target.name) for target in targets]
    checks: Dict[str, Json] = {}
    if not any(entry is not None and entry.state in ("swapping", "committed") for entry in entries):
        copies = prepare.run(
            incident, targets, asked, io_timeout_s, beat, journals=journals, is_told=asked.engine_check
        )
        checks = {entry["path"]: entry["engine_check"] for entry in copies["files"] if "engine_check" in entry}
        del copies  # of many files that is much memory, and commit needs as much again
    leave = _own_permit(incident, targets, journals)
    answer = commit.run(incident, targets, leave, io_timeout_s, beat, journals=journals)
    if checks:
        answer["files"] = (
            dict(entry, engine_check=checks[entry["path"]]) if entry["path"] in checks else entry
            for entry in answer["files"]
        )
    return answer


def _own_permit(incident: str, targets: Sequence[Target], journals: Dict[str, Journal]) -> permit.Permit:
    """Make the permit that a person's typed confirmation stands for: for what was copied just now."""
    files = []
    for target in targets:
        entry = journals[target.directory].entry(target.name)
        if entry is None or "source" not in entry.facts:
            raise RefusedError(
                "not_prepared",
                "{} is not part of this incident's repair".format(target.path),
                "name the same files as before, or use another incident id",
            )
        files.append(permit.as_recorded(target.path, entry.facts["source"]))
    return permit.Permit(
        incident=incident,
        instance="",
        boot_id=bootclock.boot_id(),
        expires_boottime_s=bootclock.boottime_s() + _LIFE_S,
        evidence_digest="typed by hand",
        files=files,
    )
