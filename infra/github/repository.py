"""The repository at GitHub behind a checkout: its name by the git remote, its numeric ids by GitHub's API."""

import json
import re
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

from gpu_offload.infra import http
from gpu_offload.infra.git import git_output

API = "https://api.github.com"
TIMEOUT_S = 10

REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,38}/[A-Za-z0-9._-]{1,100}")
"""ORG/REPO."""

REMOTE = re.compile(
    r"(?:(?:git\+)?(?:https?|ssh|git)://(?:[^@/]*@)?(?:www\.|ssh\.)?github\.com(?::\d+)?/|"
    r"(?:[^@/:]+@)?(?:ssh\.)?github\.com:/?)"
    r"(?P<owner>[A-Za-z0-9][A-Za-z0-9-]{0,38})/(?P<name>[A-Za-z0-9._-]{1,100}?)(?:\.git)?/?",
    re.IGNORECASE,
)
"""Addresses of a repository at GitHub that git and pip accept: https with or without a token, ssh by either port."""


def repository_of(folder: Path, environment: Mapping[str, str]) -> str | None:
    """Return ORG/REPO from the workflow's environment, else from a remote; None where neither names one."""
    return environment.get("GITHUB_REPOSITORY") or remote_of(folder)[1] or None


def remote_of(folder: Path) -> tuple[str, str]:
    """Return a remote's name and its ORG/REPO: of `origin`, else `upstream`, else the first at GitHub."""
    names = git_output(folder, "remote").splitlines()
    # A stable sort: the others stay in git's order.
    names.sort(key=lambda name: (name != "origin", name != "upstream"))
    found = [(name, from_remote(git_output(folder, "remote", "get-url", name)) or "") for name in names]
    at_github = [pair for pair in found if pair[1]]
    return next(iter(at_github or found), ("", ""))


def from_remote(url: str) -> str | None:
    """Return ORG/REPO of a remote's address at github.com; None for any other host.

    A GitHub Enterprise server counts as another host: the roles trust github.com's tokens, where a repository of the
    same name may belong to another owner.
    """
    found = REMOTE.fullmatch(url)
    return f"{found['owner']}/{found['name']}" if found else None


def numbers_of(repository: str, environment: Mapping[str, str]) -> tuple[int, int] | None:
    """Return the owner's and the repository's number: of the workflow's runner, or of GitHub's public API.

    None where GitHub does not answer, or says nothing of this repository (it is private, or misspelt).
    """
    # The runner knows the numbers of its own repository only, and may serve another one.
    owner, number = environment.get("GITHUB_REPOSITORY_OWNER_ID"), environment.get("GITHUB_REPOSITORY_ID")
    if (
        environment.get("GITHUB_REPOSITORY") == repository
        and (owner or "").isdecimal()
        and (number or "").isdecimal()
    ):
        return int(owner or 0), int(number or 0)
    try:
        found = described(f"repos/{repository}", environment)
        return (int(found["owner"]["id"]), int(found["id"])) if found else None
    except (KeyError, TypeError, ValueError):
        return None


def is_public(repository: str, environment: Mapping[str, str]) -> bool | None:
    """Return whether a repository is public, from GitHub's public API; None where GitHub does not answer."""
    found = described(f"repos/{repository}", environment)
    return None if found is None else found.get("private") is False


def described(path: str, environment: Mapping[str, str]) -> dict[str, Any] | None:
    """Return what GitHub's API shows without credentials at a path: nothing where there is nothing, None without an answer."""
    base = environment.get("GITHUB_API_URL") or API
    accept = {"Accept": "application/vnd.github+json"}
    try:
        with http.ask(f"{base}/{path}", headers=accept, timeout=TIMEOUT_S) as reply:
            found = json.loads(http.read(reply))
            return found if isinstance(found, dict) else None
    # 404 is what does not exist; other statuses, such as those of a rate limit, say nothing about it.
    except http.StatusError as error:
        return {} if error.status == HTTPStatus.NOT_FOUND else None
    except (http.HttpError, ValueError, RecursionError):
        return None


def commit_of(folder: Path) -> str | None:
    """Return the commit that is checked out, None outside a git repository."""
    return git_output(folder, "rev-parse", "--verify", "--quiet", "HEAD") or None
