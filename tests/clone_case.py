"""A project with training code of its own, its clones in git, and the `offload` command in one of them."""

import json
import subprocess
from subprocess import CompletedProcess

from commands import run, start

from gpu_offload.dataset.synthetic import generate

TRAINING = '''
from gpu_offload.remote_job.entrypoint import Trained


def main(context):
    """Write which file trained."""
    for epoch in range(context.epochs_completed + 1, context.spec.epochs + 1):
        context.epoch(epoch, metrics={"score": 1.0}, losses={"loss": 0.0})
    model = context.output / "model.bin"
    model.write_text(f"trained by {__file__}")
    return Trained(model, {"score": 1.0})
'''


def own_training(epochs, training="", more=""):
    """Return the configuration of a project whose code `mine.py` trains; `training` has more settings of it."""
    dataset = 'path = "shapes"\nclasses = ["circle", "square", "triangle"]\n'
    return f'[dataset]\n{dataset}[training]\nentrypoint = "mine:main"\nepochs = {epochs}\n{training}{more}'


CONFIGURATION = own_training(1)

IDENTITY = (
    "-c", "user.name=Mallory", "-c", "user.email=mallory@example.org", "-c", "init.defaultBranch=main"
)  # fmt: skip


def git(folder, *words):
    done = subprocess.run(
        ["git", "-C", str(folder), *IDENTITY, *words], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def commit(folder, message, *, force=()):
    git(folder, "add", "--all")
    for path in force:
        git(folder, "add", "--force", path)
    git(folder, "commit", "--quiet", "--allow-empty", "--message", message)


def clone(source, target):
    git(source, "clone", "--quiet", str(source), str(target))
    return target


def honest_repository(folder, *, configuration=CONFIGURATION):
    """Make a repository with a dataset and a training that needs no torch."""
    folder.mkdir()
    generate(folder / "shapes", images=8, size=64)
    (folder / "mine.py").write_text(TRAINING)
    (folder / "offload.toml").write_text(configuration)
    git(folder, "init", "--quiet", "--initial-branch", "main")
    commit(folder, "A dataset and its training")
    return folder


def offload(folder, *arguments, **environment):
    """Run `offload`; with an environment of its own as a process, for what a process looks up once."""
    if environment:
        process = start(folder, *arguments, environment=environment)
        out, err = process.communicate(timeout=120)
        return CompletedProcess(arguments, process.returncode, out, err)
    return CompletedProcess(arguments, *run(folder, *arguments))


def answer(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
