"""The document in a state folder that names its project."""

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from gpu_offload.remote_job.files import durable

OWNER = "project.json"


@dataclass(frozen=True, slots=True)
class Owner:
    """A project: its path, and device and inode of its folder, which a rename keeps."""

    path: Path
    device: int
    inode: int

    @classmethod
    def of(cls, project: Path) -> "Owner":
        """Return a project that is there. Raises OSError."""
        real = Path(os.path.realpath(project))
        found = real.stat()
        return cls(real, found.st_dev, found.st_ino)

    def is_renamed(self, former: "Owner") -> bool:
        """Whether this is the same folder under another name."""
        return self.path != former.path and (self.device, self.inode) == (former.device, former.inode)


def record_owner(state: Path, project: Path) -> None:
    """Record the project of a state folder, and that it is used now; what cannot be written is left to other commands to report."""
    with contextlib.suppress(OSError):
        owner, path = Owner.of(project), state / OWNER
        if read_owner(state) == owner:
            os.utime(path)
            return
        text = json.dumps({"path": str(owner.path), "device": owner.device, "inode": owner.inode})
        # Not forced to the disk: the next command writes it again if it is lost.
        durable.write(path, text.encode(), durable=False)


def read_owner(state: Path) -> Owner | None:
    """Return the project of a state folder, None where it is not known."""
    path = state / OWNER
    try:
        told = json.loads(path.read_bytes()) if not path.is_symlink() else {}
        return Owner(Path(str(told["path"])), int(told["device"]), int(told["inode"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
