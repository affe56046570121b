"""What an answer tells of very many files, kept small until it is written."""

import json
import zlib
from typing import Collection, Iterator, List, Sequence

from unlatch_agent.errors import Json

# The entries are much alike: the quickest way makes a tenth of them.
_LEVEL = 1


class ManyFiles(Collection[Json]):
    """Entries of files in their order, which can be gone through."""

    def __init__(self) -> None:
        """Begin with none."""
        self._parts: List[bytes] = []
        self._count = 0

    def add(self, files: Sequence[Json]) -> None:
        """Add some."""
        if files:
            self._parts.append(zlib.compress(json.dumps(files)[1:-1].encode(), _LEVEL))
            self._count += len(files)

    def __len__(self) -> int:
        """Return how many there are."""
        return self._count

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
