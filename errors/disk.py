"""Disks that are full, read-only or broken: an error of the machine, not of the program."""

import errno

from gpu_offload.errors import OffloadError

REMEDIES = {
    errno.ENOSPC: "make room on that disk",
    errno.EDQUOT: "make room within your quota",
    errno.EROFS: "write somewhere else, or mount it writable",
    errno.EACCES: "write somewhere else, or change who may write there",
    errno.EPERM: "write somewhere else, or change who may write there",
    errno.EIO: "look at the disk: the kernel's log says more",
    errno.EFBIG: "the file system allows no file of this size",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "close programs: the machine has too many files open",
}
"""Remedies by error number. Run the same command again afterwards: nothing is half written."""


class DiskError(OffloadError):
    """The operating system refused a file of this machine."""


def disk_error(error: OSError) -> DiskError | None:
    """Return an error with a remedy; None where the error number is not one of a disk."""
    if error.errno not in REMEDIES:
        return None
    where = f"{error.filename}: " if error.filename else ""
    return DiskError(f"{where}{error.strerror}; {REMEDIES[error.errno]}, then run the same command again")
