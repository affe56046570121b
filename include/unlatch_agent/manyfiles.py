"""What an answer tells of very many files, kept small until it is written."""

import json
import zlib
from typing import Collection, Iterable, Iterator, List, Sequence

from unlatch_agent.errors import Json

# The entries are much alike: the quickest way makes a tenth of so many.
_LEVEL = 1
_TOGETHER = 256


class ManyFiles(Collection[Json]):
    """Entries of files in their order, which can be gone through."""

    def __init__(self) -> None:
        """Begin with none."""
        self._parts: List[bytes] = []
        self._last: List[Json] = []
        self._count = 0

    def add(self, files: Iterable[Json]) -> None:
        """Add some."""
        for entry in files:
            self._last.append(entry)
            if len(self._last) == _TOGETHER:
                self._parts.append(zlib.compress(_text(self._last).encode(), _LEVEL))
                self._count += len(self._last)
                self._last = []

    def __len__(self) -> int:
        """Return how many there are."""
        return self._count + len(self._last)

    def __iter__(self) -> Iterator[Json]:
        """Go through them."""
        for text in self.texts():
            for entry in json.loads("[{}]".format(text)):
                yield entry

    def __contains__(self, entry: object) -> bool:
        """Say whether one of them is equal."""
        return any(entry == other for other in self)

    def texts(self) -> Iterator[str]:
        """Yield their JSON, some at a time, without the brackets around."""
        for part in self._parts:
            yield zlib.decompress(part).decode()
        if self._last:
            yield _text(self._last)


def _text(files: Sequence[Json]) -> str:
    return json.dumps(files)[1:-1]


def written(document: Json) -> Iterator[str]:
    """Yield an answer's JSON in pieces."""
    files = document["files"]
    if not isinstance(files, ManyFiles):
        yield json.dumps(document)
        return
    before, after = json.dumps(dict(document, files=[])).split('"files": []', 1)
    yield before + '"files": ['
    for number, text in enumerate(files.texts()):
        yield ", " + text if number else text
    yield "]" + after
