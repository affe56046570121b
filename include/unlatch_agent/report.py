"""Answers for people: tables and a progress bar."""

import sys
from typing import Any, List, Sequence

from unlatch_agent.errors import Json

_BAR_WIDTH = 30
_STEP = 1024.0


def table(headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Lay out rows in columns."""
    cells = [list(headings)] + [["-" if cell is None else str(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headings))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in cells]
    return "\n".join(lines)


def size(size_bytes: float) -> str:
    """Write a size with a unit."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size_bytes) < _STEP:
            return "{:.0f} {}".format(size_bytes, unit) if unit == "B" else "{:.1f} {}".format(size_bytes, unit)
        size_bytes /= _STEP
    return "{:.1f} TiB".format(size_bytes)


def bar(progress: Json) -> str:
    """Draw one line of progress."""
    total = progress["bytes_total"] or 1
    filled = int(_BAR_WIDTH * progress["bytes_done"] / total)
    eta_s = progress["eta_s"]
    return "[{}{}] {} of {}  {}/s  {}  {} {}".format(
        "#" * filled,
        "." * (_BAR_WIDTH - filled),
        size(progress["bytes_done"]),
        size(progress["bytes_total"]),
        size(progress["rate_bytes_s"]),
        "-" if eta_s is None else "{:.0f} s left".format(eta_s),
        progress["phase"],
        progress["path"],
    )


def _lock(lock: Any) -> str:
    if not lock:
        return "-"
    pid = "" if lock["pid"] in (None, 0, -1) else " pid {}".format(lock["pid"])
    return "{}{}".format(lock["kind"], pid)


def _facts(answer: Json) -> List[str]:
    facts = answer["facts"]
    keys = [key for key in facts if key not in ("mounts", "tools")]
    lines = [table(["fact", "value"], [[key, facts[key]] for key in keys])]
    found = answer.get("paths")
    if found:
        keys = ["path", "mountpoint", "fstype", "nfs_version", "local_lock"]
        lines.append(table(keys, [[entry.get(key) for key in keys] for entry in found]))
    return lines


def _openers(answer: Json) -> List[str]:
    rows = [
        [entry["pid"], entry["uid"], entry["exe"], ",".join(entry["why"]), " ".join(entry["cmdline"])[:80]]
        for entry in answer["openers"]
    ]
    lines = [table(["pid", "uid", "exe", "why", "cmdline"], rows)] if rows else ["no process is tied to it"]
    if answer["unchecked"]:
        lines.append("{} processes could not be looked at; run it as root".format(len(answer["unchecked"])))
    return lines


def _preflight(answer: Json) -> List[str]:
    words = {True: "yes", False: "NO", None: "?"}
    rows = [
        [words[entry["ok"]], entry["privilege"], entry["path"], entry["why"], entry["grant"]]
        for entry in answer["privileges"]
    ]
    return [table(["ok", "privilege", "path", "why", "grant"], rows)]


def _inodes(entry: Json) -> Any:
    if "inode" in entry:
        return entry["inode"]
    if "inode_after" not in entry:
        return None
    before = entry.get("inode_before", entry.get("quarantine_inode"))
    return "{} -> {}".format(before, "-" if entry["inode_after"] is None else entry["inode_after"])


def _files(answer: Json) -> List[str]:
    lines = []
    repair = answer.get("repair")
    if repair:
        done, total = size(repair["bytes_done"]), size(repair["bytes_total"])
        lines.append("{}: {}, {} of {}".format(repair["incident"], repair["state"], done, total))
        if repair["error"]:
            lines.append("last error: {message}; {next}".format(**repair["error"]))
    rows = []
    for entry in answer["files"]:
        lock = entry.get("lock") or entry.get("quarantine_lock")
        users = ",".join(str(pid) for pid in entry.get("openers", []))
        rows.append([entry["path"], entry.get("state"), _inodes(entry), _lock(lock), users or None])
    lines.append(table(["path", "state", "inode", "lock", "openers"], rows) if rows else "no files")
    lines += answer.get("warnings", [])
    if "freed_bytes" in answer:
        freed, kept = size(answer["freed_bytes"]), size(answer["not_freed_bytes"])
        lines.append("{} freed, {} still held by a lock".format(freed, kept))
    return lines


def _live_locks(answer: Json) -> List[str]:
    keys = ["pid", "command", "type", "inode", "path", "mountpoint", "server"]
    rows = [[lock[key] for key in keys] for lock in answer["locks"]]
    return [table(keys, rows)] if rows else ["no process of this host holds a lock there"]


def _ports(answer: Json) -> List[str]:
    keys = ["host", "port", "state", "why"]
    return [table(keys, [[port[key] for key in keys] for port in answer["ports"]])]


def _notified(answer: Json) -> List[str]:
    states = [[name, "acknowledged", None] for name in answer["acknowledged"]]
    states += [[name, "no answer", answer["why"].get(name)] for name in answer["unanswered"]]
    states = states or [[name, "would be notified", None] for name in answer["servers"]]
    return [table(["server", "state", "why"], states)] if states else []


def _nas_list(answer: Json) -> List[str]:
    keys = ["inode", "protocol", "client", "type", "path"]
    rows = [[lock[key] for key in keys] for lock in answer["locks"]]
    lines = [table(keys, rows) if rows else "no locks on the file system of {}".format(answer["export"])]
    keys = ["id", "address", "status", "seconds_since_renewal", "version", "opens", "name"]
    if answer["clients"]:
        lines += ["", table(keys, [[client[key] for key in keys] for client in answer["clients"]])]
    return [*lines, "", "connected: {}".format(", ".join(answer["connections"]) or "nobody")]


def _nas_clear(answer: Json) -> List[str]:
    return ["{} locks before, {} after".format(answer["locks_before"], answer["locks_after"])]


def _precompiled(answer: Json) -> List[str]:
    copy = answer["precompiled"]
    row = [copy["path"], copy["python"], copy["modules"], size(copy["size_bytes"])]
    return [table(["path", "python", "modules", "size"], [row])]


_WRITERS = (
    ("facts", _facts),
    ("privileges", _preflight),
    ("openers", _openers),
    ("servers", _notified),
    ("connections", _nas_list),
    ("locks_before", _nas_clear),
    ("locks", _live_locks),
    ("ports", _ports),
    ("precompiled", _precompiled),
)


def text(answer: Json) -> str:
    """Write an answer for a person."""
    lines: List[str] = []
    writer = next((write for key, write in _WRITERS if key in answer), None)
    if writer is not None:
        lines = writer(answer)
    elif answer["ok"] or answer["files"]:
        lines = _files(answer)
    error = answer["error"]
    if error:
        lines.append("{}: {}\nnext: {}".format(error["code"], error["message"], error["next"]))
    return "\n".join(lines)


def show_progress(progress: Json) -> None:
    """Redraw the progress bar, on a terminal only."""
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K" + bar(progress))
        sys.stderr.flush()
