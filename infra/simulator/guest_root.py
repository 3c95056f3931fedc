"""A file system of an instance's own: an overlay over this machine's, in memory, gone with the instance."""

import ctypes
import os
from pathlib import Path

MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
SIZE = "8g"
"""Upper limit of what an instance may write."""
USER = "offload"


def _mount(source: str, target: str, kind: str | None, flags: int = 0, data: str | None = None) -> None:
    """mount(2). Raises OSError."""
    words = [word.encode() if word is not None else None for word in (source, target, kind)]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(*words, flags, data.encode() if data is not None else None):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)


def enter_own_root(folder: Path) -> None:
    """Move this process into a file system of its own, in which `folder` is the one shared place.

    Other file systems of this machine are there too, read-only: what the image has baked in may be on one.
    """
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    # Private first, or this machine would see the mounts that follow.
    _mount("none", "/", None, MS_REC | MS_PRIVATE)
    disk = folder / "disk"
    disk.mkdir(exist_ok=True)
    _mount("tmpfs", str(disk), "tmpfs", 0, f"size={SIZE},mode=755")
    for name in ("upper", "work", "root"):
        (disk / name).mkdir()
    root = disk / "root"
    data = f"lowerdir=/,upperdir={disk / 'upper'},workdir={disk / 'work'}"
    _mount("overlay", str(root), "overlay", 0, data)
    # An overlay shows one file system only: what is mounted below `/` is bound into it, outermost mounts first.
    top: list[str] = []
    for target in sorted({mount for mount in mounts if mount != "/"}):
        if not any(target.startswith(f"{above}/") for above in top):
            top.append(target)
    for target in top:
        inside = f"{root}{target}"
        if not os.path.exists(inside):  # noqa: PTH110  may be a file as well as a folder
            continue
        if target == "/proc":
            _mount("proc", inside, "proc")
            continue
        # A bind mount takes its read-only flag only when it is mounted again.
        _mount(target, inside, None, MS_BIND | MS_REC)
        if target not in {"/dev", "/sys"}:
            _mount("none", inside, None, MS_BIND | MS_REMOUNT | MS_RDONLY)
    _mount(str(folder), f"{root}{folder}", None, MS_BIND)
    os.chroot(root)
    os.chdir("/")
    for path, mode in (("/tmp", 0o1777), ("/run/sshd", 0o755), (f"/home/{USER}", 0o755)):  # noqa: S108  the instance's own
        Path(path).mkdir(parents=True, exist_ok=True)
        Path(path).chmod(mode)


def open_way(*paths: Path) -> bool:
    """Let every user of the instance get to these places, and say whether that is so now.

    On this machine they may be below a home folder that others cannot enter; the instance has folders of its own.
    """
    folders = {each for path in paths for where in (path, path.resolve()) for each in where.parents}
    for folder in folders:
        mode = folder.stat().st_mode
        if not mode & 0o001:
            try:
                folder.chmod(mode & 0o7777 | 0o011)
            except OSError:  # on a file system that is there read-only
                return False
    return True


def add_user(name: str, uid: int, shell: str = "/usr/sbin/nologin") -> None:
    """Add a user and a group of the same number, unless there is one."""
    for path, line in (
        (Path("/etc/passwd"), f"{name}:x:{uid}:{uid}::/home/{name}:{shell}\n"),
        (Path("/etc/group"), f"{name}:x:{uid}:\n"),
    ):
        text = path.read_text()
        if not any(each.startswith(f"{name}:") for each in text.splitlines()):
            path.write_text(text.rstrip("\n") + "\n" + line)
