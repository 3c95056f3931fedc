"""Time and memory that `offload check` takes for trees that cost little to write, worst first.

    python benchmarks/hostile_trees.py
    python benchmarks/hostile_trees.py --only coco --scale 0.1

Each tree of `tests/hostile_trees.py` is written to a temporary folder and checked in a process of its own. The exit code
is 1 where one exceeds a limit, or ends otherwise than with a verdict in words.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from hostile_trees import COMMANDS, MAKERS

SECONDS, MEBIBYTES = 20.0, 500
PATIENCE = 60
ROOM = 4 << 30
"""Bytes of address space, so that a bad tree does not take the machine down."""


@dataclass(frozen=True, order=True)
class Measured:
    """One check of one tree; processor time and wall time in seconds, peak memory in MiB."""

    seconds: float
    wall: float
    mebibytes: int
    name: str
    code: int
    words: str

    @property
    def is_bad(self) -> bool:
        spoiled = "Traceback" in self.words or self.code not in {0, 1, 2}
        return spoiled or self.seconds > SECONDS or self.mebibytes > MEBIBYTES


def limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (ROOM, ROOM))


def measure(name: str, scale: float) -> Measured:
    with tempfile.TemporaryDirectory(prefix="hostile-") as folder, tempfile.TemporaryFile() as output:
        root = Path(folder, "project")
        root.mkdir()
        subprocess.run(
            [sys.executable, "-P", __file__, "--write", name, "--scale", str(scale), "--into", str(root)],
            check=True,
        )
        before = time.monotonic()
        process = subprocess.Popen(
            [Path(sys.executable).parent / "offload", *COMMANDS.get(name, ["check"]), "-C", root],
            stdout=output,
            preexec_fn=limit_memory,  # noqa: PLW1509 - there are no threads
            stderr=subprocess.STDOUT,
            env={**os.environ, "XDG_STATE_HOME": f"{folder}/state", "XDG_CACHE_HOME": f"{folder}/cache"},
        )
        while time.monotonic() - before < PATIENCE:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            time.sleep(0.02)
        else:
            process.kill()
            _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - before
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        words = output.read(1 << 20).decode(errors="replace")
        subprocess.run(["rm", "-rf", root], check=True)  # deeper than shutil's recursion goes
    return Measured(
        round(usage.ru_utime + usage.ru_stime, 2),
        round(wall, 2),
        usage.ru_maxrss >> 10,
        name,
        process.returncode,
        words,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="", help="names that hold this text")
    parser.add_argument("--scale", type=float, default=1.0, help="1 is as large as a git repository may be")
    parser.add_argument("--show", action="store_true", help="print the beginning of what each check said")
    parser.add_argument("--write", help=argparse.SUPPRESS)
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write:
        MAKERS[options.write](options.into, options.scale)
        return 0
    results = []
    for name in MAKERS:
        if options.only in name:
            results.append(measure(name, options.scale))
            one = results[-1]
            mark = "!" if one.is_bad else " "
            print(
                f"{mark} {one.name:24} {one.seconds:7.2f} s {one.wall:7.2f} s {one.mebibytes:5} MiB  exit {one.code}",
                flush=True,
            )
            if options.show or one.is_bad:
                print("    " + "\n    ".join(line[:160] for line in one.words.splitlines()[:4]), flush=True)
    worst = max(results)
    print(
        f"{len(results)} trees; the slowest {worst.name}: {worst.seconds} s; most memory "
        f"{max(one.mebibytes for one in results)} MiB"
    )
    return int(any(one.is_bad for one in results))


if __name__ == "__main__":
    raise SystemExit(main())
