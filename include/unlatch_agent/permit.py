"""The controller's leave to swap files, bound to what it saw. Pure but for reading the document."""

import json
import math
from typing import Any, Dict, List, NamedTuple, Optional

from unlatch_agent import SCHEMA
from unlatch_agent.errors import Json, RefusedError, UsageError

# A permit is short-lived: what the controller saw is no longer true after a while.
LONGEST_S = 3600.0


class PermittedFile(NamedTuple):
    """One file as the controller saw it."""

    path: str
    inode: int
    dev: int
    size_bytes: int
    mtime_ns: int
    content_sha256: Optional[str]


class Permit(NamedTuple):
    """A permit; the files' order is the order of the swap.

    Attributes:
        expires_boottime_s: on this host's CLOCK_BOOTTIME.
    """

    incident: str
    instance: str
    boot_id: str
    expires_boottime_s: float
    evidence_digest: str
    files: List[PermittedFile]

    def refuse_unless_valid(self, incident: str, boot_id: str, boottime_s: float) -> None:
        """Refuse a permit for something else, another boot, or another time.

        Raises:
            RefusedError: ``permit_mismatch``, ``permit_expired`` or ``permit_too_long``.
        """
        again = "ask the controller for a new permit: it looks at all evidence again"
        if self.incident != incident:
            raise RefusedError("permit_mismatch", "the permit is for incident {}".format(self.incident), again)
        if self.boot_id != boot_id:
            raise RefusedError("permit_mismatch", "the permit is for boot {}".format(self.boot_id), again)
        if boottime_s >= self.expires_boottime_s:
            late_s = boottime_s - self.expires_boottime_s
            raise RefusedError("permit_expired", "the permit expired {:.1f} s ago".format(late_s), again)
        if self.expires_boottime_s > boottime_s + LONGEST_S:
            raise RefusedError(
                "permit_too_long",
                "the permit is good for more than {:g} s".format(LONGEST_S),
                "ask for a permit with a shorter life",
            )


def _malformed(what: str) -> UsageError:
    return UsageError("permit_malformed", "the permit cannot be used: {}".format(what), "ask for a new permit")


def _value(document: Json, key: str, kind: Any, what: str) -> Any:
    value = document.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise _malformed("{} has no proper {!r}".format(what, key))
    return value


def parse(text: str) -> Permit:
    """Parse a permit.

    Raises:
        UsageError: ``permit_malformed``.
    """
    try:
        document = json.loads(text)
    except ValueError as error:
        raise _malformed("it is no JSON ({})".format(error)) from error
    if not isinstance(document, dict):
        raise _malformed("it is no object")
    if document.get("schema") != SCHEMA:
        raise _malformed("its schema is not {}".format(SCHEMA))
    expires = float(_value(document, "expires_boottime_s", (int, float), "it"))
    if not math.isfinite(expires):
        raise _malformed("it never expires")
    files = [_file(item) for item in _value(document, "files", list, "it")]
    if not files:
        raise _malformed("it names no file")
    if len({entry.path for entry in files}) != len(files):
        raise _malformed("it names a file twice")
    return Permit(
        incident=_value(document, "incident", str, "it"),
        instance=_value(document, "instance", str, "it"),
        boot_id=_value(document, "boot_id", str, "it"),
        expires_boottime_s=expires,
        evidence_digest=_value(document, "evidence_digest", str, "it"),
        files=files,
    )


def _file(item: object) -> PermittedFile:
    if not isinstance(item, dict):
        raise _malformed("a file is no object")
    numbers: Dict[str, int] = {
        key: _value(item, key, int, "a file") for key in ("inode", "dev", "size_bytes", "mtime_ns")
    }
    path = _value(item, "path", str, "a file")
    if not path.startswith("/") or "\0" in path:
        raise _malformed("{!r} is no absolute path".format(path))
    content = item.get("content_sha256")
    if content is not None and not isinstance(content, str):
        raise _malformed("a file has no proper 'content_sha256'")
    return PermittedFile(path, numbers["inode"], numbers["dev"], numbers["size_bytes"], numbers["mtime_ns"], content)


def as_recorded(path: str, source: Json) -> PermittedFile:
    """Make the entry for a file just as the journal has recorded it."""
    return PermittedFile(path, source["inode"], source["dev"], source["size_bytes"], source["mtime_ns"], None)
