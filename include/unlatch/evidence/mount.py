"""Is the volume mounted as the inventory says, with locks that reach the server?"""

from __future__ import annotations

from unlatch.evidence._answers import Check, Finding, clear, not_observed
from unlatch.models import VolumeKind
from unlatch.ports import Scene

# File systems that another machine may have mounted as well.
_SHARED = (
    "nfs",
    "cifs",
    "smb3",
    "ceph",
    "fuse.",
    "9p",
    "virtiofs",
    "gfs2",
    "ocfs2",
    "lustre",
    "gpfs",
    "glusterfs",
    "afs",
)


def _look(scene: Scene) -> Finding:
    datadir = scene.instance.datadir
    found = scene.agent.facts([datadir]).paths
    if not found:
        return not_observed(f"{datadir} is not there: is its volume mounted?")
    mount = found[0]
    kind, detail = mount.fstype, mount.as_dict()
    is_nfs = kind.startswith("nfs")
    if mount.local_lock not in {None, "", "none"}:
        return not_observed(
            f"{mount.mountpoint} is mounted with local locks ({mount.local_lock}): locks of others are not seen",
            **detail,
        )
    if scene.volume.kind is VolumeKind.LAB and kind.startswith(_SHARED):
        return not_observed(
            f"declared as lab but is {'NFS' if is_nfs else kind}: other machines may write to it", **detail
        )
    if scene.volume.kind is VolumeKind.NFS and not is_nfs:
        return not_observed(f"declared as nfs but {mount.mountpoint} is {kind}: is the volume mounted?", **detail)
    return clear(f"{mount.mountpoint} is mounted as declared ({kind})", **detail)


PLUGIN = Check("mount", _look)
