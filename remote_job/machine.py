"""What the machine is: for the result, the heartbeat and the validity of a calibration."""

import os
import platform
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from gpu_offload.remote_job.speed.capacity import capacity, cpu_quota


def processor() -> str:
    """Return the processor's name."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def memory() -> int:
    """Return the machine's memory in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def name(device: str = "cpu") -> str:
    """Return one line that says what machine this is; a calibration holds for machines with the same line."""
    count = cores()
    line = f"{processor()}, {count} core{'' if count == 1 else 's'}, {memory() / 2**30:.0f} GiB"
    return line if device == "cpu" else f"{line}, {device}"


def has_device(device: str) -> bool:
    """Return whether this machine may have a device, without importing torch."""
    if device == "mps":
        return platform.system() == "Darwin"
    return device in {"auto", "cpu"} or driver() is not None


def has_gpu(count: int, device: str) -> bool:
    """Return whether a machine with this many GPUs, rented for them, would compute on one with this setting."""
    _, _, index = device.partition(":")
    index = index or (device if device.isdigit() else "0")
    return device not in {"cpu", "mps"} and int(index) < count


def driver() -> str | None:
    """Return the NVIDIA driver's version, None without one."""
    versions = _nvidia("driver_version")
    return versions[0][0] if versions else None


def gpu(device: str) -> tuple[str, float] | None:
    """Return name and memory in GiB of the GPU that a training would use with this setting, None without one.

    Does not import torch, whose build for CPUs uses none.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not has_gpu(sys.maxsize, device) or visible in {"", "-1"}:
        return None
    try:
        if metadata.version("torch").endswith("+cpu"):
            return None
    except metadata.PackageNotFoundError:
        return None
    found = _nvidia("name,memory.total", "nounits")
    _, _, index = device.partition(":")
    number = int(index or (device if device.isdigit() else "0"))
    # CUDA numbers only the GPUs that this variable lists, in its order; it may also hold UUIDs, which are not resolved.
    order = visible.split(",") if visible else [str(i) for i in range(len(found))]
    if not (number < len(order) and order[number].isdigit() and int(order[number]) < len(found)):
        return None
    name, mebibytes = found[int(order[number])]
    # A GPU that shares the machine's memory, such as NVIDIA's GB10, answers [N/A].
    return name, float(mebibytes) / 1024 if mebibytes.isdigit() else memory() / 2**30


def _nvidia(query: str, *options: str) -> list[list[str]]:
    """Ask the driver; one list of fields for each GPU, none without a driver."""
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", f"--query-gpu={query}", f"--format={','.join(('csv', 'noheader', *options))}"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [
        [field.strip() for field in line.split(",")] for line in answer.stdout.splitlines() if line.strip()
    ]


def interpreter() -> dict[str, Any]:
    """Return the part of the environment that is known without torch."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor(),
        "cores": cores(),
        "memory_bytes": memory(),
    }


def facts() -> dict[str, Any]:
    """Return the environment of a training, as it goes into the result. Imports torch and Ultralytics."""
    import torch
    import torchvision
    import ultralytics

    result = interpreter() | {
        "torch": str(torch.__version__),
        "torchvision": str(torchvision.__version__),
        "ultralytics": ultralytics.__version__,
        "threads": torch.get_num_threads(),
    }
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        result |= {
            "gpu": properties.name,
            "gpu_memory_bytes": properties.total_memory,
            "cuda": torch.version.cuda,
            "driver": driver(),
        }
    return result


def device_check() -> dict[str, Any]:
    """Return what device a training would use, after an operation on it succeeded.

    A driver that answers `nvidia-smi` may still not run a kernel that this torch was built with: only a kernel
    proves it.
    """
    import torch

    if not torch.cuda.is_available():
        return {"device": "cpu", "ok": True, "processor": processor(), "cores": cores(), "driver": driver()}
    result: dict[str, Any] = {"device": "cuda", "driver": driver(), "cuda": torch.version.cuda}
    try:
        result["gpu"] = torch.cuda.get_device_name(0)
        left = torch.ones(256, 256, device="cuda", dtype=torch.float16)
        convolved = torch.nn.functional.conv2d(left[None, None], left[None, None, :3, :3])
        right = float((left @ left).float().sum()) + float(convolved.float().sum())
        torch.cuda.synchronize()
        result["ok"] = right == 256.0**3 + 9.0 * 254 * 254
        result["error"] = None if result["ok"] else f"a matrix product and a convolution summed to {right}"
    except RuntimeError as error:
        result |= {"ok": False, "error": str(error).splitlines()[0]}
    return result


def instruction_sets() -> frozenset[str]:
    """Return which of the instruction sets that decide how fast a convolution is the processor has."""
    return capacity().instruction_sets


def cores() -> int:
    """Return how many processors this process may use (a container's or taskset's share, not the machine's)."""
    return capacity().cores


def core_part() -> float:
    """Return what part of a core's time a container's quota leaves, 1.0 where it leaves at least one."""
    return min(1.0, cpu_quota() or 1.0)
