"""Is any of many words in a text? In one pass over it, however many they are.

Python's own means need a pass for each word, or one that is slow: some 20 MB a second for the words of all log formats
together. pydantic's core, which is installed anyway, carries a search that takes hundreds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from pydantic_core import SchemaValidator, core_schema

_AT_ONCE = 48
"""With more words than this in one pattern the search is slower than with two patterns."""


class AnyOf:
    """Says of texts whether any of some words is in them. A text must be one that UTF-8 can write."""

    def __init__(self, words: Iterable[str]) -> None:
        """Take the words, as they stand in the texts; without any the answer is always no."""
        every = sorted(set(words))  # neighbours begin alike, which the search makes use of
        each = -(-len(every) // max(1, -(-len(every) // _AT_ONCE)))
        self._searches = [_search(every[n : n + each]) for n in range(0, len(every), each or 1)]

    def __call__(self, text: str) -> bool:
        """Whether one of them is in it."""
        for search in self._searches:  # noqa: SIM110  # a generator would cost as much as the search of a short line
            if search.isinstance_python(text):
                return True
        return False


def _search(words: Iterable[str]) -> SchemaValidator:
    pattern = "|".join(re.escape(word) for word in words)
    return SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex"))
