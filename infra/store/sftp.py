"""SFTP for a store: fsspec's file system, with host keys that are known before."""

from pathlib import Path
from typing import Any

import paramiko
from fsspec.implementations.sftp import SFTPFileSystem

from gpu_offload.infra.store.errors import StoreDeniedError, StoreUnreachableError

TIMEOUT_S = 20.0
SILENCE_S = 60.0
"""Seconds that the server may take for one answer. SFTP itself waits for ever, also after a silent cut."""


class PinnedSftp(SFTPFileSystem):  # type: ignore[misc]  # fsspec is not typed
    """Connects only to a host whose key is in `~/.ssh/known_hosts`, as the user of `ssh` expects.

    Keys come from the agent and from `~/.ssh`; passwords are not asked for. A connection is not shared between stores.
    """

    cachable = False

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        """Open a file; its parts are asked for, or sent, without waiting for each answer."""
        file = super()._open(path, mode=mode, **options)
        if "r" in mode:
            file.prefetch()
        else:
            file.set_pipelined(True)
        return file

    def _connect(self) -> None:
        # Instead of fsspec's own connection, which trusts any host key and has no time-outs.
        self.client = paramiko.SSHClient()
        self.client.load_system_host_keys()
        known = Path("~/.ssh/known_hosts").expanduser()
        if known.is_file():
            self.client.load_host_keys(str(known))
        self.client.set_missing_host_key_policy(paramiko.RejectPolicy())
        place = f"sftp://{self.host}:{self.ssh_kwargs.get('port', 22)}"
        try:
            self.client.connect(self.host, timeout=TIMEOUT_S, auth_timeout=TIMEOUT_S, **self.ssh_kwargs)
            self.ftp = self.client.open_sftp()
            if channel := self.ftp.get_channel():
                channel.settimeout(SILENCE_S)
        except paramiko.AuthenticationException as error:
            raise StoreDeniedError(
                f"{place}: {error}: add the key of this user to authorized_keys there"
            ) from error
        except paramiko.SSHException as error:
            remedy = "put its host key into ~/.ssh/known_hosts (`ssh-keyscan`, after you compared it)"
            raise StoreUnreachableError(f"{place}: {error}; {remedy}") from error
        except OSError as error:
            raise StoreUnreachableError(f"{place}: {error}; check that the server is up") from error
