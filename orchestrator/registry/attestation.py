"""Attestations: what a workflow attests of a version, and the check by `gh` that a repository's workflow published it."""

import hashlib
import re
import shutil
import subprocess
from pathlib import Path

from gpu_offload.errors import OffloadError, UsageError
from gpu_offload.orchestrator.output.console import plain
from gpu_offload.orchestrator.registry.manifest import Manifest, model_key, parse

TIMEOUT_S = 120
REPOSITORY = re.compile(r"(?=[^/]{1,39}/)[A-Za-z0-9]+(-[A-Za-z0-9]+)*/(?!\.{1,2}$)[A-Za-z0-9._-]{1,100}")
"""https://docs.github.com/en/get-started/learning-about-github/types-of-github-accounts; `.` and `..` are not allowed."""

REASON = 300
"""Characters that are quoted of the output of `gh`."""


class AttestationError(OffloadError):
    """A file was not attested by the repository that must have published it, or `gh` could not tell."""


class SignerError(AttestationError, UsageError):
    """The repository's name is not one that GitHub allows."""


def checksums(manifest: bytes) -> str:
    """Return the files of a version's manifest, as `sha256sum` prints them: what a workflow attests.

    The manifest comes first. It holds the sha256 of the model and its exports, the data, commit, cost and licence.
    """
    found = parse(Manifest, "manifest.json", manifest)
    files = {"manifest.json": hashlib.sha256(manifest).hexdigest()}
    files |= {file.name: file.sha256 for file in found.files}
    return "".join(f"{sha256}  {model_key(found.version, name)}\n" for name, sha256 in files.items())


def verify(path: Path, repository: str) -> None:
    """Check that a workflow of a repository (`OWNER/REPO`) attested the file.

    `gh` finds the attestation at GitHub by the file's sha256, and verifies signature and certificate:
    https://cli.github.com/manual/gh_attestation_verify. Raises SignerError: the name is none of a repository;
    AttestationError: there is no attestation, or `gh` gave no answer.
    """
    if not REPOSITORY.fullmatch(repository):
        raise SignerError(f"{plain(repository)!r} is not a repository at GitHub: write OWNER/REPO")
    gh = shutil.which("gh")
    if gh is None:
        raise AttestationError("gh verifies attestations and is not installed: https://cli.github.com")
    # Absolute, so that a file name that begins with a dash is not an option.
    command = [gh, "attestation", "verify", str(path.resolve()), "--repo", repository]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise AttestationError(f"gh gave no answer: {error}") from error
    if done.returncode != 0:
        said = " ".join(plain(done.stderr).split())[-REASON:]
        raise AttestationError(
            f"no workflow of {repository} is known to have published {path.name}: {said or 'gh gave no reason'}"
        )
