"""Writes the files by which a simulated machine's first process knows what it is."""

import json
import sys
from pathlib import Path
from typing import Any

from gpu_offload.infra.simulator.guest_processes import MARK
from gpu_offload.infra.simulator.hardware import Hardware
from gpu_offload.infra.simulator.isolation import SSH_USER, isolation, passwd

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def process_environment(folder: Path) -> dict[str, str]:
    """Return what every process of a machine gets; nothing of this process's environment leaks into it."""
    return {
        MARK: str(folder),
        "PATH": f"{folder}/bin:{Path(sys.executable).parent}:{SYSTEM_PATH}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "SHELL": "/bin/sh",
        "LANG": "C.UTF-8",
    }


def write_instance(
    hardware: Hardware,
    *,
    root: Path | None,
    ssh: tuple[str, int],
    metadata: tuple[str, int],
    metadata_url: str,
    use_sshd: bool,
) -> None:
    """Write `instance.json` and `passwd`, which `infra.simulator.guest` reads.

    `root` is the folder that absolute paths are mapped into; None for a file system of its own. `ssh` and `metadata`
    say where the two services listen.
    """
    folder, own = hardware.folder, isolation()
    if root is not None:
        root.mkdir(exist_ok=True)
    home = f"{root or ''}/home/{SSH_USER}"
    (folder / "passwd").write_text(passwd(home))
    environment = {
        **process_environment(folder),
        "HOME": home,
        "USER": own.user,
        "LOGNAME": own.user,
        "GPU_OFFLOAD_ROOT": str(root) if root else "/",
        "GPU_OFFLOAD_SHUTDOWN": f"{folder}/bin/shutdown",
        "GPU_OFFLOAD_POLL": "0.5",
        **({"GPU_OFFLOAD_SAME_USER": "1"} if root else {}),
        "AWS_ENDPOINT_URL": hardware.endpoint,
        **({"AWS_EC2_METADATA_SERVICE_ENDPOINT": metadata_url} if root else {}),
        **hardware.environment,
    }
    document: dict[str, Any] = {
        "instance_id": hardware.instance_id,
        "instance_type": hardware.instance_type,
        "ssh": ssh,
        "metadata": metadata,
        "root": str(root) if root else None,
        "passwd": own.users and root is not None,
        "sshd": own.sshd if use_sshd else None,
        "baked": dict(hardware.baked),
        "grace": hardware.grace,
        "environment": environment,
    }
    (folder / "instance.json").write_text(json.dumps(document))
