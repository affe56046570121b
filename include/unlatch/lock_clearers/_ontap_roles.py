"""What a role of ONTAP lets its users do, from the account and the privileges that it shows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from urllib.parse import quote

from unlatch.models import Json

_ACCOUNTS, _ROLES = "/api/security/accounts", "/api/security/roles"


def own_access(path: str, records: Callable[[str], Sequence[Json]], *, login: str, svm: str) -> tuple[str, str | None]:
    """The login's role, and its access to a path (see `access_to`). Two reads, no change.

    Args:
        path: Such as `/api/protocols/locks`.
        records: Gives the records of a GET request.
        login: The account.
        svm: Where it should be; an account of that name elsewhere is taken when it is the only one.

    Raises:
        KeyError: there is no such account, or several, or its answer lacks what the reference has in it.
    """
    found = records(f"{_ACCOUNTS}?name={quote(login, safe='')}&fields=role.name,owner.name,owner.uuid")
    named = [account for account in found if account["name"] == login]
    mine = [account for account in named if account["owner"].get("name") == svm] or named
    if len(mine) != 1:
        raise KeyError(f"{len(mine)} accounts are called {login}")
    role, owner = str(mine[0]["role"]["name"]), str(mine[0]["owner"]["uuid"])
    privileges = records(f"{_ROLES}/{quote(owner, safe='')}/{quote(role, safe='')}/privileges?fields=*")
    return role, access_to(path, privileges)


def reading_roles(svm: str) -> str:
    """What lets a role read itself."""
    commands = (
        f"security login rest-role create -vserver {svm} -role unlatch -api {path} -access readonly"
        for path in (_ACCOUNTS, _ROLES)
    )
    return f"to let the drill tell, on ONTAP: {'; '.join(commands)}"


def access_to(path: str, privileges: Iterable[Json]) -> str | None:
    """The access that a role has to a path of the REST interface: `all`, `readonly`, `none` or one between.

    Of the privileges whose path is the wanted one or above it, the longest counts.

    Args:
        path: Such as `/api/protocols/locks`.
        privileges: The role's, each with `path` and `access`. Those of the command line are of no matter here.

    Returns:
        None: the role has no path of the REST interface at all, so its access follows from its commands, which ONTAP
        maps to paths by itself.
    """
    by_path = {str(p["path"]).rstrip("/"): str(p["access"]) for p in privileges if str(p["path"]).startswith("/api")}
    if not by_path:
        return None
    above = [known for known in by_path if known == path or path.startswith(f"{known}/")]
    return by_path[max(above, key=len)] if above else "none"
