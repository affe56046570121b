"""A whole log, of any size, into the deaths that it tells.

Nearly all of a log says nothing. So one search goes over large pieces of it for the words of all formats at once, where
it finds one over smaller pieces, and then over lines; only a line that has one is taken apart.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import BinaryIO

from unlatch.crash_events import LineParser, LineSource, fold
from unlatch.errors import ConfigError
from unlatch.log_lines import pieces_of
from unlatch.models import Certainty, CrashEvent, DomainFact
from unlatch.word_search import AnyOf

_PARTS_CHARS = (16 << 10, 2 << 10)
"""How a text is divided: the smaller the parts with a word in them, the fewer lines are looked at one by one."""


def parse_log(
    stream: BinaryIO,
    log_format: str,
    timezone: str,
    hypervisor: str,
    sources: Mapping[str, LineSource],
    *,
    path: str = "",
    undated_at: datetime | None = None,
    ambiguous: bool = False,
) -> Iterator[CrashEvent]:
    """The deaths that a log tells, in constant memory; what is not text or not of the format is skipped.

    Args:
        stream: The log, as bytes.
        log_format: A key of `sources`, or `auto`: each line is tried with all of them, so that a journal in which
            several programs write is read whole.
        timezone: IANA name of the zone of stamps that carry none.
        hypervisor: The name that the events get.
        sources: The installed log formats by name.
        path: The log's path, which names the domain in some formats.
        undated_at: The moment of lines without a stamp (see `CrashEvent.dated`); None leaves them out.
        ambiguous: Give what is only a sign of a death too.

    Raises:
        ConfigError: the format or the time zone is unknown.
    """
    if log_format != "auto" and log_format not in sources:
        raise ConfigError(
            f"There is no log format {log_format!r}.", next_step=f"choose one of: auto, {', '.join(sorted(sources))}."
        )
    chosen = sources.values() if log_format == "auto" else (sources[log_format],)
    parsers = [source.line_parser(timezone, path=path, undated_at=undated_at) for source in chosen]
    return (
        event
        for event in fold(_facts(stream, parsers), hypervisor)
        if ambiguous or event.certainty is Certainty.CERTAIN
    )


def _facts(stream: BinaryIO, parsers: Sequence[LineParser]) -> Iterator[DomainFact]:
    words = [frozenset(parse.words()) for parse in parsers]
    has_words = AnyOf(frozenset().union(*words))
    everyones = frozenset.intersection(*words)  # hours that the clocks repeat; with one format all that it looks for
    own = [(parse, tuple(its - everyones)) for parse, its in zip(parsers, words, strict=True)]
    continuing = [parse for parse in parsers if parse.continues]
    for piece in pieces_of(stream):
        for lines, may_say in _parts(piece, has_words):
            if not may_say:
                for parse in continuing:
                    parse.pass_over(lines)
                continue
            for_all = _has_any(everyones, lines)
            for parse, its in own:
                if for_all or _has_any(its, lines):
                    yield from parse(lines)
                elif parse.continues:
                    parse.pass_over(lines)


def _has_any(words: Iterable[str], line: str) -> bool:
    for word in words:  # noqa: SIM110  # twice as fast as a generator
        if word in line:
            return True
    return False


def _parts(text: str, has_words: AnyOf, sizes: Sequence[int] = _PARTS_CHARS) -> Iterator[tuple[str, bool]]:
    """The text again: single lines with words, and the lines between them, many at once."""
    for part in _cut(text, sizes[0]):
        if not has_words(part):
            yield part, False
        elif len(sizes) > 1:
            yield from _parts(part, has_words, sizes[1:])
        else:
            for may_say, lines in itertools.groupby(part.split("\n"), has_words):
                if may_say:
                    yield from ((line.rstrip("\r"), True) for line in lines)
                else:
                    yield "\n".join(lines), False


def _cut(text: str, size_chars: int) -> Iterator[str]:
    """Parts of whole lines, each a little more than so long."""
    begin = 0
    while begin <= len(text):
        end = text.find("\n", begin + size_chars)
        end = len(text) if end < 0 else end
        yield text[begin:end]
        begin = end + 1
