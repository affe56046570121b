"""Keys that sign the audit: who has the database but not the key cannot write a chain that verifies.

A keys file has one key per line, `ID KEY`. The last line signs; the others verify what was signed before. So a key is
changed by adding a line. Rows without a signature have their plain SHA-256; a signed row's hash is `ID.HMAC-SHA256`.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from unlatch.errors import ConfigError

_ID = re.compile(r"[a-z0-9_-]{1,20}")
_SHORTEST_KEY = 32


@dataclass(frozen=True)
class AuditKeys:
    """Keys by their ids, oldest first; without any, rows are hashed but not signed."""

    keys: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    @classmethod
    def parse(cls, text: str) -> AuditKeys:
        """Read the content of a keys file; empty lines and those that begin with `#` say nothing.

        Raises:
            ConfigError: a line is no key. The error never shows one.
        """
        keys: dict[str, bytes] = {}
        for number, line in enumerate(text.splitlines(), 1):
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            if len(words) != 2 or not _ID.fullmatch(words[0]) or len(words[1]) < _SHORTEST_KEY or words[0] in keys:  # noqa: PLR2004  # id and key
                raise ConfigError(
                    f"Line {number} of the audit's keys is no key.",
                    next_step=f"write `ID KEY`: a new id of a-z, 0-9, - and _, and at least {_SHORTEST_KEY} characters "
                    "such as `openssl rand -hex 32` prints.",
                )
            keys[words[0]] = words[1].encode()
        return cls(keys)

    @property
    def present(self) -> str | None:
        """The id of the key that signs; None when there is none."""
        return list(self.keys)[-1] if self.keys else None

    def digest(self, content: bytes) -> str:
        """The hash of a new row."""
        return self._digest(content, self.present)

    def agrees(self, content: bytes, stated: str) -> bool | None:
        """Whether a row's content gives its hash; None when it is signed with a key that is not here."""
        key_id = signer(stated)
        if key_id is not None and key_id not in self.keys:
            return None
        return hmac.compare_digest(self._digest(content, key_id).encode(), stated.encode("utf-8", "backslashreplace"))

    def _digest(self, content: bytes, key_id: str | None) -> str:
        if key_id is None:
            return hashlib.sha256(content).hexdigest()
        return f"{key_id}.{hmac.new(self.keys[key_id], content, hashlib.sha256).hexdigest()}"


NO_KEYS = AuditKeys()


def signer(stated: str) -> str | None:
    """The id of the key that a hash says it was made with; None for a plain hash."""
    key_id, dot, _ = stated.partition(".")
    return key_id if dot else None
