"""NetApp ONTAP 9.10 and later, over its REST interface: locks are listed, and broken one by one.

Requests: `GET /api/protocols/locks` for one SVM and volume, page by page, and `DELETE /api/protocols/locks/{uuid}`; for
a drill `GET /api/security/accounts` and `GET /api/security/roles/{owner.uuid}/{name}/privileges`.
ONTAP tells the client's address of NFSv3 (nlm) and SMB locks, not of NFSv4 ones: those stay without.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote, urlsplit

import requests

from unlatch.errors import CheckFailedError, ConfigError, RefusedError, TransientError
from unlatch.lock_clearers import HttpAccess, NasAccess
from unlatch.lock_clearers._ontap_roles import own_access, reading_roles
from unlatch.lock_clearers._paths import as_guest_sees, exported
from unlatch.models import ClearAnswer, Json, NasLock, NasView, Reach
from unlatch.ports import Leave

_LOCKS = "/api/protocols/locks"
_PAGE_RECORDS = 1000
_MOST_PAGES = 1000
_TIMEOUT_S = (10.0, 60.0)  # connecting; waiting for an answer, of which ONTAP itself takes up to 15 s
_ATTEMPTS = 5
_LONGEST_PAUSE_S = 10.0
_BUSY = frozenset({429, 500, 502, 503, 504})
_QUOTED = 200

# What keeps or shows a file open. Delegations and oplocks are caches: ONTAP calls them back by itself.
_CACHES = frozenset({"delegation", "op_lock"})
_NO_ADDRESS = frozenset({"", "0.0.0.0", "::", "-"})  # noqa: S104  # compared, not bound


class Ontap:
    """The locks on one ONTAP volume."""

    name = "ontap"

    def __init__(self, access: NasAccess, pause: Callable[[float], None] = time.sleep) -> None:
        self._volume = access.volume
        self._http = _checked(access)
        self._svm, self._nas_volume = _named(access)
        exported(access.volume)
        self._pause = pause

    def list(self, files: Sequence[PurePosixPath]) -> NasView:  # noqa: ARG002  # one request tells all locks
        """See `ports.LockClearer.list`. Paths are mapped by the volume's junction path (`nas.export`)."""
        locks: list[NasLock] = []
        target = (
            f"{_LOCKS}?svm.name={quote(self._svm, safe='')}&volume.name={quote(self._nas_volume, safe='')}"
            f"&fields=*&max_records={_PAGE_RECORDS}&return_timeout=15"
        )
        with self._session() as session:
            for _ in range(_MOST_PAGES):
                page = self._document(self._asked(session, "GET", target))
                locks += [lock for record in page["records"] if (lock := self._lock(record)) is not None]
                following = ((page.get("_links") or {}).get("next") or {}).get("href")
                if not following:
                    return NasView(locks=tuple(locks))
                target = self._next(following, target)
        raise CheckFailedError(
            f"{self._where} lists more than {_MOST_PAGES} pages of locks on {self._nas_volume}.",
            next_step="see what holds them: vserver locks show.",
        )

    def reach(self, view: NasView) -> Reach:  # noqa: ARG002  # whatever they are
        """Each lock is broken by itself."""
        return Reach.FILES

    def clear(self, locks: Sequence[NasLock]) -> ClearAnswer:
        """See `ports.LockClearer.clear`. A lock that is gone already is none of the freed ones, and no error.

        Raises:
            RefusedError: a lock has no id: it did not come from `list`.
            ConfigError: the role of the login does not let it break locks.
            TransientError: ONTAP is out of reach or stays busy. Those broken so far stay so: call again.
        """
        ids = list(dict.fromkeys(lock.id for lock in locks))
        if None in ids:
            raise RefusedError(
                f"A lock on {self._nas_volume} has no id, so ONTAP cannot be told to break just that one.",
                next_step="list the locks again.",
            )
        freed = 0
        with self._session() as session:
            for uuid in ids:
                answer = self._asked(session, "DELETE", f"{_LOCKS}/{quote(str(uuid), safe='')}", gone_is_fine=True)
                freed += answer.status_code != requests.codes.not_found
        return ClearAnswer(freed, f"{self._where} broke {freed} of {len(ids)} locks on {self._nas_volume}")

    def may_clear(self) -> Leave:
        """Whether the role of the login lets it break locks; only its account and its role are read.

        Not known where the role may not read itself: then only a break would tell.
        """
        login = self._http.login
        try:
            with self._session() as session:
                role, access = own_access(_LOCKS, functools.partial(self._records, session), login=login, svm=self._svm)
        except ConfigError as error:
            if error.detail.get("status") != requests.codes.forbidden:
                raise
            return Leave(None, f"cannot be told without clearing: {error.what}", reading_roles(self._svm))
        except (CheckFailedError, KeyError, TypeError) as error:
            why = f"{self._where} does not show the role of {login} ({error})"
            return Leave(None, f"cannot be told without clearing: {why}")
        if access is None:
            return Leave(None, f"cannot be told without clearing: the role {role} has commands and no REST paths")
        if access == "all":
            return Leave(True, f"the role {role} of {login} has access all to {_LOCKS}")
        why = f"the role {role} of {login} has access {access} to {_LOCKS}, and breaking locks takes all"
        return Leave(False, why, f"on ONTAP: {self._role_command('DELETE', role)}")

    def _records(self, session: requests.Session, target: str) -> Sequence[Json]:
        """All records of an answer of one page."""
        page = self._document(self._asked(session, "GET", target))
        if (page.get("_links") or {}).get("next"):
            raise KeyError("more than one page")
        records: Sequence[Json] = page["records"]
        return records

    # --- one request ---------------------------------------------------------------------------------------------

    @property
    def _where(self) -> str:
        return f"ONTAP at {urlsplit(self._http.base_url).netloc}"

    def _session(self) -> requests.Session:
        session = requests.Session()
        session.trust_env = False  # neither a proxy nor a .netrc of the worker has a say in who gets the password
        session.auth = (self._http.login, self._http.password)
        session.verify = self._http.verify
        session.headers["Accept"] = "application/json"
        return session

    def _asked(
        self, session: requests.Session, method: str, target: str, *, gone_is_fine: bool = False
    ) -> requests.Response:
        answer = self._sent(session, method, target)
        for attempt in range(1, _ATTEMPTS):
            if answer.status_code not in _BUSY:
                break
            self._pause(_pause_s(answer, attempt))
            answer = self._sent(session, method, target)
        status = answer.status_code
        if status in {200, 202} or (gone_is_fine and status == requests.codes.not_found):
            return answer
        if status == requests.codes.unauthorized:
            raise ConfigError(
                f"{self._where} refused the login of {self._http.login}: {_words(answer)}",
                next_step=f"correct login and password of the connection; the user is made by: {self._user_command}",
                detail={"status": status},
            )
        if status == requests.codes.forbidden:
            doing = _DOING[method] if target.startswith(_LOCKS) else f"read {urlsplit(target).path}"
            raise ConfigError(
                f"{self._where} does not let {self._http.login} {doing}: {_words(answer)}",
                next_step=f"on ONTAP: {self._role_command(method)}; and give the role to the user: "
                f"{self._user_command}",
                detail={"status": status},
            )
        if status in _BUSY:
            raise TransientError(
                f"{self._where} stayed busy ({status}) over {_ATTEMPTS} requests: {_words(answer)}",
                next_step="it is tried again; if it stays so, see the load of its management interface.",
            )
        raise CheckFailedError(
            f"{self._where} answered {method} {urlsplit(target).path} with {status}: {_words(answer)}",
            next_step="see whether it is ONTAP 9.10 or later, and whether nas.svm and nas.volume are its names.",
        )

    def _sent(self, session: requests.Session, method: str, target: str) -> requests.Response:
        url = self._http.base_url.rstrip("/") + target
        try:
            return session.request(method, url, timeout=_TIMEOUT_S, allow_redirects=False)
        except requests.exceptions.SSLError as error:
            raise ConfigError(
                f"The certificate of {self._where} cannot be trusted: {_short(error)}",
                next_step="give the path of its certificate authority's file as verify in the connection's extra.",
            ) from error
        except requests.exceptions.RequestException as error:
            raise TransientError(
                f"{self._where} does not answer: {_short(error)}", next_step="it is tried again."
            ) from error
        except OSError as error:  # the file that `verify` names
            raise ConfigError(
                f"The connection to {self._where} cannot be made: {error}",
                next_step="correct verify in the connection's extra.",
            ) from error

    def _next(self, following: str, present: str) -> str:
        """The next page. It is on the same server, or the password would go to another."""
        parts = urlsplit(following)
        if parts.scheme or parts.netloc or not parts.path.startswith(_LOCKS) or following == present:
            raise CheckFailedError(
                f"{self._where} names {following[:_QUOTED]!r} as the next page of its locks.",
                next_step="see what stands between the worker and ONTAP.",
            )
        return following

    def _document(self, answer: requests.Response) -> Json:
        try:
            found: Any = answer.json()
        except ValueError:
            found = None
        if not isinstance(found, dict) or not isinstance(found.get("records"), list):
            raise CheckFailedError(
                f"{self._where} did not answer with a list of records: {answer.text[:_QUOTED]!r}",
                next_step="see whether this is ONTAP's management interface.",
            )
        return found

    def _lock(self, record: Json) -> NasLock | None:
        """A record's lock; None for a cache. An unknown type counts as a lock: leaving one out could hide a holder."""
        try:
            if str(record.get("type", "")) in _CACHES:
                return None
            address = str(record.get("client_address") or "")
            return NasLock(
                path=as_guest_sees(self._volume, record.get("path")),
                inode=None,
                protocol=_protocol(str(record.get("protocol", ""))),
                client=None,
                address=None if address in _NO_ADDRESS else address,
                id=str(record["uuid"]),
            )
        except (KeyError, AttributeError, TypeError) as error:
            raise CheckFailedError(
                f"{self._where} lists a lock that cannot be read: {str(record)[:_QUOTED]}",
                next_step="compare with: vserver locks show -instance.",
            ) from error

    def _role_command(self, method: str, role: str = "unlatch") -> str:
        access = "all" if method == "DELETE" else "readonly"
        return (
            f"security login rest-role create -vserver {self._svm} -role {role} -api {_LOCKS} -access {access} "
            "(modify instead of create when the role has that path already)"
        )

    @property
    def _user_command(self) -> str:
        return (
            f"security login create -vserver {self._svm} -user-or-group-name {self._http.login} -application http "
            "-authentication-method password -role unlatch"
        )


_DOING = {"GET": "list locks", "DELETE": "break locks"}


def _checked(access: NasAccess) -> HttpAccess:
    server = access.volume.server
    if access.http is None:
        raise ConfigError(
            f"The lock clearer ontap of the volume {access.volume.name} needs HTTPS.",
            next_step=f"make unlatch_nas_{server} a connection of type http with the management address, "
            "a login and its password.",
        )
    if urlsplit(access.http.base_url).scheme != "https":
        raise ConfigError(
            f"{access.http.base_url} would send the password of {server} in the clear.",
            next_step=f"give unlatch_nas_{server} an https address.",
        )
    return access.http


def _named(access: NasAccess) -> tuple[str, str]:
    nas = access.volume.nas
    if not nas.svm or not nas.volume:
        missing = " and ".join(f"nas.{key}" for key in ("svm", "volume") if not getattr(nas, key))
        raise ConfigError(
            f"The volume {access.volume.name} has no {missing}, so ONTAP cannot be asked for its locks.",
            next_step=f"add it below volumes.{access.volume.name}; vserver locks show names both.",
        )
    return nas.svm, nas.volume


def _protocol(name: str) -> str:
    if name == "nlm":
        return "nfsv3"
    if name.startswith("nfsv4"):
        return "nfsv4"
    return "smb" if name == "cifs" else "unknown"


def _pause_s(answer: requests.Response, attempt: int) -> float:
    asked = answer.headers.get("Retry-After", "")
    wanted = float(asked) if asked.isdigit() else 0.5 * 2**attempt
    return min(wanted, _LONGEST_PAUSE_S)


def _words(answer: requests.Response) -> str:
    """What ONTAP says of an error."""
    try:
        error = answer.json()["error"]
        return f"{error['message']} (code {error.get('code', '?')})"
    except (ValueError, KeyError, TypeError):
        return answer.reason or "no reason given"


def _short(error: Exception) -> str:
    return str(error)[:_QUOTED]


PLUGIN = Ontap
