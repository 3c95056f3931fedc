"""Reads an existing role's trust policy and finds its faults."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import unquote

import boto3

from gpu_offload.infra.account.site import AUDIENCE, ISSUER
from gpu_offload.infra.aws.client_config import make_client
from gpu_offload.infra.aws.error_codes import aws_errors


@dataclass(frozen=True, slots=True)
class Trust:
    """The subjects and audiences of GitHub's tokens that a role trusts."""

    subjects: tuple[str, ...]
    patterns: tuple[str, ...]
    """Subjects with wildcards."""
    audiences: tuple[str, ...]

    def admits(self, subject: str) -> bool:
        """Whether a token with this subject and AWS's audience is admitted."""
        return subject in self.subjects or any(fnmatchcase(subject, pattern) for pattern in self.patterns)


def trust_of(session: boto3.Session, role: str) -> Trust:
    """Read the trust policy of a role of the account, by its name or ARN. Raises CloudError."""
    with aws_errors(f"reading the role {role}"):
        client = make_client(session, "iam", session.region_name or "us-east-1", attempts=3, read_timeout=15)
        document: Any = client.get_role(RoleName=role.rsplit("/", 1)[-1])["Role"]["AssumeRolePolicyDocument"]
    return read_trust(json.loads(unquote(document)) if isinstance(document, str) else document)


def read_trust(document: Mapping[str, Any]) -> Trust:
    """Return the GitHub workflows that a trust policy admits.

    A statement without a condition on the subject admits every repository on GitHub: it counts as `*`.
    """
    subjects: list[str] = []
    patterns: list[str] = []
    audiences: list[str] = []
    for statement in listed(document.get("Statement", [])):
        actions = [action.lower() for action in listed(statement.get("Action", []))]
        principal = statement.get("Principal", {})
        federated = listed(principal.get("Federated", []) if isinstance(principal, Mapping) else principal)
        if (
            statement.get("Effect") != "Allow"
            or not any(fnmatchcase("sts:assumerolewithwebidentity", action) for action in actions)
            or not any(name == "*" or name.endswith(f"oidc-provider/{ISSUER}") for name in federated)
        ):
            continue
        found = False
        for operator, keys in statement.get("Condition", {}).items():
            if "Not" in operator:  # it excludes some, and admits all others
                continue
            for key, values in keys.items():
                if key.lower() == f"{ISSUER}:sub":
                    found = True
                    for value in listed(values):
                        wild = "Like" in operator and ("*" in value or "?" in value)
                        (patterns if wild else subjects).append(value)
                elif key.lower() == f"{ISSUER}:aud":
                    audiences += listed(values)
        if not found:
            patterns.append("*")
    return Trust(tuple(subjects), tuple(patterns), tuple(audiences))


def trust_faults(trust: Trust, classic: str, numeric: str | None) -> tuple[list[str], list[str]]:
    """Return the faults and the doubtful points of a trust policy.

    `classic` is the subject's beginning without numbers, `repo:ORG/REPO:`; `numeric` that with numbers, if known.
    """
    wrong: list[str] = []
    doubtful: list[str] = []
    if trust.audiences != (AUDIENCE,) * len(trust.audiences) or not trust.audiences:
        wrong.append(f"it does not insist on the audience {AUDIENCE}")
    # The second has this repository's name as its beginning, which a pattern with `*` may admit.
    strangers = ("repo:stranger/repository:ref:refs/heads/main", f"{classic[:-1]}-2:ref:refs/heads/main")
    if any(trust.admits(subject) for subject in strangers):
        wrong.append(f"it admits other repositories ({', '.join(trust.patterns)})")
    if any(trust.admits(f"{form}pull_request") for form in (classic, numeric) if form):
        wrong.append("it admits pull requests, forks' included")
    every = (*trust.subjects, *trust.patterns)
    ours = {form: any(text.startswith(form) for text in every) for form in (classic, numeric) if form}
    if not any(ours.values()):
        wrong.append(f"it does not admit {classic[5:-1]}, but {', '.join(every) or 'no subject'}")
    elif numeric is not None and not ours[numeric]:
        doubtful.append(
            f"it names the subject without numbers only ({classic}...): a repository created, renamed or "
            f"transferred since 15 July 2026 presents {numeric}..."
        )
    elif numeric is not None and not ours[classic]:
        doubtful.append(f"it names the subject with numbers only: an older repository presents {classic}...")
    if trust.patterns and not wrong:
        doubtful.append(f"it has a wildcard ({', '.join(trust.patterns)}): name the subjects whole")
    return wrong, doubtful


def listed(value: Any) -> list[Any]:
    """Return one value or several as a list."""
    return list(value) if isinstance(value, (list, tuple)) else [value]
