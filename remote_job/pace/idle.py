"""How idle the machine's cores were."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Idle:
    """How long the machine's cores were idle since it started, and how long they could have been; in ticks."""

    idle: int
    total: int
    cores: int

    def since(self, earlier: "Idle") -> float:
        """Return how many cores were idle between two readings."""
        total = self.total - earlier.total
        return (self.idle - earlier.idle) / total * self.cores if total > 0 else 0.0


def idle(path: Path = Path("/proc/stat")) -> Idle:
    """Read it; zeros where the system does not say. https://docs.kernel.org/filesystems/proc.html#miscellaneous-kernel-statistics-in-proc-stat"""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
        ticks = [int(word) for word in lines[0].split()[1:9]]
    except (OSError, ValueError, IndexError):
        return Idle(0, 0, 0)
    cores = sum(line.startswith("cpu") for line in lines) - 1
    return Idle(ticks[3] + ticks[4], sum(ticks), cores)
