"""How fast a dataset is fingerprinted, as ratios against standard tools in the same run.

    python benchmarks/fingerprint.py            # about two minutes, 3 GB of temporary files
    python benchmarks/fingerprint.py --quick    # a tenth of the data, for a glance
    python benchmarks/fingerprint.py --million  # and the curve up to a million files

Each of ours runs in a process of its own and is timed inside it, from before `dataset` is imported to after the
fingerprint is there; the interpreter's own start (stated) is not counted, and neither is the other tool's.
"checks off" means `read_snapshot(check=False)`: names, splits and classes are checked, contents are hashed but not
looked into, as with the tools compared to. "checks on" also looks into every image and label.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

MEASURED = """
import sys, time
start = time.perf_counter()
import json, resource
from pathlib import Path
from gpu_offload.dataset.fingerprint import fingerprint
from gpu_offload.dataset.snapshot import read_snapshot
from gpu_offload.dataset.split import SplitRule
snapshot = read_snapshot(
    Path(sys.argv[1]), split=SplitRule(val=0.5),
    cache=Path(sys.argv[2]) if sys.argv[2] else None, check=sys.argv[3] == "on",
)
value = fingerprint(snapshot)
seconds = time.perf_counter() - start
peak = int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))) / 1024
usage = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({"user": usage.ru_utime, "read": usage.ru_inblock / 2048, "seconds": seconds, "peak": peak, "fingerprint": value, "images": len(snapshot.samples)}))
"""


def ours(dataset: Path, *, cache: Path | str = "", check: str = "off") -> dict[str, Any]:
    """Fingerprint in a fresh process: seconds, peak MB, fingerprint."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(dataset), str(cache), check],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def timed(command: list[str], **options: Any) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, **options)
    return time.perf_counter() - start


def best(measure: Callable[[], Any], rounds: int = 3) -> Any:
    """The fastest of a few rounds: the one least disturbed by other processes."""
    return min(
        (measure() for _ in range(rounds)), key=lambda got: got["seconds"] if isinstance(got, dict) else got
    )


def png(body: bytes, width: int = 100, height: int = 68) -> bytes:
    """A PNG that is whole, of about 20 kB, made without a decoder."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\x00\x00\x00"
    rows = b"".join(b"\x00" + body[i * 3 * width : (i + 1) * 3 * width] for i in range(height))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows, 0))
        + chunk(b"IEND", b"")
    )


def small(folder: Path, files: int) -> None:
    """`files` images of 20 kB in two class folders."""
    draw = random.Random(0)
    for name in ("one", "two"):
        (folder / name).mkdir(parents=True)
        for index in range(files // 2):
            (folder / name / f"{index:07d}.png").write_bytes(png(draw.randbytes(100 * 68 * 3)))


def large(folder: Path, gib: float) -> None:
    """Files of 32 MiB, no images, in two class folders."""
    block = random.Random(1).randbytes(1 << 24)
    for name in ("one", "two"):
        (folder / name).mkdir(parents=True)
        for index in range(int(gib * 16)):
            with (folder / name / f"{index:03d}.png").open("wb") as file:
                for turn in range(2):
                    file.write(f"{name}{index:07d}{turn:06d}".encode() + block[16:])


def tiny(folder: Path, files: int) -> None:
    """`files` files: half images of 100 bytes, half labels."""
    folder.mkdir(parents=True)
    body = bytes(100)
    for index in range(files // 2):
        with (folder / f"{index:07d}.png").open("wb") as file:
            file.write(index.to_bytes(8, "big") + body)
        with (folder / f"{index:07d}.txt").open("w") as file:
            file.write("0 0.5 0.5 0.2 0.2\n")


def row(name: str, mine: float, other: float, limit: float) -> bool:
    ratio = mine / other
    print(f"{name:<66} {mine:7.3f} s {other:7.3f} s {ratio:6.2f}x  (limit {limit}x)", flush=True)
    return ratio <= limit


def compare_large(work: Path, gib: float) -> bool:
    large(work / "large", gib)
    files = [str(path) for path in sorted((work / "large").rglob("*.png"))]
    subprocess.run(["cat", *files], stdout=subprocess.DEVNULL, check=True)
    theirs = best(lambda: timed(["sha256sum", *files]))
    mine = best(lambda: ours(work / "large"))
    good = row(f"{gib:g} GiB in files of 32 MiB, no stat cache / sha256sum", mine["seconds"], theirs, 1.15)
    print(f"    peak {mine['peak']:.0f} MB")
    shutil.rmtree(work / "large")
    return good


def compare_small(work: Path, files: int) -> bool:
    repository = work / "small"
    small(repository / "data", files)
    git = ["git", "-C", str(repository)]
    subprocess.run(["git", "init", "-q", str(repository)], check=True)
    names = "".join(
        f"{path.relative_to(repository)}\n" for path in sorted((repository / "data").rglob("*.png"))
    )
    theirs = best(lambda: timed([*git, "hash-object", "--stdin-paths"], input=names, text=True))
    off, on = (best(lambda check=check: ours(repository / "data", check=check)) for check in ("off", "on"))
    good = row(
        f"{files} files of 20 kB, no stat cache, checks off / git hash-object", off["seconds"], theirs, 1.5
    )
    good &= row(
        f"{files} files of 20 kB, no stat cache, checks on / git hash-object", on["seconds"], theirs, 1.5
    )
    print(f"    peak {off['peak']:.0f} and {on['peak']:.0f} MB")
    subprocess.run([*git, "add", "-A"], check=True)
    time.sleep(2.5)  # until no time stamp is racy, for git as for us
    timed([*git, "status", "--porcelain"])
    theirs = best(lambda: timed([*git, "status", "--porcelain"]), 5)
    cache = work / "cache"
    cold = ours(repository / "data", cache=cache, check="on")
    warm = best(lambda: ours(repository / "data", cache=cache, check="on"), 5)
    good &= row(f"{files} files, warm, checks on / git status", warm["seconds"], theirs, 10)
    print(f"    peak {warm['peak']:.0f} MB; cold with writing the cache {cold['seconds']:.3f} s")
    if cold["fingerprint"] != warm["fingerprint"] or cold["fingerprint"] != off["fingerprint"]:
        raise SystemExit("the fingerprints differ")
    shutil.rmtree(repository)
    return good


def curve(work: Path, counts: tuple[int, ...]) -> bool:
    """Time and memory against the number of files; where the disk has to read, it sets the wall time."""
    columns = ("files", "", "wall s", "user s", "user µs/file", "disk MB", "peak MB")
    print("\n" + " ".join(f"{column:>12}" for column in columns))
    highest = 0.0
    for count in counts:
        folder, cache = work / f"tiny{count}", work / f"cache{count}"
        tiny(folder, count)
        time.sleep(0.2)
        for name in ("cold", "warm"):
            got = ours(folder, cache=cache)
            highest = max(highest, got["peak"])
            each = got["user"] / count * 1e6
            numbers = [f"{got['seconds']:.2f}", f"{got['user']:.2f}", f"{each:.1f}", f"{got['read']:.0f}"]
            print(
                " ".join(f"{text:>12}" for text in [str(count), name, *numbers, f"{got['peak']:.0f}"]),
                flush=True,
            )
        shutil.rmtree(folder)
    return highest < 200


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the data")
    parser.add_argument("--million", action="store_true", help="extend the curve to a million files")
    parser.add_argument("--work", type=Path, help="where to put the temporary files")
    options = parser.parse_args()
    start = best(lambda: timed([sys.executable, "-c", "pass"]))
    print(f"{os.cpu_count()} processors, Python {sys.version.split()[0]}, interpreter start {start:.3f} s")
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        work = Path(folder)
        good = [
            compare_large(work, 0.25 if options.quick else 2),
            compare_small(work, 2_000 if options.quick else 20_000),
            curve(work, (1_000, 10_000, 100_000) + ((1_000_000,) if options.million else ())),
        ]
    print("\nall within their limits" if all(good) else "\nNOT within the limits")
    return 0 if all(good) else 1


if __name__ == "__main__":
    raise SystemExit(main())
