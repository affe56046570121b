"""What all values share: JSON there and back without loss, canonical JSON, and moments in UTC."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Any, Self

Json = dict[str, Any]


class Value:
    """JSON there and back for the dataclasses below."""

    def as_dict(self) -> Json:
        """This value as JSON types: datetimes become ISO 8601 with offset, paths strings, tuples lists."""
        return {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}  # type: ignore[arg-type]  # every subclass is a dataclass

    @classmethod
    def from_dict(cls, data: Json) -> Self:
        """The value that `as_dict` gave.

        Unknown keys are ignored, so that a newer agent or row can be read; a missing key takes the field's default.

        Raises:
            KeyError: a key without default is missing.
        """
        hints = _hints(cls)
        given: Json = {}
        for f in dataclasses.fields(cls):  # type: ignore[arg-type]  # every subclass is a dataclass
            if f.name in data:
                given[f.name] = _typed(hints[f.name], data[f.name])
            elif f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
                raise KeyError(f"{cls.__name__}.{f.name}")
        return cls(**given)


def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _plain(value: Any) -> Any:
    if isinstance(value, Value):
        return value.as_dict()
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, PurePosixPath):
        return str(value)
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _typed(hint: Any, value: Any) -> Any:  # noqa: PLR0911  # one return per kind of type
    if value is None:
        return None
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return _typed(next(a for a in arguments if a is not type(None)), value)
    if origin is tuple:
        return tuple(_typed(arguments[0], item) for item in value)
    if origin is dict:
        return {key: _typed(arguments[1], item) for key, item in value.items()}
    if hint is datetime:
        return datetime.fromisoformat(value)
    if isinstance(hint, type) and issubclass(hint, (StrEnum, PurePosixPath)):
        return hint(value)
    if isinstance(hint, type) and issubclass(hint, Value):
        return hint.from_dict(value)
    return value


def canonical_json(data: Any) -> str:
    """JSON with sorted keys and no spaces: the same content always gives the same text (for digests)."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def utc(moment: datetime) -> datetime:
    """The same moment in UTC.

    Raises:
        ValueError: `moment` has no time zone: guessing one would move a death in time.
    """
    if moment.tzinfo is None:
        raise ValueError(f"{moment!r} has no time zone")
    return moment.astimezone(UTC)
