"""Makes details fit to be kept for ever: plain JSON, encodable text, no secrets."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import datetime
from pathlib import PurePath
from typing import Any

from unlatch.models import Json, Value, utc

HIDDEN = "***"

_SECRET_KEY = re.compile(
    r"passw(or)?d|passphrase|^pwd$|secret|token|credential|api_?key|private_?key|key_?file|authorization|cookie",
    re.IGNORECASE,
)
_PASSWORD_IN_URL = re.compile(r"(://[^/\s:@]*):[^/\s@]+@")


def hide_passwords(text: str) -> str:
    """The text with `***` for the passwords of URLs."""
    return _PASSWORD_IN_URL.sub(rf"\1:{HIDDEN}@", text)


def clean_text(text: str) -> str:
    r"""Text that UTF-8 and both databases can hold, without passwords of URLs.

    File names that are no UTF-8 reach us as lone surrogates, and PostgreSQL keeps no NUL: both are written as `\udc80`
    or `\x00`, so that a strange file name can never keep an intent from being recorded.
    """
    return hide_passwords(text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\x00", "\\x00"))


def redact(detail: Json, text: Callable[[str], str] = clean_text) -> Json:
    """The same detail as plain JSON, with `***` for every value whose key names a secret.

    Datetimes and paths become text; numbers that JSON has no word for (`nan`) become text too.

    Args:
        detail: what is to be kept.
        text: what is done to every text in it; `hide_passwords` where strange characters must come back as they were.

    Raises:
        TypeError: a value is no JSON and no value of `unlatch.models`.
    """
    return {text(str(key)): HIDDEN if _is_secret(key, value) else _plain(value, text) for key, value in detail.items()}


def _is_secret(key: Any, value: Any) -> bool:
    # A flag or a count under such a key ("password_set": true) tells nothing, and is worth reading.
    return bool(_SECRET_KEY.search(str(key))) and value is not None and not isinstance(value, (bool, int, float))


def _plain(value: Any, text: Callable[[str], str]) -> Any:  # noqa: PLR0911  # one return per kind of value
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, str):
        return text(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Value):
        return redact(value.as_dict(), text)
    if isinstance(value, dict):
        return redact(value, text)
    if isinstance(value, (list, tuple)):
        return [_plain(item, text) for item in value]
    if isinstance(value, datetime):
        return utc(value).isoformat()
    if isinstance(value, PurePath):
        return text(str(value))
    raise TypeError(f"{type(value).__name__} cannot be recorded: {value!r}; turn it into JSON types first")
