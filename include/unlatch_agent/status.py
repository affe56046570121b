"""status: how far a repair is."""

from typing import Dict, Iterable, List, Sequence, Set

from unlatch_agent import jobs, positions
from unlatch_agent.errors import Json
from unlatch_agent.ioguard import Beat
from unlatch_agent.journal import Journal
from unlatch_agent.manyfiles import ManyFiles
from unlatch_agent.replaying import Entry


def overall(states: Iterable[str]) -> str:
    """Return a repair's state from the states of its files."""
    found = set(states)
    finished = found & {"committed", "set_aside", "purging"}
    halfway = found & {"swapping", "setting_aside"} or (finished and found & {"prepared", "copying"})
    rules = (
        ("restoring", "restoring" in found),
        ("committing", halfway),
        ("committed", finished),
        ("restored", "restored" in found),
        ("preparing", "copying" in found),
        ("prepared", "prepared" in found),
        ("purged", found),
    )
    return next((state for state, holds in rules if holds), "none")


def run(incident: str, directories: Sequence[str], beat: Beat) -> Json:
    """Tell how far an incident's repair is in directories. Changes nothing, needs no lock.

    Returns:
        ``repair``, ``files`` and ``journals``.
    """
    job = jobs.find(incident, directories)
    facts: Json = job.facts if job is not None else {}
    done: Dict[str, int] = facts.get("files", {})
    files = ManyFiles()
    states: Set[str] = set()
    paths: List[str] = []
    bytes_done = bytes_total = 0
    for directory in directories:
        beat(None)
        owner = Journal(directory, incident)
        if owner.exists:
            paths.append(owner.path)
        for entry in owner.entries:
            states.add(entry.state)
            told = _document(owner, entry, done)
            bytes_done += told["bytes_done"]
            bytes_total += told["size_bytes"]
            files.add([told])
    is_running = job is not None and job.is_running
    progress = facts.get("progress") or {}
    state = overall(states)
    if is_running and state in ("none", "prepared", "restored", "purged"):
        state = "preparing"
    repair = {
        "incident": incident,
        "state": state,
        "job": {"running": is_running, "pid": facts.get("pid"), "exit_code": facts.get("exit_code")},
        "bytes_done": bytes_done,
        "bytes_total": progress.get("bytes_total", bytes_total),
        "rate_bytes_s": progress.get("rate_bytes_s") if is_running else None,
        "eta_s": progress.get("eta_s") if is_running else None,
        "error": facts.get("error"),
    }
    return {"repair": repair, "files": files, "journals": paths}


def _document(owner: Journal, entry: Entry, done: Dict[str, int]) -> Json:
    path = owner.beside(entry.name)
    kept = int(entry.facts.get("done_bytes", 0))  # copied, and not yet compared
    position = positions.look(owner, entry)
    size_bytes = int(entry.facts["source"]["size_bytes"])
    quarantine = owner.quarantine(entry.name)
    temp = owner.temp(entry.name)
    return {
        "path": path,
        "state": entry.state,
        "position": position.kind,
        "bytes_done": min(size_bytes, done.get(path) or kept // 2) if entry.state == "copying" else size_bytes,
        "size_bytes": size_bytes,
        "inode_before": entry.source_inode,
        "inode_after": entry.temp_inode,
        "quarantine": quarantine if position.quarantine is not None else None,
        "temp": temp if position.temp is not None else None,
    }
