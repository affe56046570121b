"""xend.log of Xen and Oracle VM 2 and 3.

One line, one statement: `[2014-10-18 05:54:53 4572] WARNING (XendDomainInfo:1907) Domain has crashed: name=… id=2.`
What the lines are worth:

- `Domain has crashed` is the hypervisor's word that the guest is dead.
- A guest that is sent away (`xm migrate`, `xm save`) is suspended, then destroyed here, and lives on elsewhere: that
  destruction is `migrated`. One that fails to leave is resumed and is as before.
- `device model failure` says only that qemu-dm is gone; a paravirtualised guest survives it.
- `destroy: domid=17` names no domain. Who 17 is comes from earlier lines of the same stream, so a destruction is left
  out while they have not been seen. That xend then failed to destroy it stands in another line without a number: it is
  taken to be about the last domain that was to be destroyed.
"""

from __future__ import annotations

import functools
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime

from unlatch.crash_sources._clock import WallClock
from unlatch.crash_sources._lines import facts_of
from unlatch.models import DomainChange, DomainFact, Json

LONGEST_LINE_CHARS = 64 << 10
"""A domain's whole configuration stands in one line of some KiB. What is longer than this is not xend's."""

KEPT_CHARS = 2000
"""How much of a line is kept as evidence."""

KNOWN_DOMAINS = 4096
"""Domain numbers remembered per stream: many times what one machine can run."""

# Every pattern is anchored, with one repetition of one class between fixed texts: linear time on any input.
# ASCII, so that \d is a digit that a clock shows.
_compile = functools.partial(re.compile, flags=re.ASCII)
_STAMP = _compile(r"[ \t]{0,80}\[(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)[, ]")
_STAMPED = _compile(
    r"[ \t]{0,80}"  # in a report the lines may be indented
    r"\[(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)(?:,\d{1,6})? (?:[\w.]{1,80} )?\d{1,10}\] "
    r"[A-Z]{1,10} \([\w.]{1,80}:\s?\d{1,6}\s?\) "
)
_STAMP_CHARS = 400  # more than the longest that _STAMPED matches
_NAME = r"([A-Za-z0-9_.:/+-]{1,255})"  # what xend itself allows
_ID = r"(\d{1,10})"

_DEVICE_MODEL = _compile(rf"domain {_NAME}: device model failure: ")
_SIGNAL = _compile(r"died due to signal (\d{1,3})")
_CRASHED = _compile(rf"Domain has crashed: name={_NAME} id={_ID}\.")
_SHUT_DOWN = _compile(rf"Domain has shutdown: name={_NAME} id={_ID} reason=([a-z?]{{1,20}})\.")
_DESTROY = _compile(rf"XendDomainInfo\.destroy(?:: domid=|Domain\(){_ID}\)?\s*$")
_DESTROY_FAILED = _compile(r"XendDomainInfo\.destroy: (?:xc\.domain_destroy|domain destruction) failed")
_CREATE = _compile(r"XendDomainInfo\.(?:create_from_dict|create|restore)\(")
_LABEL = _compile(rf"'name_label': u?'{_NAME}'")
_SXP_NAME = _compile(rf"\['name', u?'{_NAME}'\]")
_NUMBERED = _compile(rf"XendDomainInfo\.initDomain: {_ID} ")
_UNPAUSED = _compile(rf"Domain {_NAME} \({_ID}\) (?:un)?paused\.")
_STORED = "Storing domain details: {"
_STORED_NAME = _compile(rf"'name': u?'{_NAME}'")
_STORED_ID = _compile(rf"'domid': u?'{_ID}'")
_SAVING = _compile(rf"\[xc_save\]: \S{{1,255}} \d{{1,6}} {_ID} ")
_STAYS = _compile(rf"(?:XendDomainInfo\.resumeDomain\({_ID}\)|Save failed on domain \S{{1,255}} \({_ID}\))")

_LEAVING = "migrating-"
"""xend puts this before a domain's name while it sends it away."""

_REASONS = {"reboot": DomainChange.REBOOTED, "crash": DomainChange.CRASHED}


class XendLog:
    """The format `xend`."""

    name = "xend"
    hints = (
        "Domain has crashed",
        "Domain has shutdown",
        "device model failure",
        "XendDomainInfo.destroy",
        "XendDomainInfo.create",
        "XendDomainInfo.restore",
        "XendDomainInfo.initDomain",
        "XendDomainInfo.resumeDomain",
        "Storing domain details",
        "paused.",
        "[xc_save]",
        "Save failed on domain",
    )

    def line_parser(
        self,
        timezone: str,
        written_after: datetime | None = None,
        *,
        path: str = "",  # noqa: ARG002  # part of every format's signature, like the next two
        undated_at: datetime | None = None,  # noqa: ARG002
        state: Json | None = None,  # noqa: ARG002
    ) -> XendParser:
        """What to call with each line of one stream, in their order; it remembers up to `KNOWN_DOMAINS` domains.

        Args:
            timezone: IANA name of the zone of the stamps.
            written_after: The lines are known to be younger than this, which settles the hour that the end of summer
                time repeats. Without it the earlier moment is taken that does not go backwards in the stream.
            path: Not needed: xend's lines name their domains.
            undated_at: Not needed: they all have a stamp.
            state: Not needed: what is forgotten between two readings leaves out a destruction, and never adds one.

        Raises:
            ConfigError: there is no such zone.
        """
        return XendParser(timezone, written_after)

    def facts(self, lines: Iterable[str], timezone: str, path: str = "") -> Iterator[DomainFact]:
        """What the lines say of domains, one by one, in constant memory; junk is skipped.

        Raises:
            ConfigError: there is no such zone.
        """
        return facts_of(self.line_parser(timezone, path=path), lines)

    def line_clock(self, timezone: str) -> Callable[[str], datetime | None]:
        """What to call with each line of one stream, in their order, for its moment; None for a line without a stamp.

        Raises:
            ConfigError: there is no such zone.
        """
        clock = WallClock(timezone, None)

        def moment(line: str) -> datetime | None:
            stamped = _STAMP.match(line[:_STAMP_CHARS])
            return clock.moment(stamped[1]) if stamped else None

        return moment


PLUGIN = XendLog()


class XendParser:
    """What is known half way through one log."""

    continues = False

    def __init__(self, timezone: str, written_after: datetime | None) -> None:
        self._clock = WallClock(timezone, written_after)
        self._names: OrderedDict[int, str] = OrderedDict()
        self._leaving: OrderedDict[int, str] = OrderedDict()
        self._building: str | None = None
        self._destroying: tuple[str, int] | None = None

    def __call__(self, line: str) -> tuple[DomainFact, ...]:
        """The statement of one line: one fact or none."""
        if len(line) > LONGEST_LINE_CHARS or self.skips(line):
            return ()
        stamped = _STAMPED.match(line[:_STAMP_CHARS])
        if stamped is None:
            return ()
        at = self._clock.moment(stamped[1])
        if at is None:
            return ()
        said = self._statement(line, stamped.end())
        if said is None:
            return ()
        change, domain, number = said
        signal = _SIGNAL.search(line) if change is DomainChange.DEVICE_MODEL_DIED else None
        return (
            DomainFact(
                domain=domain,
                change=change,
                at=at,
                line=line.strip()[:KEPT_CHARS],
                domain_id=number,
                signal=int(signal[1]) if signal else None,
            ),
        )

    def words(self) -> tuple[str, ...]:
        """One of these is in every line that must be read; the others can be passed over."""
        return (*XendLog.hints, *self._clock.repeated_hours())

    def skips(self, text: str) -> bool:
        """Whether nothing in these whole lines has to be read."""
        return not (any(hint in text for hint in XendLog.hints) or self._clock.may_repeat(text))

    def pass_over(self, text: str) -> None:
        """Nothing: lines that say nothing leave nothing to keep."""

    def state(self) -> Json:
        """Nothing: see `line_parser`."""
        return {}

    def _statement(  # noqa: PLR0911  # one return per kind of line
        self, line: str, start: int
    ) -> tuple[DomainChange, str, int | None] | None:
        if found := _CRASHED.match(line, start):
            number = self._remember(found[2], found[1])
            self._leaving.pop(number, None)
            return DomainChange.CRASHED, _without_prefix(found[1]), number
        if found := _DEVICE_MODEL.match(line, start):
            return DomainChange.DEVICE_MODEL_DIED, _without_prefix(found[1]), None
        if found := _SHUT_DOWN.match(line, start):
            number = self._remember(found[2], found[1])
            if found[3] == "suspend":
                _keep(self._leaving, number)
                return None
            return _REASONS.get(found[3], DomainChange.SHUT_DOWN), _without_prefix(found[1]), number
        if found := _DESTROY.match(line, start):
            number = int(found[1])
            name = self._names.get(number)
            self._destroying = None if name is None else (name, number)
            change = DomainChange.MIGRATED if number in self._leaving else DomainChange.DESTROYED
            return None if name is None else (change, name, number)
        if _DESTROY_FAILED.match(line, start):
            return None if self._destroying is None else (DomainChange.DESTROY_FAILED, *self._destroying)
        if _CREATE.match(line, start):
            named = _LABEL.search(line, start) or _SXP_NAME.search(line, start)
            self._building = named[1] if named else None
            return None if named is None else (DomainChange.CREATED, named[1], None)
        self._learn(line, start)
        return None

    def _learn(self, line: str, start: int) -> None:
        """Take from lines that state no change which number is which domain, and who is being sent away."""
        if found := _UNPAUSED.match(line, start):
            self._remember(found[2], found[1])
        elif (found := _NUMBERED.match(line, start)) and self._building is not None:
            self._leaving.pop(self._remember(found[1], self._building), None)
        elif found := _SAVING.match(line, start):
            _keep(self._leaving, int(found[1]))
        elif found := _STAYS.match(line, start):
            self._leaving.pop(int(found[1] or found[2]), None)
        elif line.startswith(_STORED, start):
            name, number = _STORED_NAME.search(line, start), _STORED_ID.search(line, start)
            if name and number:
                self._remember(number[1], name[1])

    def _remember(self, number: str, name: str) -> int:
        _keep(self._names, int(number), _without_prefix(name))
        return int(number)


def _without_prefix(name: str) -> str:
    return name.removeprefix(_LEAVING)


def _keep(memory: OrderedDict[int, str], key: int, value: str = "") -> None:
    memory[key] = value
    memory.move_to_end(key)
    while len(memory) > KNOWN_DOMAINS:
        memory.popitem(last=False)
