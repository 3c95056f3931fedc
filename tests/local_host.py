"""This machine in the place of an SSH host, for tests of what runs there."""

import os
import subprocess

from gpu_offload.infra.ssh.errors import CommandFailedError, Completed


class LocalHost:
    """Runs commands through `sh` in a folder, with these variables added to the environment."""

    name = "this machine"

    def __init__(self, environment, folder):
        self.environment, self.folder = {**os.environ, **environment}, folder

    def run(self, command, *, timeout, check=True, stdin=b""):
        words = (
            ["/bin/sh", "-c", command]
            if isinstance(command, str)
            else ["/bin/sh", "-c", '"$@"', "sh", *command]
        )
        done = subprocess.run(
            words,
            input=stdin,
            timeout=timeout,
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            check=False,
        )
        completed = Completed(done.returncode, done.stdout, done.stderr)
        if check and completed.exit_code != 0:
            raise CommandFailedError(self.name, str(command), completed)
        return completed
