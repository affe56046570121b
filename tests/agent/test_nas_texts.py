"""The parsers of what the kernel and statd write: locks, NFS clients, exports, connections, monitored hosts."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unlatch_agent import livelocks, mounts, nfsd, nsm, proclocks

calm = settings(deadline=None)

# A NAS with one NFSv3 client (all of its locks are lockd's), an NFSv4 client, and a process of its own.
LOCKS = """\
1: POSIX  ADVISORY  WRITE 169 fe:10:1234 0 EOF
2: POSIX  ADVISORY  WRITE 171 fe:10:1240 1073741824 1073742335
2: -> POSIX  ADVISORY  WRITE 172 fe:10:1240 0 EOF
3: FLOCK  ADVISORY  WRITE 812 00:19:441 0 EOF
4: OFDLCK ADVISORY  READ  -1 fe:10:1250 0 0
5: DELEG  ACTIVE    READ 171 fe:10:1260 0 EOF
6: LEASE  BREAKING  READ 900 fe:10:1261 0 EOF
7: POSIX  *NOINODE*  WRITE 1 0 EOF
8: POSIX  ADVISORY  WRITE zz fe:10:1 0 EOF
"""

INFO = """\
clientid: 0x9c2b3a5f6741a1b6
address: "10.77.0.37:885"
status: confirmed
seconds from last renew: 12
name: "Linux NFSv4.2 dbvrtg4037"
minor version: 2
Implementation domain: "kernel.org"
Implementation name: "Linux 6.1.0-28-amd64 #1 SMP PREEMPT_DYNAMIC Debian 6.1.119-1 (2024-11-22) x86_64"
Implementation time: [0, 0]
callback state: UP
callback address: 10.77.0.37:0
"""

STATES = """\
- 0x00000001a1b641675f3a2b9c00000001: { type: open, access: rw, deny: --, superblock: "fe:10:1234", \
filename: "voms/ibdata1", owner: "open id:\\x00\\x00\\x00\\x38\\x00\\x00" }
- 0x00000001a1b641675f3a2b9c00000002: { type: lock, superblock: "fe:10:1234", filename: "voms/ibdata1", \
owner: "lock id:\\x00\\x00\\x00\\x38" }
- 0x00000001a1b641675f3a2b9c00000003: { type: deleg, access: r, superblock: "fe:10:1270", filename: "etc/x, y" }
- 0x00000001a1b641675f3a2b9c00000004: { type: lock, superblock: "fe:11:9", filename: "a "b" }/c", owner: "o" }
- 0x00000001a1b641675f3a2b9c00000005: { type: lock, superblock: "fe:10:7", filename: "a/b", owner: "o", admin-revoked }
- 0x00000001a1b641675f3a2b9c00000006: { type: lock, owner: "lock id:\\x22" }
"""

ETAB = """\
/srv/dbod\t10.77.0.0/24(rw,sync,wdelay,hide,nocrossmnt,secure,root_squash,no_all_squash,no_subtree_check,fsid=1)
/srv/with\\040space\t*(ro,sync)
/srv/dbod\t10.78.0.0/24(ro,sync)
"""
# What /proc/fs/nfsd/exports shows; its first lines are comments.
KERNEL_EXPORTS = "# Version 1.1\n# Path Client(Flags) # IPs\n/srv/dbodx\t10.77.0.0/24(rw,root_squash,sync,wdelay)\n"

TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:0801 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 13034 1 0000 100 0 0 10 0
   1: 0A004D0A:0801 25004D0A:0375 01 00000000:00000000 02:0005B1B5 00000000     0        0 18262 2 0000 20 4 1 10 -1
   2: 0A004D0A:0801 25004D0A:0376 01 00000000:00000000 02:0005B1B5 00000000     0        0 18263 2 0000 20 4 1 10 -1
   3: 0A004D0A:0801 26004D0A:0376 06 00000000:00000000 02:0005B1B5 00000000     0        0 0 2 0000 20 4 1 10 -1
   4: 0A004D0A:0016 27004D0A:9C40 01 00000000:00000000 02:0005B1B5 00000000     0        0 18270 2 0000 20 4 1 10 -1
"""
TCP6 = """\
  sl  local_address                         remote_address                        st tx_queue
   0: 0000000000000000FFFF00000A004D0A:0801 0000000000000000FFFF000028004D0A:0377 01 00000000:00000000
   1: 000080FE000000000000000001000000:0801 000080FE000000000000000002000000:0377 01 00000000:00000000
"""

RECORD = "0100007f 000186b5 00000003 00000010 8a7f3c0100000000c0d1e2f3a4b5c6d7 nas dbvrtg4037\n"

TABLE = (
    "22 1 254:0 / / rw - ext4 /dev/vda rw\n"
    "40 22 0:50 / /ORA/dbs03 rw - nfs nas:/srv/dbod/dbs03 rw,vers=3,local_lock=none,addr=10.77.0.10\n"
    "41 22 0:50 /sub /ORA/again rw - nfs nas:/srv/dbod/dbs03/sub rw,vers=3,local_lock=none\n"
    "42 22 0:51 / /ORA/four rw - nfs4 [fe80::1]:/x rw,vers=4.2,local_lock=none\n"
)


def inode(major: int, minor: int, number: int) -> tuple[int, int]:
    """A file's identity."""
    return os.makedev(major, minor), number


def test_the_lock_list() -> None:
    """It should take granted locks with their ranges, and neither waiters nor leases nor nonsense."""
    found = proclocks.parse(LOCKS)
    assert [(lock.kind, lock.mode, lock.pid) for lock in found] == [
        ("POSIX", "write", 169),
        ("POSIX", "write", 171),
        ("FLOCK", "write", 812),
        ("OFDLCK", "read", -1),
    ]
    assert [(lock.inode, lock.start, lock.end) for lock in found[:2]] == [
        (inode(0xFE, 0x10, 1234), 0, None),
        (inode(0xFE, 0x10, 1240), 1073741824, 1073742335),
    ]
    assert proclocks.device_name(found[0].inode[0]) == "fe:10"


def test_locks_of_a_descriptor() -> None:
    """It should read the lock lines of fdinfo, among the others."""
    text = "pos:\t0\nflags:\t0100002\nmnt_id:\t97\nino:\t1234\nlock:\t1: POSIX  ADVISORY  WRITE 169 fe:10:1234 0 EOF\n"
    assert [lock.pid for lock in proclocks.of_fdinfo(text)] == [169]


@calm
@given(st.text(max_size=300))
def test_any_text(text: str) -> None:
    """It should take any text for any of these lists."""
    proclocks.parse(text)
    nfsd.parse_info(text)
    nfsd.parse_states(text)
    nfsd.parse_exports(text)
    nsm.parse_records(text)


def test_a_client() -> None:
    """It should read who a client is, and when it renewed."""
    found = nfsd.parse_info(INFO)
    assert found == nfsd.Client("10.77.0.37", "Linux NFSv4.2 dbvrtg4037", "confirmed", 12, "4.2")


@pytest.mark.parametrize(
    ("status", "told"), [("courtesy", "courtesy"), ("expirable", "courtesy"), ("unconfirmed",) * 2]
)
def test_a_clients_status(status: str, told: str) -> None:
    """It should call a client whose lease is over so, also when the server is about to drop it."""
    assert nfsd.parse_info(INFO.replace("confirmed", status)).status == told


def test_an_old_kernels_client() -> None:
    """It should not know when a client renewed that does not say so, and take quotes and IPv6 addresses."""
    text = 'address: "[fe80::2]:885"\nname: "a \\x22b\\x5c: c"\nminor version: 0\nstatus: confirmed\n'
    assert nfsd.parse_info(text) == nfsd.Client("fe80::2", 'a "b\\: c', "confirmed", None, "4.0")
    assert nfsd.parse_info('address: "[::ffff:10.77.0.37]:885"').address == "10.77.0.37"
    assert nfsd.parse_info("") == nfsd.Client(None, None, "unknown", None, None)


def test_states() -> None:
    """It should read kind, file and inode of each state, and leave out what was revoked."""
    found = nfsd.parse_states(STATES)
    assert [(state.kind, state.inode, state.file) for state in found] == [
        ("open", inode(0xFE, 0x10, 1234), "voms/ibdata1"),
        ("lock", inode(0xFE, 0x10, 1234), "voms/ibdata1"),
        ("deleg", inode(0xFE, 0x10, 1270), "etc/x, y"),
        ("lock", inode(0xFE, 0x11, 9), 'a "b" }/c'),
        ("lock", None, None),
    ]


def test_exports() -> None:
    """It should read exported directories once each, and accept what clients can mount below them."""
    found = nfsd.parse_exports(ETAB)
    assert found == ["/srv/dbod", "/srv/with space"]
    assert nfsd.parse_exports(KERNEL_EXPORTS) == ["/srv/dbodx"]
    assert nfsd.is_exported("/srv/dbod/dbs03", found)
    assert nfsd.is_exported("/srv/dbod", found)
    assert not nfsd.is_exported("/srv/dbodx", found)
    assert not nfsd.is_exported("/srv", found)
    assert nfsd.is_exported("/any", ["/"])


def test_control_file_names() -> None:
    """It should write paths as nfsd's control files read them."""
    assert nfsd.escaped("/srv/with space\\x") == "/srv/with\\040space\\134x"
    assert nfsd.escaped("/srv/\u00e9") == "/srv/\\303\\251"


def test_connections() -> None:
    """It should find who is connected to the NFS port now, over IPv4 and IPv6."""
    assert nfsd.parse_connections(TCP) == ["10.77.0.37"]
    assert nfsd.parse_connections(TCP6) == ["10.77.0.40", "fe80::2"]


def test_monitored_hosts() -> None:
    """It should read statd's records, and write one that it would read itself."""
    assert nsm.parse_records(RECORD + "torn 0100\n" + RECORD) == [nsm.Record("nas", "dbvrtg4037")] * 2
    made = nsm.record_text(nsm.Record("nas", "dbvrtg4037"))
    assert nsm.parse_records(made) == [nsm.Record("nas", "dbvrtg4037")]
    assert len(made) == len(RECORD)


@calm
@given(st.lists(st.none() | st.integers(-(2**31), 2**31 - 1), max_size=3), st.floats(0, 2**33))
def test_the_state_number(used: list[int | None], now_s: float) -> None:
    """It should be odd, fit statd's file, and be above all that was used, also by this host's earlier lives."""
    number = nsm.next_state(*used, now_s=now_s)
    assert number % 2 == 1
    assert nsm.parse_state(nsm.state_bytes(number)) == number
    assert all(number > known for known in used if known is not None and known < 2**31 - 2)
    assert number >= min(int(now_s), 2**31 - 1)


def test_a_torn_state_file() -> None:
    """It should not take Debian's empty state file for a number."""
    assert nsm.parse_state(b"") is None
    assert nsm.next_state(None, now_s=0) == 1


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("nas", "nas", True),
        ("nas", "NAS.example.org", True),
        ("nas", "nas2", False),
        ("10.77.0.1", "10.77.0.1", True),
        ("10.77.0", "10.77.0.1", False),
    ],
)
def test_names_of_one_host(one: str, other: str, same: bool) -> None:
    """It should know a host with and without its domain, and never take one address for another."""
    assert nsm.same_host(one, other) is same
    assert nsm.same_host(other, one) is same


@pytest.mark.parametrize(
    ("name", "fits"), [("nas", True), ("fe80::1", True), ("..", False), ("a/b", False), ("", False)]
)
def test_file_names(name: str, fits: bool) -> None:
    """It should take for a monitored host only what can be a file of statd's directory."""
    assert nsm.can_name_a_file(name) is fits


def test_mounts_with_one_device() -> None:
    """It should name a lock by the first mount that shares its device, and know servers and versions."""
    table = mounts.parse_mountinfo(TABLE)
    assert [mount.server for mount in table] == [None, "nas", "nas", "fe80::1"]
    assert [mount.uses_nsm for mount in table] == [False, True, True, False]
    text = "1: POSIX  ADVISORY  WRITE 4711 00:32:7 0 EOF\n2: POSIX  ADVISORY  WRITE 4711 00:32:7 9 9\n"
    (found,) = livelocks.found(text, [mount for mount in table if mount.is_nfs], "/nonexistent")
    assert found == {
        "pid": 4711,
        "command": None,
        "inode": 7,
        "path": None,
        "type": "write",
        "mountpoint": "/ORA/dbs03",
        "server": "nas",
    }
    assert livelocks.found(text, [table[0]], "/nonexistent") == []
