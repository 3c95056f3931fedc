"""Where an instance's files are: its absolute paths, mapped into a folder of its own. Standard library only."""

import re
import sys
from pathlib import Path

PRIVATE = (
    "/opt/gpu-offload",
    "/var/lib/gpu-offload",
    "/var/cache/gpu-offload",
    "/var/log/gpu-offload",
    "/run/gpu-offload",
    "/etc/gpu-offload",
    "/etc/systemd/system",
)
"""Below these an instance without a root of its own reads and writes in its folder; the rest is the machine's."""


class PathMap:
    """Rewrites the absolute paths in a text, so that what is written for `/opt/...` lands in `root/opt/...`.

    Paths of this machine's Python and of our package stay as they are: they are what the image has
    baked in. With `root` None nothing is rewritten: the instance has a file system of its own.
    """

    def __init__(self, root: Path | None, keep: tuple[str, ...] = ()) -> None:
        self.root = root
        package = str(Path(__file__).resolve().parents[2])
        kept = {
            *keep,
            sys.prefix,
            sys.base_prefix,
            sys.exec_prefix,
            package,
            str(Path(sys.executable).parent),
        }
        if root is not None:
            kept.add(str(root))
        # The longest first: a path is kept as a whole, not by a folder of it that is kept, too.
        stay = "|".join(sorted((re.escape(k) for k in kept if k != "/"), key=len, reverse=True))
        heads = "|".join(re.escape(p) for p in PRIVATE)
        self._pattern = re.compile(
            rf"(?<![\w./~}}-])(?!(?:{stay})(?![\w.-]))(?:{heads})(?=[/\s\"';:,)&|}}]|$)"
        )

    @property
    def pattern(self) -> str:
        """The regular expression that finds private paths, for the SSH session's own start."""
        return self._pattern.pattern

    def text(self, text: str) -> str:
        """Rewrite every private path in a text."""
        if self.root is None:
            return text
        return self._pattern.sub(lambda found: f"{self.root}{found[0]}", text)

    def path(self, path: str) -> Path:
        """Where an absolute path of the instance is on this machine; for writing, so outside PRIVATE too."""
        if self.root is None:
            return Path(path)
        mapped = self.text(path)
        return Path(mapped) if mapped != path else self.root / path.lstrip("/")
