"""A YAML file that remembers on which line each of its keys stands, so that every complaint can name it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from unlatch.errors import ConfigError

KeyPath = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    """YAML 1.2's plain values only: in 1.1 the country `NO` is false, the port `22:22` is 1342, and `0x10` is 16."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  # PyYAML's way to start without inherited resolvers


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", "-+0123456789"),
    ("float", r"[-+]?[0-9]+\.[0-9]+", "-+0123456789"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), list(_first))


@dataclass
class Document:
    """The file's content, and everything that is wrong with it.

    Attributes:
        name: The file as the user named it.
        data: What the YAML says; `{}` for an empty file.
        lines: The line of each key that is there, counted from 1.
    """

    name: str
    data: Any
    lines: dict[KeyPath, int] = field(default_factory=dict)
    _problems: dict[tuple[int, KeyPath], str] = field(default_factory=dict)

    def line(self, path: KeyPath) -> int:
        """The line of a key; for one that is not there, of what it is missing from."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def complain(self, path: KeyPath, message: str, line: int | None = None) -> None:
        """Note a problem; only the first one of each key, as later ones mostly follow from it."""
        self._problems.setdefault((self.line(path) if line is None else line, path), message)

    def complained(self, path: KeyPath) -> bool:
        """Whether this key or anything below it has a problem already."""
        return any(known[: len(path)] == path for _, known in self._problems)

    def raise_problems(self) -> None:
        """Raise one `ConfigError` that lists every problem in the order of the file; nothing when there is none."""
        if not self._problems:
            return
        told = [
            f"{self.name}:{line}: {f'{dotted(path)}: ' if path else ''}{message}"
            for (line, path), message in sorted(self._problems.items(), key=lambda item: (item[0][0], str(item[0][1])))
        ]
        what = told[0] if len(told) == 1 else f"{self.name} has {len(told)} problems:\n  " + "\n  ".join(told) + "\n"
        raise ConfigError(what, next_step="correct the inventory; `unlatch inventory check` says whether it is right.")


def dotted(path: KeyPath) -> str:
    """`instances.voms.waive[0].by`: as people write it."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def read(path: Path) -> Document:
    """Read the file; duplicate and unquoted keys are noted as problems, not raised.

    Raises:
        ConfigError: the file cannot be read, or is no YAML.
    """
    advice = "set UNLATCH_INVENTORY to the inventory file; inventory.example.yaml shows what belongs into it."
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: the inventory cannot be read: {error.strerror}.", next_step=advice) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: the inventory is not UTF-8 text: {error}.", next_step=advice) from error
    document = Document(str(path), {})
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return document
        _walk(node, (), document, inside=())
        document.data = loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        words = ", ".join(part for part in (error.context, error.problem) if part)
        raise ConfigError(f"{path}:{line}: this is no YAML: {words}.", next_step="correct that line.") from error
    except yaml.YAMLError as error:  # a character that YAML forbids
        raise ConfigError(f"{path}: this is no YAML: {error}.", next_step="remove what is named.") from error
    return document


def _walk(node: yaml.Node, path: KeyPath, document: Document, *, inside: tuple[yaml.Node, ...]) -> None:
    """Note the line of everything at or below `path`, and the keys that YAML itself would let pass."""
    if any(node is outer for outer in inside):
        raise yaml.MarkedYAMLError(problem="an alias that contains itself", problem_mark=node.start_mark)
    document.lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _walk(item, (*path, index), document, inside=(*inside, node))
    elif isinstance(node, yaml.MappingNode):
        first: dict[str, int] = {}
        merged: list[yaml.Node] = []
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.tag == "tag:yaml.org,2002:merge":
                merged += value.value if isinstance(value, yaml.SequenceNode) else [value]
                continue
            if not (isinstance(key, yaml.ScalarNode) and key.tag == "tag:yaml.org,2002:str"):
                shown = key.value if isinstance(key, yaml.ScalarNode) else "this key"
                document.complain((*path, str(shown)), f'a name must be text: write "{shown}" in quotes', line)
                continue
            if key.value in first:
                document.complain((*path, key.value), f"is there twice: line {first[key.value]} has it already", line)
                continue
            first[key.value] = line
            document.lines[*path, key.value] = line
            _walk(value, (*path, key.value), document, inside=(*inside, node))
        for defaults in merged:  # what is written out beats what is merged in, in YAML and here
            _walk_merged(defaults, path, document, inside=(*inside, node))


def _walk_merged(node: yaml.Node, path: KeyPath, document: Document, *, inside: tuple[yaml.Node, ...]) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and (*path, key.value) not in document.lines:
                document.lines[*path, key.value] = key.start_mark.line + 1
                _walk(value, (*path, key.value), document, inside=(*inside, node))
