"""Runs an SSH session's command with the instance's environment and paths. Standard library only: starts fast."""

import json
import os
import re
import resource
import sys
from pathlib import Path

KEPT = ("SSH_CONNECTION", "SSH_CLIENT", "SSH_TTY", "TERM")


def main() -> None:
    """Become the command that the client sent."""
    document = json.loads((Path(sys.argv[1]) / "session.json").read_text())
    environment: dict[str, str] = document["environment"]
    environment |= {name: os.environ[name] for name in KEPT if name in os.environ}
    command = os.environ.get("SSH_ORIGINAL_COMMAND", "")
    if document["root"]:
        command = re.sub(document["pattern"], lambda found: document["root"] + found[0], command)
    if Path(document["disk_marker"]).exists():
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    os.chdir(environment["HOME"])  # as sshd does
    shell = environment["SHELL"]
    words = [shell, "-c", command] if command else [shell, "-l"]
    os.execve(shell, words, environment)  # noqa: S606  the whole point


if __name__ == "__main__":
    main()
