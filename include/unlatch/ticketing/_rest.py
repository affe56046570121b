"""What ticket systems with a REST interface share: patience, errors that say what to do, and posting just once.

A post whose answer is lost may have been done. So nothing is ever posted again without a look first, and after a
time-out, when the server may still be at it, not in the same call at all.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import requests

from unlatch.errors import CheckFailedError, ConfigError, TransientError
from unlatch.ticketing import STATES, TicketAccess, TicketSettings

Params = Mapping[str, str | int]
FoundT = TypeVar("FoundT")

MOST_PAGES = 1000
_TIMEOUT_S = (5.0, 20.0)  # connecting; waiting for an answer
_PATIENCE_S = 45.0  # the repair goes on meanwhile only when this call has ended
_ATTEMPTS = 4
_LONGEST_PAUSE_S = 10.0
_BUSY = frozenset({429, 500, 502, 503, 504})
_QUOTED = 200


class UnsureError(Exception):
    """A post that may have been done: the answer did not come, or says nothing about it."""

    def __init__(self, words: str, *, under_way: bool, pause_s: float = 0.0) -> None:
        super().__init__(words)
        self.under_way = under_way
        self.pause_s = pause_s


def fingerprint(kind: str, value: str) -> str:
    """What tells a marker from every other: 24 hexadecimal digits."""
    return hashlib.sha256(f"{kind}\0{value}".encode("utf-8", "backslashreplace")).hexdigest()[:24]


def printable(text: str) -> str:
    """Text that UTF-8 can carry."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def one_line(text: str, longest: int) -> str:
    """A title: one line, cut where the system would refuse it."""
    line = printable(" ".join(text.split()))
    return line if len(line) <= longest else line[: longest - 1] + "\u2026"


def known_state(state: str) -> str:
    """The state, if it is one.

    Raises:
        ValueError: it is none.
    """
    if state not in STATES:
        raise ValueError(f"{state!r} is no state of a ticket; states are: {', '.join(STATES)}")
    return state


def access_of(settings: TicketSettings, system: str) -> TicketAccess:
    """Read the connection, and see that it sends the secret to one server only, and not in the clear.

    Raises:
        ConfigError: there is none, or it would.
    """
    if settings.access is None:
        raise ConfigError(
            f"Tickets go to {system}, but nothing tells how to reach it.",
            next_step=f"airflow connections add unlatch_ticket_{system} …; see docs/tickets.md.",
        )
    access = settings.access()
    address = urlsplit(access.http.base_url)
    if address.scheme != "https" or not address.hostname or "@" in address.netloc:
        raise ConfigError(
            f"The address in {access.conn_id} is not that of a server with HTTPS.",
            next_step="give the host's name alone; login and password have fields of their own.",
        )
    if not access.http.password:
        raise ConfigError(
            f"{access.conn_id} has no password.",
            next_step="give the password or token of the user that writes tickets.",
        )
    return access


def text_option(access: TicketAccess, name: str, default: str) -> str:
    """A text of the connection's extra.

    Raises:
        ConfigError: it is something else.
    """
    value = access.options.get(name, default)
    if isinstance(value, (str, int)) and not isinstance(value, bool):
        return str(value)
    raise ConfigError(f"{name} in the extra of {access.conn_id} is no text.", next_step="see docs/tickets.md.")


def mapping_option(access: TicketAccess, name: str) -> dict[str, Any]:
    """An object of the connection's extra; empty when it is not there.

    Raises:
        ConfigError: it is something else.
    """
    value = access.options.get(name, {})
    if isinstance(value, dict):
        return {str(key): entry for key, entry in value.items()}
    raise ConfigError(
        f'{name} in the extra of {access.conn_id} is no object such as {{"…": "…"}}.', next_step="see docs/tickets.md."
    )


class Rest:
    """One conversation with a ticket system, of one call of the plug-in.

    Args:
        vendor: what errors call it.
        access: where it is.
        headers: what every request carries; the login goes into `auth` instead.
        auth: login and password for HTTP Basic authentication.
        words: takes the vendor's explanation out of an error's document.
        rights: what to do about a refusal.
        refusals: the status codes of answers that refuse for want of a right.
        pause: how to wait.
    """

    def __init__(
        self,
        vendor: str,
        access: TicketAccess,
        *,
        words: Callable[[Any], str],
        rights: str,
        pause: Callable[[float], None],
        headers: Mapping[str, str] | None = None,
        auth: tuple[str, str] | None = None,
        refusals: frozenset[int] = frozenset({403}),
    ) -> None:
        self.access = access
        self.where = f"{vendor} at {urlsplit(access.http.base_url).hostname}"
        self._words_of, self._rights, self._refusals, self._pause = words, rights, refusals, pause
        self._until = time.monotonic() + _PATIENCE_S
        self._session = requests.Session()
        self._session.trust_env = False  # neither a proxy nor a .netrc of the worker has a say in who gets the secret
        self._session.auth = auth
        self._session.verify = access.http.verify
        self._session.headers.update({"Accept": "application/json", **(headers or {})})

    def __enter__(self) -> Self:
        """The conversation begins with its first request."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self._session.close()

    def read(self, path: str, params: Params | None = None, *, missing_is_fine: bool = False) -> requests.Response:
        """GET, again and again while the server is busy or out of reach."""
        return self._patiently("GET", path, params=params, missing_is_fine=missing_is_fine)

    def change(self, method: str, path: str, document: Mapping[str, Any]) -> requests.Response:
        """A request that may be done twice, such as setting a field to a value."""
        return self._patiently(method, path, json=document)

    def post(self, method: str, path: str, **request: Any) -> requests.Response:
        """A request that must not be done twice: for the second argument of `once`.

        Raises:
            UnsureError: nobody knows whether it was done.
        """
        try:
            answer = self._sent(method, path, **request)
        except requests.exceptions.ConnectTimeout as error:
            raise UnsureError(self._short(error), under_way=False) from error
        except requests.exceptions.Timeout as error:
            raise UnsureError(self._short(error), under_way=True) from error
        except requests.exceptions.RequestException as error:
            raise UnsureError(self._short(error), under_way=False) from error
        if answer.status_code in _BUSY:
            slow = answer.status_code == requests.codes.gateway_timeout
            words = f"{answer.status_code}: {self._words(answer)}"
            raise UnsureError(words, under_way=slow, pause_s=_asked_pause_s(answer))
        return self._accepted(answer, method, path)

    def once(self, look: Callable[[], FoundT | None], post: Callable[[], FoundT]) -> FoundT:
        """What `look` finds, else what `post` makes; after a lost answer `look` decides, never a guess.

        Raises:
            TransientError: it could not be posted, or nobody knows yet whether it was. Calling again looks first.
        """
        last = ""
        for attempt in range(1, _ATTEMPTS + 1):
            found = look()
            if found is not None:
                return found
            try:
                return post()
            except UnsureError as unsure:
                last = str(unsure)
                self._wait(attempt, unsure.pause_s)
                if unsure.under_way or time.monotonic() > self._until:
                    break
        found = look()
        if found is not None:
            return found
        raise TransientError(f"{self.where} did not take what was posted: {last}", next_step=_TRIED_AGAIN)

    def document(self, answer: requests.Response) -> Any:
        """The answer's JSON.

        Raises:
            ConfigError: it is none: a login page, a proxy, an instance that sleeps.
        """
        try:
            return answer.json()
        except ValueError as error:
            raise ConfigError(
                f"{self.where} answered, but not with JSON.",
                next_step=f"see whether the address in {self.access.conn_id} is that of the interface itself: "
                "open it in a browser.",
            ) from error

    def not_understood(self, what: str) -> CheckFailedError:
        """For an answer that is not as documented: acting on half of it could post twice."""
        return CheckFailedError(f"{self.where}: {what}", next_step="compare its version with docs/tickets.md.")

    # --- one request -----------------------------------------------------------------------------------------------

    def _patiently(self, method: str, path: str, *, missing_is_fine: bool = False, **request: Any) -> requests.Response:
        last = ""
        for attempt in range(1, _ATTEMPTS + 1):
            asked_s = 0.0
            try:
                answer = self._sent(method, path, **request)
            except requests.exceptions.RequestException as error:
                last = f"it does not answer: {self._short(error)}"
            else:
                if answer.status_code not in _BUSY:
                    return self._accepted(answer, method, path, missing_is_fine=missing_is_fine)
                last = f"it stays busy ({answer.status_code}): {self._words(answer)}"
                asked_s = _asked_pause_s(answer)
            if attempt == _ATTEMPTS or time.monotonic() > self._until:
                break
            self._wait(attempt, asked_s)
        raise TransientError(f"{self.where}: {last}", next_step=_TRIED_AGAIN)

    def _wait(self, attempt: int, asked_s: float) -> None:
        self._pause(min(asked_s or 0.25 * 2**attempt, _LONGEST_PAUSE_S))

    def _sent(self, method: str, path: str, **request: Any) -> requests.Response:
        url = self.access.http.base_url.rstrip("/") + path
        try:
            return self._session.request(method, url, timeout=_TIMEOUT_S, allow_redirects=False, **request)
        except requests.exceptions.SSLError as error:
            raise ConfigError(
                f"The certificate of {self.where} cannot be trusted: {self._short(error)}",
                next_step=f"give the path of its certificate authority's file as verify in the extra of "
                f"{self.access.conn_id}.",
            ) from error
        except requests.exceptions.RequestException:
            raise
        except OSError as error:  # the file that `verify` names
            raise ConfigError(
                f"The connection to {self.where} cannot be made: {error}",
                next_step=f"correct verify in the extra of {self.access.conn_id}.",
            ) from error

    def _accepted(
        self, answer: requests.Response, method: str, path: str, *, missing_is_fine: bool = False
    ) -> requests.Response:
        status = answer.status_code
        if status in {200, 201} or (missing_is_fine and status == requests.codes.not_found):
            return answer
        words = self._words(answer)
        if status == requests.codes.unauthorized:
            raise ConfigError(
                f"{self.where} refused the login of {self.access.conn_id}: {words}",
                next_step=f"correct login and password (or the token) of {self.access.conn_id}.",
            )
        if status in self._refusals:
            raise ConfigError(f"{self.where} does not allow {method} {path}: {words}", next_step=self._rights)
        raise ConfigError(
            f"{self.where} answered {method} {path} with {status}: {words}",
            next_step=f"correct what it names: the host or an entry in the extra of {self.access.conn_id} "
            "(docs/tickets.md).",
        )

    def _words(self, answer: requests.Response) -> str:
        try:
            words = self._words_of(answer.json())
        except (ValueError, KeyError, TypeError, AttributeError):
            words = answer.reason or "no reason given"
        return self._without_secret(" ".join(words.split()))[:_QUOTED]

    def _short(self, error: Exception) -> str:
        return self._without_secret(str(error))[:_QUOTED]

    def _without_secret(self, text: str) -> str:
        """Servers have been seen to repeat a wrong token in their answer."""
        return text.replace(self.access.http.password, "***")


_TRIED_AGAIN = "it is tried again with the step; what was told stands in the audit."


def _asked_pause_s(answer: requests.Response) -> float:
    asked = answer.headers.get("Retry-After", "")
    return float(asked) if asked.isdigit() and asked.isascii() else 0.0
