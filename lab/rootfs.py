"""The file system that a lab machine sees: the host's programs, and an /etc, accounts and homes of its own.

Only a short list of the host's configuration is copied and none of its secrets. The machine mounts these directories
in its own mount namespace; on the host they are plain directories below the lab's root.
"""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lab.errors import LabError

GUEST_PROGRAMS = Path(__file__).with_name("guest")

_COPIED_FROM_ETC = (
    "alternatives", "bash.bashrc", "debian_version", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "login.defs",
    "os-release", "profile", "protocols", "services",
)  # fmt: skip
_DIRECTORIES = (
    "dev", "etc/lab", "etc/pam.d", "etc/security", "etc/ssh/authorized_keys", "home", "local/bin", "local/lib/lab",
    "local/sbin", "mnt", "opt", "proc", "root", "run", "srv", "sys", "tmp", "usr", "var/cache", "var/lib", "var/log",
    "var/spool", "var/tmp",
)  # fmt: skip
_PAM = "auth required pam_deny.so\naccount required pam_permit.so\nsession required pam_permit.so\n"


@dataclass(frozen=True)
class Account:
    """A login that exists in the machine only.

    Attributes:
        name: User and group name.
        uid: Its user id; must not mean anybody on the host.
        public_key: The one OpenSSH key that may log in.
    """

    name: str
    uid: int
    public_key: str


@dataclass(frozen=True)
class Layout:
    """What distinguishes one machine's file system from another's.

    Attributes:
        hostname: Its name.
        account: The login for programs.
        ssh_port: Port of its sshd on 127.0.0.1.
        system_users: Users of the host's packages that exist in the machine too, with the same ids.
        sudoers: Rules of /etc/sudoers.
        timezone: Zone name of /etc/localtime.
        directories: More directories, below the root, without a leading slash.
    """

    hostname: str
    account: Account
    ssh_port: int
    system_users: Sequence[str] = ()
    sudoers: str = ""
    timezone: str = "Etc/UTC"
    directories: Sequence[str] = field(default=())


def build(root: Path, layout: Layout) -> None:
    """Make or refresh the file system below `root`. Idempotent; host keys are kept once made."""
    for name in (*_DIRECTORIES, *layout.directories):
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in ("etc", "etc/ssh", "etc/ssh/authorized_keys", "home", "local", "local/sbin", "."):
        os.chmod(root / name, 0o755)  # whatever the umask: sshd and sudo trust no path that others may write
    for name in ("bin", "sbin", "lib", "lib64"):
        _link(root / name, f"usr/{name}")
    _link(root / "var/run", "/run")
    _link(root / "var/lock", "/run/lock")
    os.chmod(root / "root", 0o700)
    os.chmod(root / "var/tmp", 0o1777)
    _copy_etc(root / "etc")
    _write_accounts(root, layout)
    _write_ssh(root / "etc/ssh", layout)
    for name in ("init.py", "supervisor.py", "holder.py"):
        shutil.copyfile(GUEST_PROGRAMS / name, root / "local/lib/lab" / name)


def install_program(root: Path, source: Path, name: str) -> None:
    """Put a program into the machine's /usr/local/sbin, owned by root, writable by nobody else."""
    target = root / "local/sbin" / name
    temporary = target.with_suffix(".new")
    shutil.copyfile(source, temporary)
    os.chmod(temporary, 0o755)
    temporary.replace(target)


def make_key(path: Path, comment: str) -> str:
    """Make an OpenSSH ed25519 key without a passphrase unless it is there, and return its public line."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)]
        subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
    return path.with_name(path.name + ".pub").read_text().strip()


def free_uid(start: int = 2010) -> int:
    """Return a user id that nobody has on the host, so that the machine's login owns nothing there."""
    used = {entry.pw_uid for entry in pwd.getpwall()} | {entry.gr_gid for entry in grp.getgrall()}
    return next(uid for uid in range(start, 60000) if uid not in used)


def _link(path: Path, target: str) -> None:
    if not path.is_symlink():
        path.symlink_to(target)


def _copy_etc(etc: Path) -> None:
    for name in _COPIED_FROM_ETC:
        source, target = Path("/etc") / name, etc / name
        if source.is_dir() and not source.is_symlink():
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("*.gz"))  # no manuals
        elif source.exists():
            target.unlink(missing_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.unlink(missing_ok=True)
    path.write_text(text)
    os.chmod(path, mode)


def _write_accounts(root: Path, layout: Layout) -> None:
    account = layout.account
    users = ["root:x:0:0:root:/root:/bin/bash", "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin"]
    groups = {"root": 0, "tty": 5, "nogroup": 65534}
    for name in ("sshd", *layout.system_users):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            raise LabError(f"the user {name} is missing: install the package that makes it, then try again") from None
        users.append(f"{name}:x:{entry.pw_uid}:{entry.pw_gid}:{name}:/nonexistent:/usr/sbin/nologin")
        groups.setdefault(grp.getgrgid(entry.pw_gid).gr_name, entry.pw_gid)
    users.append(f"{account.name}:x:{account.uid}:{account.uid}:{account.name}:/home/{account.name}:/bin/bash")
    groups[account.name] = account.uid
    etc = root / "etc"
    _write(etc / "passwd", "\n".join(users) + "\n")
    _write(etc / "group", "".join(f"{name}:x:{gid}:\n" for name, gid in groups.items()))
    # `*` is no password, yet not a locked account: sshd lets keys in.
    _write(etc / "shadow", "".join(f"{line.split(':')[0]}:*:19000:0:99999:7:::\n" for line in users), 0o600)
    _write(etc / "hostname", f"{layout.hostname}\n")
    _write(etc / "hosts", f"127.0.0.1 localhost\n127.0.1.1 {layout.hostname}\n::1 localhost\n")
    _write(etc / "nsswitch.conf", "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n")
    _write(etc / "timezone", f"{layout.timezone}\n")
    (etc / "localtime").unlink(missing_ok=True)
    (etc / "localtime").symlink_to(f"/usr/share/zoneinfo/{layout.timezone}")
    _write(etc / "sudoers", layout.sudoers, 0o440)
    for name in ("sudo", "other"):
        _write(etc / "pam.d" / name, _PAM)
    home = root / "home" / account.name
    home.mkdir(exist_ok=True)
    os.chown(home, account.uid, account.uid)
    os.chmod(home, 0o755)


def _write_ssh(ssh: Path, layout: Layout) -> None:
    make_key(ssh / "ssh_host_ed25519_key", layout.hostname)
    name = layout.account.name
    _write(ssh / "authorized_keys" / name, f"{layout.account.public_key}\n")
    _write(
        ssh / "sshd_config",
        f"""Port {layout.ssh_port}
ListenAddress 127.0.0.1
HostKey /etc/ssh/ssh_host_ed25519_key
AuthorizedKeysFile /etc/ssh/authorized_keys/%u
AllowUsers {name}
AuthenticationMethods publickey
PermitRootLogin no
UsePAM no
UseDNS no
PrintMotd no
PrintLastLog no
MaxStartups 100
MaxSessions 100
PidFile none
Subsystem sftp internal-sftp
""",
    )
