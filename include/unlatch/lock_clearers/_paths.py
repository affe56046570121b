"""Names of files on the NAS and on the guest."""

from __future__ import annotations

from pathlib import PurePosixPath

from unlatch.errors import ConfigError
from unlatch.models import Volume


def exported(volume: Volume) -> PurePosixPath:
    """The directory on the NAS that is mounted at the volume's path.

    Raises:
        ConfigError: the inventory does not say.
    """
    if volume.nas.export is None:
        raise ConfigError(
            f"The inventory does not say which directory of {volume.server} is the volume {volume.name}.",
            next_step=f"add volumes.{volume.name}.nas.export: what follows the colon in the mount's source.",
        )
    return volume.nas.export


def as_guest_sees(volume: Volume, path: str | None) -> PurePosixPath | None:
    """The guest's name of a file that the NAS names; None for none, and for one outside what the guest mounts."""
    export = volume.nas.export
    if not path or not path.startswith("/") or export is None:
        return None
    named = PurePosixPath(path)
    if ".." in named.parts or not named.is_relative_to(export):
        return None
    return volume.path / named.relative_to(export)
