"""An SSH server on paramiko for machines without sshd: public keys and commands only, no forwarding, no terminal."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import paramiko

CHUNK = 65_536


class _Session(paramiko.ServerInterface):
    """One connection."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get_allowed_auths(self, username: str) -> str:  # noqa: ARG002  paramiko's signature
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:  # noqa: ARG002  the same
        """The keys in the user data may log in, under any user name, as with one user per instance."""
        for line in (self.folder / "ssh" / "authorized_keys").read_text().splitlines():
            words = line.split()
            if len(words) > 1 and words[0] == key.get_name() and words[1] == key.get_base64():
                return paramiko.common.AUTH_SUCCESSFUL
        return paramiko.common.AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:  # noqa: ARG002  the same
        ok, no = paramiko.common.OPEN_SUCCEEDED, paramiko.common.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED
        return ok if kind == "session" else no

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        threading.Thread(target=_run, args=(self.folder, channel, command.decode()), daemon=True).start()
        return True

    def check_channel_shell_request(self, channel: paramiko.Channel) -> bool:
        threading.Thread(target=_run, args=(self.folder, channel, ""), daemon=True).start()
        return True


def _run(folder: Path, channel: paramiko.Channel, command: str) -> None:
    """Run a command as sshd would: its own session, its streams on the channel, its exit code at the end."""
    environment: dict[str, str] = json.loads((folder / "session.json").read_text())["environment"]
    script = Path(__file__).with_name("session.py")
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", str(script), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # By the name that sshd gives it, so that the same script serves both.
        env=environment | {"SSH_ORIGINAL_COMMAND": command},
        start_new_session=True,
    )
    streams: list[tuple[Any, Any]] = [
        (process.stdout, channel.sendall),
        (process.stderr, channel.sendall_stderr),
    ]
    pumps = [threading.Thread(target=_pump, args=pair, daemon=True) for pair in streams]
    for pump in pumps:
        pump.start()
    threading.Thread(target=_feed, args=(channel, process), daemon=True).start()
    code = process.wait()
    for pump in pumps:
        # A process that the command left behind may hold the streams open: sshd does not wait for it either.
        pump.join(timeout=1.0)
    with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
        channel.send_exit_status(code if code >= 0 else 128 - code)
        channel.close()


def _pump(source: Any, send: Any) -> None:
    with contextlib.suppress(OSError, EOFError):
        while data := source.read1(CHUNK):
            send(data)


def _feed(channel: paramiko.Channel, process: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(OSError, EOFError):
        while data := channel.recv(CHUNK):
            if process.stdin:
                process.stdin.write(data)
                process.stdin.flush()
    with contextlib.suppress(OSError):
        if process.stdin:
            process.stdin.close()


def _serve(folder: Path, client: socket.socket, keys: list[paramiko.PKey]) -> None:
    transport = paramiko.Transport(client)
    for key in keys:
        transport.add_server_key(key)
    try:
        transport.start_server(server=_Session(folder))
        transport.join()
    except (paramiko.SSHException, EOFError, OSError):
        pass  # a port scan, or a client that gave up
    finally:
        transport.close()


def main() -> None:
    """Serve until killed."""
    folder = Path(sys.argv[1])
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    address, port = json.loads((folder / "instance.json").read_text())["ssh"]
    keys: list[paramiko.PKey] = []
    for name, kind in (
        ("ed25519", paramiko.Ed25519Key),
        ("ecdsa", paramiko.ECDSAKey),
        ("rsa", paramiko.RSAKey),
    ):
        path = folder / "ssh" / f"ssh_host_{name}_key"
        if path.exists():
            keys.append(kind(filename=str(path)))
    with socket.create_server((address, port), backlog=64) as listener:
        os.write(1, b"listening\n")
        while True:
            client, _ = listener.accept()
            threading.Thread(target=_serve, args=(folder, client, keys), daemon=True).start()


if __name__ == "__main__":
    main()
