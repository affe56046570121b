"""Making one copy: its bytes and metadata, its verification, and what the journal keeps of it.

Several copies are made at a time, pass by pass; see :mod:`unlatch_agent.batches`.
"""

import contextlib
import hashlib
import os
from typing import Callable, List, NamedTuple, Optional, Sequence

from unlatch_agent import cloning, comparing, directio, durable, identity, metadata, streaming, syscalls
from unlatch_agent.copying import Asked, Chooser, Copied
from unlatch_agent.errors import CheckFailedError, Json, RefusedError, naming
from unlatch_agent.following import DiffersError, Following
from unlatch_agent.identity import Identity
from unlatch_agent.journal import Journal
from unlatch_agent.progress import Counting
from unlatch_agent.ranges import SMALL_BYTES
from unlatch_agent.replaying import Entry
from unlatch_agent.requests import Advance, Request
from unlatch_agent.safety import Target

# What must hold of an original from its copy until its swap.
UNCHANGED = ("inode", "size_bytes", "mtime_ns", "ctime_ns")
# A digest of so small a file that passed through this program costs less than looking at it.
_DIGEST_BYTES = 256 * 1024


class Volume(NamedTuple):
    """What a directory's mount can do.

    Attributes:
        is_local: no other host can write there, for certain.
        tells_of_writers: what other hosts write shows when a file is opened anew (NFS: close-to-open consistency).
    """

    is_nfs: bool = False
    is_local: bool = False
    tells_of_writers: bool = False
    may_copy_on_server: bool = False


class Begun(NamedTuple):
    """A copy that an earlier run has made a part of, or all but its verification.

    Attributes:
        inode: of the copy.
        done_bytes: how much of it is on disk.
        how: by which method, when it is all there.
    """

    inode: int
    done_bytes: int
    how: Copied


class Planned(NamedTuple):
    """One file, looked at and found fit to be copied.

    Attributes:
        target: where it is.
        source: what it is.
        done: its entry when an earlier run has finished the copy.
        begun: what an earlier run has left that is gone on with.
        held_bytes: room that an earlier run's copy already takes; it is used again, or comes free first.
    """

    target: Target
    source: Identity
    done: Optional[Entry] = None
    begun: Optional[Begun] = None
    held_bytes: int = 0


def source_changed(owner: Journal, path: str, changed: Sequence[str]) -> RefusedError:
    """Return the error for an original that someone wrote to after it was copied."""
    return RefusedError(
        "source_changed",
        "{} has changed since it was copied ({})".format(path, ", ".join(changed)),
        "find out who writes to it: a writer is a sign of life. Then throw the copies away "
        "(purge --incident {} {}) and begin again".format(owner.incident, owner.directory),
    )


class Making:
    """One copy while it is made, with its two open files."""

    def __init__(self, owner: Journal, plan: Planned, volume: Volume) -> None:
        """Begin with nothing open."""
        self.owner = owner
        self.plan = plan
        self.volume = volume
        self.path = plan.target.path
        self.temp = owner.temp(plan.target.name)
        self.is_verified = False
        self.is_spoilt = False
        self.facts: Json = {}
        self._lost: List[str] = []
        self._open: List[int] = []
        self._status: Optional[os.stat_result] = None
        self._content: Optional[bytes] = None
        self._is_compared = False

    @property
    def source(self) -> int:
        """Return the original's descriptor."""
        return self._open[0]

    @property
    def target(self) -> int:
        """Return the copy's descriptor."""
        return self._open[1]

    @property
    def is_huge(self) -> bool:
        """Say whether it takes so long that how far it is must outlive a kill."""
        return self.plan.source.size_bytes > streaming.MARK_BYTES

    @property
    def _is_all_there(self) -> bool:
        """Say whether an earlier run has copied every byte."""
        return self.plan.begun is not None and self.plan.begun.done_bytes >= self.plan.source.size_bytes

    def close(self) -> None:
        """Close both files, and forget the bytes."""
        self._content = None
        while self._open:
            os.close(self._open.pop())

    def expect(self, chooser: Chooser) -> None:
        """Let the kernel read a small original already, while other things go on; what fails here fails again later."""
        wanted = self._first(chooser) == "stream" and self.plan.source.size_bytes <= SMALL_BYTES
        if wanted and not self._open:
            with contextlib.suppress(OSError):
                self._open.append(identity.open_to_read(self.path))
                directio.ahead(self.source)

    def _first(self, chooser: Chooser) -> str:
        """Return the method that is tried first."""
        source, volume = self.plan.source, self.volume
        is_begun = self.plan.begun is not None and self.plan.begun.done_bytes > 0
        return chooser.methods(
            source.size_bytes, source.dev, is_begun=is_begun, may_copy_on_server=volume.may_copy_on_server
        )[0]

    def intent(self, chooser: Chooser) -> Json:
        """Return what the journal keeps of a copy that is to be begun, or gone on with."""
        kept: Json = {"source": self.plan.source.document(), "method": self._first(chooser)}
        begun = None if self.is_spoilt else self.plan.begun
        if begun is not None:
            kept.update(temp_inode=begun.inode, done_bytes=begun.done_bytes)
            if self._is_all_there:
                kept.update(method=begun.how.method, fell_back=begun.how.fell_back)
        return kept

    def mark(self, done_bytes: int) -> None:
        """Record how much of the copy is on disk: after a kill it goes on from there."""
        with naming(self.target):
            inode = os.fstat(self.target).st_ino
        facts = {"source": self.plan.source.document(), "temp_inode": inode, "done_bytes": done_bytes}
        facts.update(method=self.facts.get("method"), fell_back=self.facts.get("fell_back", []))
        self.owner.record("copying", self.plan.target.name, **facts)

    def copy(self, chooser: Chooser, asked: Asked, progress: Counting) -> None:
        """Make the copy with its bytes and metadata; not yet on disk."""
        begun = self.plan.begun
        advance = progress.start(self.path, "copy", begun.done_bytes if begun is not None else 0)
        if not self._open:
            self._open.append(identity.open_to_read(self.path))
            directio.let_go(self.source, 0, 0)
        with naming(self.source):
            self._status = os.fstat(self.source)
        self._open.append(durable.create_anew(self.temp) if begun is None else self._reopened(begun))
        with naming(self.target):
            self._lost = metadata.copy_flags(self.source, self.target)
            if asked.strict_metadata:
                # Before the bytes: nobody wants to learn this after two terabytes.
                self._refuse_lost(
                    self._lost + metadata.copy_owner_and_attributes(self.source, self.target, self._status)
                )
        whole = begun if self._is_all_there else None
        copied = whole.how if whole is not None else self._copied(chooser, asked, advance)
        self._content = copied.content
        self.facts.update(method=copied.method, fell_back=copied.fell_back)
        if begun is not None and whole is None:
            self.facts["resumed_at_bytes"] = begun.done_bytes
        if self._content is not None and len(self._content) <= _DIGEST_BYTES:
            self.facts["source_sha256"] = hashlib.sha256(self._content).hexdigest()
        with naming(self.target):
            self._lost += metadata.copy_owner_and_attributes(self.source, self.target, self._status)
            metadata.copy_times(self._status, self.target)
        if not self.volume.is_nfs and self._content is None:  # small ones go together
            syscalls.begin_writing_back(self.target)

    def _copied(self, chooser: Chooser, asked: Asked, advance: Advance) -> Copied:
        """Copy the bytes; what can be compared meanwhile, is."""
        plan, volume = self.plan, self.volume
        # What this host has in memory of a file says nothing of what other hosts write to it: that must be seen later.
        is_watched = volume.is_local or volume.tells_of_writers
        may_follow = is_watched and asked.verification == "full" and plan.begun is None
        following = Following(is_nfs=volume.is_nfs) if may_follow else None
        request = Request(
            source=self.source,
            target=self.target,
            size_bytes=plan.source.size_bytes,
            is_sparse=plan.source.is_sparse,
            path=self.path,
            dev=plan.source.dev,
            is_nfs=volume.is_nfs,
            may_copy_on_server=volume.may_copy_on_server,
            start_bytes=plan.begun.done_bytes if plan.begun is not None else 0,
            mark=self.mark if self.is_huge else None,
            following=following,
        )
        try:
            copied = chooser.copy(request, advance)
        except DiffersError:
            raise self._differs() from None
        self._is_compared = following is not None and following.is_whole
        return copied

    def _reopened(self, begun: Begun) -> int:
        """Open what an earlier run has left."""
        descriptor = os.open(self.temp, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        if os.fstat(descriptor).st_ino != begun.inode:
            os.close(descriptor)
            raise CheckFailedError(
                "copy_differs",
                "{} is not the copy that was begun".format(self.temp),
                "find out who replaced it, throw the copies away (purge --incident {} {}) and begin again".format(
                    self.owner.incident, self.owner.directory
                ),
            )
        return descriptor

    def look_ahead(self) -> None:
        """Let the kernel read the copy of a small file back from the storage; it is on disk."""
        if self._content is not None:
            with naming(self.target):
                directio.ahead(self.target)

    def verify(self, asked: Asked, progress: Counting) -> None:
        """Compare the copy, which is on disk, with the original, and complete what is known of it."""
        size_bytes = self.plan.source.size_bytes
        advance = progress.start(self.path, "compare", 2 * size_bytes if self._is_compared else size_bytes)
        # Of what was begun before a kill every byte is looked at, whatever was asked for.
        verification = asked.verification if self.plan.begun is None else "full"
        self.facts.update(verify=verification, verified=self._verified(verification, advance))
        self._content = None
        if self.facts["verified"] in ("extents", "sizes"):
            advance(size_bytes)
        with naming(self.target):
            have = os.fstat(self.target)
            if self._status is not None and not metadata.has_times(self._status, have):
                metadata.copy_times(self._status, self.target)
                os.fsync(self.target)
                have = os.fstat(self.target)
        with naming(self.source):
            source = os.fstat(self.source)
        self._lost += metadata.lost_basics(source, have)
        if asked.strict_metadata:
            self._refuse_lost(self._lost)
        self._refuse_changed(identity.of_status(source))
        if self._is_compared:
            self._refuse_changed(self._now())
        self.facts.update(temp=identity.of_status(have).document(), metadata_lost=self._lost)
        self.is_verified = True
        progress.finish_file()

    def _verified(self, verification: str, advance: Callable[[int], None]) -> str:
        """Verify, and say what that was: content, sample, extents or sizes."""
        size_bytes = self.plan.source.size_bytes
        if verification == "none":
            same = os.fstat(self.target).st_size == size_bytes
            how = "sizes"
        elif self.facts["method"] == "clone":
            shared = cloning.same_extents(self.source, self.target, size_bytes)
            same = shared is not False and os.fstat(self.target).st_size == size_bytes
            how = "sizes" if shared is None else "extents"
            if shared is None and size_bytes <= SMALL_BYTES:  # so small that it has no blocks of its own
                how, same = "content", comparing.equal(self.source, self.target, size_bytes, advance)
        elif self._content is not None:
            how, same = "content", comparing.equal_to(self._content, self.target, advance)
        elif self._is_compared:
            how, same = "content", True
        elif verification == "sample":
            seed = identity.name_hash(self.owner.incident, self.plan.target.name)
            self.facts["sample_seed"] = seed
            same = comparing.equal_in_samples(self.source, self.target, size_bytes, seed, advance)
            how = "sample"
        else:
            same = comparing.equal(self.source, self.target, size_bytes, advance, is_nfs=self.volume.is_nfs)
            how = "content"
        if same:
            return how
        raise self._differs()

    def _differs(self) -> CheckFailedError:
        """Return the error for a copy that is wrong; the original is to blame if it has changed."""
        self._refuse_changed(self._now())
        self.is_spoilt = True
        return CheckFailedError(
            "copy_differs",
            "the copy of {} differs from it when read back".format(self.path),
            "look for I/O errors of the volume and in this host's kernel log; no name was touched. The next run copies "
            "it from the beginning",
        )

    def _now(self) -> Optional[Identity]:
        """Say what the original is now; where other hosts may write to it the server is asked, and not this host."""
        if not self.volume.is_local:
            return identity.of_name(self.path)
        return identity.of_status(os.fstat(self.source))

    def _refuse_changed(self, now: Optional[Identity]) -> None:
        source = self.plan.source.document()
        changed = ["name"] if now is None else identity.differences(source, now, UNCHANGED)
        if changed:
            raise source_changed(self.owner, self.path, changed)

    def _refuse_lost(self, lost: Sequence[str]) -> None:
        if lost:
            raise RefusedError(
                "metadata_lost",
                "the copy of {} would lose {}".format(self.path, ", ".join(lost)),
                "run the agent as root, or without --strict-metadata: what is lost is then listed in the answer. "
                "purge --incident {} {} throws the copies away".format(self.owner.incident, self.owner.directory),
            )
