"""A user's repository whose workflows act runs, its logs, and stand-ins for what only GitHub has."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from clone_case import git
from local_http import LocalServer

from gpu_offload.orchestrator.github.pin import Pin

ROOT = Path(__file__).parents[1]
ACT = shutil.which("act", path=str(Path(sys.executable).parent)) or shutil.which("act")
PIN = Pin("acme/gpu-offload", "0123456789" * 4)
OURS = (
    "action.yml",
    "pyproject.toml",
    ".github",
    "requirements",
    "client",
    "errors",
    "dataset",
    "infra",
    "orchestrator",
    "remote_job",
)
LIMIT_S = 600
"""Of seconds for a workflow on a machine that has much else to do; alone it takes ten to forty."""

CONFIGURATION = """
[dataset]
path = "shapes"
classes = ["circle", "square", "triangle"]
[training]
epochs = 2
image-size = 64
batch = 8
hyperparameters = {{plots = false, workers = 0}}
[limits]
{limits}
[store]
url = "{store}"
"""

ARTIFACT = """
name: artifact
description: Stands in for GitHub's store of artifacts.
inputs:
  name: {description: of the artifact, default: ""}
  pattern: {description: of names, default: ""}
  merge-multiple: {description: not needed, default: ""}
  path: {description: the folder, required: true}
  compression-level: {description: not needed, default: ""}
  overwrite: {description: not needed, default: ""}
  if-no-files-found: {description: not needed, default: ""}
runs:
  using: composite
  steps:
    - shell: bash
      env: {NAME: "${{ inputs.name }}", PATTERN: "${{ inputs.pattern }}", FOLDER: "${{ inputs.path }}"}
      run: exec cp -rT <<copy>>
"""

ATTEST = """
name: attest
description: Stands in for the action that signs at Sigstore.
inputs:
  subject-checksums: {description: of the files, required: true}
runs:
  using: composite
  steps:
    - shell: bash
      env: {SUBJECTS: "${{ inputs.subject-checksums }}"}
      run: echo "$SUBJECTS" > "$ARTIFACTS/attested"
"""

PACE = "hyperparameters = {pace = 0.5}"
FAILING = """
def main(context):
    model = context.output / "model.bin"
    model.write_text("1")
    context.progress(epoch=1, batch=1, batches=1)
    context.epoch(1, metrics={"score": 0.5}, losses={"loss": 1.0})
    context.checkpoint(model, epochs_completed=1)
    raise RuntimeError("this camera is none of them")
"""

MOVING = """
import time
from gpu_offload.remote_job.entrypoint import Trained


def main(context):
    model = context.output / "model.bin"
    first = context.resume()
    if first is None:
        for batch in range(1, 4):
            time.sleep(0.2)
            context.progress(epoch=1, batch=batch, batches=1_000_000)  # two days an epoch
        while not context.interrupted():
            time.sleep(0.05)
        context.epoch(1, metrics={"score": 0.1}, losses={"loss": 1.0})
        model.write_text("epoch 1 on the runner")
        context.checkpoint(model, epochs_completed=1)
        return None
    model.write_text(first.read_text())
    for epoch in range(context.epochs_completed + 1, context.spec.epochs + 1):
        context.epoch(epoch, metrics={"score": 1.0}, losses={"loss": 1 / epoch})
    return Trained(model, {"score": 1.0})
"""

CHECKOUT = """
name: checkout
description: Stands in for the checkout of the action's own repository.
inputs:
  repository: {description: not needed, default: ""}
  ref: {description: not needed, default: ""}
  path: {description: where to, default: ""}
  persist-credentials: {description: not needed, default: ""}
runs:
  using: composite
  steps:
    - shell: bash
      env: {INTO: "${{ inputs.path }}"}
      run: exec cp -rl "$OURS_UNDER_TEST" "$GITHUB_WORKSPACE/$INTO"
"""


def commit(folder, message):
    if not (folder / ".git").exists():
        git(folder, "init", "-q", "-b", "main")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", message)


@dataclass
class Log:
    """What act told of a workflow's run."""

    code: int
    lines: list = field(default_factory=list)

    def of(self, job):
        return [line for line in self.lines if line.get("jobID") == job]

    def text(self, job):
        return "\n".join(line.get("msg", "").rstrip() for line in self.of(job))

    @property
    def jobs(self):
        """The jobs that ran, and how they ended."""
        ends = (line for line in self.lines if "jobResult" in line)
        return {line["jobID"]: line["jobResult"] for line in ends}

    def summary(self, job):
        """A job's summary, each step's once: act tells a composite's twice."""
        found = [line.get("content", "") for line in self.of(job) if line.get("command") == "summary"]
        return "\n".join(dict.fromkeys(found))

    def outputs(self, job):
        # The action runs once more in the same job, to clean up, and has nothing to say then.
        found = [line for line in self.of(job) if line.get("command") == "set-output" and line["arg"]]
        return {line["name"]: line["arg"] for line in found}

    def annotations(self, job, kind):
        return [line.get("arg", line["msg"]) for line in self.of(job) if line.get("command") == kind]


class TokenEndpoint(LocalServer):
    """Hands out identity tokens, as a runner does to a job that may have them, and counts who asks."""

    def __init__(self):
        self.asked = []

    def reply(self, request):
        self.asked.append(request.path)
        return 200, {"value": "header.payload.signature"}

    @property
    def environment(self):
        return {
            "ACTIONS_ID_TOKEN_REQUEST_URL": f"{self.url}/token?api-version=1",
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "the-runners-own-secret",
        }


@dataclass
class Repository:
    """A user's repository, and act to run its workflows."""

    folder: Path
    stands: Path
    environment: dict = field(default_factory=dict)
    gate: Path | None = None

    def command(self, event, *words):
        texts = "".join(
            (ROOT / f"{name}.yml").read_text()
            for name in (
                ".github/workflows/train-on-runner",
                ".github/workflows/keep",
                "orchestrator/github/templates/offload-train",
            )
        )
        pins = dict(re.findall(r"uses: actions/([a-z-]+)@([0-9a-f]{40})", texts))
        ours = [
            word
            for name, commit in pins.items()
            for word in (
                "--local-repository",
                f"actions/{name}@{commit}={self.stands / name.removesuffix('-artifact')}",
            )
        ]
        return [
            ACT, event, "--json", "-P", "ubuntu-latest=-self-hosted", "--no-cache-server",
            "--action-cache-path", str(self.folder.parent / "act"),
            "--local-repository", f"{PIN.repository}@{PIN.commit}={self.stands / 'ours'}",
            *ours, *words,
        ]  # fmt: skip

    def start(self, event, *words):
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "GITHUB_"))}
        artifacts = self.folder.parent / "artifacts"
        shutil.rmtree(artifacts, ignore_errors=True)  # each run has its own
        artifacts.mkdir()
        own = {
            "OURS_UNDER_TEST": str(self.stands / "ours"),
            "ARTIFACTS": str(artifacts),
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        return subprocess.Popen(
            self.command(event, *words),
            cwd=self.folder,
            env=kept | own | self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, event, workflow, *words):
        return self.finish(self.start(event, "-W", f".github/workflows/{workflow}.yml", *words))

    def finish(self, process, already=()):
        try:
            out, _ = process.communicate(timeout=LIMIT_S)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        log = Log(process.returncode)
        for line in [*already, *out.splitlines()]:
            with contextlib.suppress(ValueError):
                log.lines.append(json.loads(line))
        return log

    def until(self, process, pattern):
        """Read the log until a line matches; return what was read."""
        read = []
        for line in process.stdout:
            read.append(line)
            if re.search(pattern, line):
                return read
        raise AssertionError("act ended before:\n" + "".join(read)[-3000:])


def say_what_act_cannot(folder):
    """Say in the workflows where the packages are, and where the action comes from: act tells no called workflow."""
    for file in (folder / ".github/workflows").glob("*.yml"):
        given = f"    with:\n      python: {sys.prefix}\n      action-repository: {PIN.repository}\n"
        text = re.sub(r"(?m)^    with:\n", given, file.read_text())
        file.write_text(re.sub(r"(?m)(keep\.yml@.*\n)(?!    with)", rf"\1{given}", text))
