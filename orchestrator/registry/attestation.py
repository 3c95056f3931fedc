"""What a workflow attests of a version, and the check by GitHub's own client that a repository's workflow published it."""

import hashlib
import re
import shutil
import subprocess
from pathlib import Path

from gpu_offload.errors import EXIT_USAGE, OffloadError
from gpu_offload.orchestrator.output.console import plain
from gpu_offload.orchestrator.registry.manifest import Manifest, model_key, parse

TIMEOUT_S = 120
REPOSITORY = re.compile(r"(?=[^/]{1,39}/)[A-Za-z0-9]+(-[A-Za-z0-9]+)*/(?!\.{1,2}$)[A-Za-z0-9._-]{1,100}")
"""https://docs.github.com/en/get-started/learning-about-github/types-of-github-accounts; `.` and `..` are no repositories."""

REASON = 300
"""Characters of what `gh` says."""


class AttestationError(OffloadError):
    """A file was not attested by the repository that must have published it, or this cannot be found out here."""


class SignerError(AttestationError):
    """A repository's name is not one of GitHub's."""

    exit_code = EXIT_USAGE


def checksums(manifest: bytes) -> str:
    """Return a version's files by its manifest, as `sha256sum` prints them: what a workflow attests.

    The manifest is the first: it has the sha256 of the model and its exports, data, commit, cost and licence.
    """
    found = parse(Manifest, "manifest.json", manifest)
    files = {"manifest.json": hashlib.sha256(manifest).hexdigest()}
    files |= {file.name: file.sha256 for file in found.files}
    return "".join(f"{sha256}  {model_key(found.version, name)}\n" for name, sha256 in files.items())


def verify(path: Path, repository: str) -> None:
    """Return only if a workflow of a repository (`OWNER/REPO`) attested the file.

    `gh` finds the attestation at GitHub by the file's sha256, and verifies signature and certificate:
    https://cli.github.com/manual/gh_attestation_verify. Raises SignerError: no repository's name; AttestationError: no
    attestation, or `gh` gave no answer.
    """
    if not REPOSITORY.fullmatch(repository):
        raise SignerError(f"{plain(repository)!r} is not a repository at GitHub: write OWNER/REPO")
    gh = shutil.which("gh")
    if gh is None:
        raise AttestationError("gh verifies attestations and is not installed: https://cli.github.com")
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
