"""An instance's user data: a cloud-config that arms the power-off, plants the host key and makes the users."""

import json
from typing import Any

from gpu_offload.errors import OffloadError
from gpu_offload.infra.instance import script
from gpu_offload.infra.ssh.key import HostKey, PublicKey

LIMIT = 16_384
"""Bytes of user data that EC2 takes, before base64."""

SSH_USER = "offload"
TRAINER_UID = 64_001
"""The user that runs the training. A number, because firewall rules need it before users exist."""
UPLOADER_UID = 64_002
"""The user that talks to the store, the only one that uses the instance's role."""

LIFETIME_SLACK_S = 300
"""Seconds added to the time limit since boot, which guards against a wrong clock."""

READY = "/var/lib/gpu-offload/ready"
"""Exists once all of the user data was processed, in this boot or an earlier one."""


class UserDataTooLargeError(OffloadError, ValueError):
    """EC2 would refuse it."""


def user_data(
    *,
    deadline: float,
    launched: float,
    host_key: HostKey,
    client_key: PublicKey,
    start_within: float = 1_800.0,
    ssh_user: str = SSH_USER,
) -> str:
    """Return the `#cloud-config` of an instance.

    The document is JSON after its first line, which is YAML too, so that neither side needs a YAML library. It holds
    one secret, the host key, which the instance can read: metadata answers only to tokens over one hop, and the user
    that trains cannot reach the address. Modules: https://docs.cloud-init.io/en/latest/reference/modules.html

    Args:
        deadline: Unix time at which the instance powers itself off, in this boot or any later one.
        launched: Unix time of the launch; `deadline - launched` also limits the time since boot.
        host_key: the only host key of the instance's SSH server.
        client_key: the key that can log in.
        start_within: seconds since boot in which a job must be started, or the instance powers itself off.
        ssh_user: the login user; can become root.

    Raises:
        UserDataTooLargeError: the document has more than 16,384 bytes.
    """
    # Shells compare whole numbers.
    limits = (int(deadline), int(deadline - launched) + LIFETIME_SLACK_S, int(start_within))
    text = "#cloud-config\n" + json.dumps(_document(limits, host_key, client_key, ssh_user), indent=1) + "\n"
    if (size := len(text.encode())) > LIMIT:
        raise UserDataTooLargeError(f"user data of {size} bytes; EC2 takes {LIMIT}")
    return text


def _document(
    limits: tuple[int, int, int], host_key: HostKey, client_key: PublicKey, ssh_user: str
) -> dict[str, Any]:
    return {
        # First, on every boot: cloud-init runs this before keys and users.
        "bootcmd": [
            ["sh", "-c", 'sh -c "$1" gpu-offload-dead-man arm "$@"', "sh", script("dead_man.sh"),
             *map(str, limits)],
            ["sh", "-c", script("block_metadata.sh"), "gpu-offload-block-metadata", str(TRAINER_UID)],
        ],
        # Without the keys of the image's build: the only one is the planted key, which the driver has pinned.
        "ssh_deletekeys": True,
        "ssh_keys": {"ed25519_private": host_key.private, "ed25519_public": str(host_key.public)},
        "ssh_pwauth": False,
        "disable_root": True,
        "users": [
            {
                "name": ssh_user,
                "shell": "/bin/sh",
                "lock_passwd": True,
                "sudo": "ALL=(ALL) NOPASSWD:ALL",
                "ssh_authorized_keys": [str(client_key)],
            },
            # No shell and no home: they run only jobs, which give them folders.
            _service_user("offload-trainer", TRAINER_UID),
            _service_user("offload-uploader", UPLOADER_UID),
        ],
        # The driver waits, and pays, for what happens before `runcmd`.
        "package_update": False,
        "package_upgrade": False,
        "runcmd": [["sh", "-c", FINISH, "gpu-offload-finish"]],
    }  # fmt: skip


FINISH = """\
root=${GPU_OFFLOAD_ROOT:-}
root=${root%/}
if [ -z "${GPU_OFFLOAD_ROOT+set}" ]; then
    # An update of the driver under a running training ends it.
    systemctl disable --now unattended-upgrades.service apt-daily.timer apt-daily-upgrade.timer 2>/dev/null
fi
mkdir -p "$root/var/lib/gpu-offload" && : >"$root/var/lib/gpu-offload/ready"
"""


def _service_user(name: str, uid: int) -> dict[str, Any]:
    return {
        "name": name,
        "uid": uid,
        "system": True,
        "no_create_home": True,
        "lock_passwd": True,
        "shell": "/usr/sbin/nologin",
    }
