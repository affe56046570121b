"""What a site's administrators would set up before they let Unlatch in: root commands, sudo rules, database logins.

Everything here is idempotent, and done again after a boot: a machine that came back from its image has lost it.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Collection
from pathlib import Path

from tests.nfs.nfs_lab import UNITS, NfsLab

LOGIN = "dbod"
"""The DBAs' user on all machines; Unlatch logs in as this one."""

DATABASE_LOGIN = "unlatch"
DATABASE_PASSWORD = "a-password-of-the-lab-only"
PORTS = {"voms": 6501, "alvmysql": 6502, "lxr": 6601}

GUEST_COMMANDS = ("unlatch-openers", "unlatch-notify")
NAS_COMMANDS = ("unlatch-nas-list", "unlatch-nas-clear")
_SYSTEMCTL = "/usr/bin/systemctl"


def provision_guest(lab: NfsLab, agent: Path, *, machine: str = "client", without: Collection[str] = ()) -> None:
    """Set up a database host. `without`: root commands that its administrator has not granted."""
    granted = [name for name in GUEST_COMMANDS if name not in without]
    rules = [f"{LOGIN} ALL=(root) NOPASSWD: /usr/local/sbin/{name}" for name in granted]
    for unit in UNITS.values():
        # `mask --runtime --now` also ends a start attempt that is retrying; the lab's own rule has no --now.
        rules.append(f"{LOGIN} ALL=(root) NOPASSWD: {_SYSTEMCTL} mask --runtime --now {unit}")
        rules.append(f"{LOGIN} ALL=(root) NOPASSWD: {_SYSTEMCTL} unmask --runtime {unit}")
    _install(lab, machine, agent, granted=granted, known=GUEST_COMMANDS, rules=rules)
    lab.root(machine, "sed -i 's/^bind-address .*/bind-address = 0.0.0.0/' /etc/dbod/*.cnf")


def provision_nas(lab: NfsLab, agent: Path, *, without: Collection[str] = ()) -> None:
    """Set up the NAS. `without`: commands that the storage team has not granted, such as in 2014 the clearing."""
    granted = [name for name in NAS_COMMANDS if name not in without]
    rules = [f"{LOGIN} ALL=(root) NOPASSWD: /usr/local/sbin/{name}" for name in granted]
    _install(lab, "nas", agent, granted=granted, known=NAS_COMMANDS, rules=rules)


def _install(
    lab: NfsLab,
    machine: str,
    agent: Path,
    *,
    granted: Collection[str],
    known: Collection[str],
    rules: Collection[str],
) -> None:
    """Root-owned copies of the agent under the names of its root commands, and the rules for them, checked."""
    content = agent.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    kept = "/usr/local/sbin/.unlatch-agent.pyz"
    present = lab.root(machine, f"sha256sum {kept} 2>/dev/null | cut -d' ' -f1", check=False).strip()
    if present != digest:
        lab.root(machine, f"cat >{kept}.new && mv {kept}.new {kept}", stdin=content)
    lines = ["set -e"]
    lines += [f"rm -f /usr/local/sbin/{name}" for name in known if name not in granted]
    lines += [f"install -o root -g root -m 0755 {kept} /usr/local/sbin/{name}" for name in granted]
    text = shlex.quote("\n".join(rules) + "\n")
    lines += [
        f"printf %s {text} >/etc/sudoers.d/unlatch.new",
        "chmod 440 /etc/sudoers.d/unlatch.new",
        "visudo -qcf /etc/sudoers.d/unlatch.new",
        "mv /etc/sudoers.d/unlatch.new /etc/sudoers.d/unlatch",
    ]
    lab.root(machine, "\n".join(lines))


def open_databases(lab: NfsLab) -> None:
    """Let clients in from the lab's host address: listeners, logins, a table to read. Databases must be up."""
    client = lab.settings["NET_HOST"]
    for instance in ("voms", "alvmysql"):
        user = f"'{DATABASE_LOGIN}'@'{client}'"
        lab.root(
            "client",
            f"mariadb -S /run/dbod/{instance}.sock",
            stdin=(
                f"CREATE USER IF NOT EXISTS {user} IDENTIFIED BY '{DATABASE_PASSWORD}';"
                f"GRANT SELECT ON voms.* TO {user};"
            ).encode(),
        )
    conf = "/ORA/dbs03/LXR/data"
    rule = f"host lxr {DATABASE_LOGIN} {client}/32 scram-sha-256"
    lab.root(
        "client",
        "runuser -u postgres -- sh -s",
        stdin=f"""set -e
cd /
grep -q "^listen_addresses = '\\*'" {conf}/postgresql.conf || echo "listen_addresses = '*'" >>{conf}/postgresql.conf
grep -qxF {shlex.quote(rule)} {conf}/pg_hba.conf || echo {shlex.quote(rule)} >>{conf}/pg_hba.conf
psql -h /run/dbod -p {PORTS["lxr"]} -d lxr -X -q -v ON_ERROR_STOP=1 <<'SQL'
DO $$ BEGIN CREATE ROLE {DATABASE_LOGIN} LOGIN PASSWORD '{DATABASE_PASSWORD}';
EXCEPTION WHEN duplicate_object THEN NULL; END $$;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO {DATABASE_LOGIN};
SQL
""".encode(),
    )
    restart_databases(lab)


def restart_databases(lab: NfsLab) -> None:
    """Restart all three at once, so that they listen as their configuration now says."""
    lab.root("client", f"systemctl restart {' '.join(UNITS.values())}")
