"""Whom a role's trust policy lets in."""

import pytest
from policy_case import SITE, policy

from gpu_offload.infra.account.role_trust import read_trust, trust_faults

CLASSIC, NUMERIC = "repo:octo-org/octo-repo:", "repo:octo-org@123456/octo-repo@456789:"


def trust(*subjects, operator="StringEquals", aud="sts.amazonaws.com"):
    issuer = "token.actions.githubusercontent.com"
    condition = {operator: {f"{issuer}:sub": list(subjects)}} if subjects else {}
    if aud:
        condition.setdefault("StringEquals", {})[f"{issuer}:aud"] = aud
    return {
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Federated": f"arn:aws:iam::1:oidc-provider/{issuer}"},
                "Action": "sts:AssumeRoleWithWebIdentity",
                "Condition": condition,
            }
        ]
    }


def anyone(document):
    document["Statement"][0]["Principal"] = "*"
    return document


TRUSTS = {
    "ours": (policy(SITE, "publisher-trust"), "", ""),
    "names only": (trust(f"{CLASSIC}environment:gpu"), "", "without numbers only"),
    "numbers only": (trust(f"{NUMERIC}environment:gpu"), "", "with numbers only"),
    "another repository": (trust("repo:a/b:environment:gpu"), "does not admit octo-org/octo-repo", ""),
    "no subject": (trust(), "admits other repositories", ""),
    "every repository": (trust("repo:*", operator="StringLike"), "admits other repositories", ""),
    "the whole organisation": (
        trust("repo:octo-org/*", operator="StringLike"),
        "admits other repositories",
        "",
    ),
    "pull requests by wildcard": (
        trust(f"{CLASSIC}*", operator="StringLike"),
        "admits pull requests",
        "without numbers only",
    ),
    "pull requests by name": (
        trust(f"{CLASSIC}pull_request"),
        "admits pull requests",
        "without numbers only",
    ),
    "a wildcard for branches": (
        trust(f"{CLASSIC}ref:refs/heads/*", f"{NUMERIC}ref:refs/heads/*", operator="StringLike"),
        "",
        "has a wildcard",
    ),
    "any audience": (
        trust(f"{CLASSIC}environment:gpu", aud=None),
        "insist on the audience",
        "without numbers only",
    ),
    "another audience": (
        trust(f"{CLASSIC}environment:gpu", aud="x"),
        "insist on the audience",
        "without numbers only",
    ),
    "every principal": (anyone(trust(f"{CLASSIC}environment:gpu")), "", "without numbers only"),
    "every principal, of any subject": (anyone(trust()), "admits other repositories", ""),
    "all but one repository": (
        trust("repo:a/b:*", operator="StringNotLike"),
        "admits other repositories",
        "",
    ),
    "no statement": ({"Statement": []}, "no subject", ""),
}


@pytest.mark.parametrize("case", TRUSTS)
def test_a_trust_policy_is_judged_by_the_subjects_that_it_admits(case):
    document, wrong, doubtful = TRUSTS[case]
    faults, doubts = trust_faults(read_trust(document), CLASSIC, NUMERIC)
    assert (wrong in "; ".join(faults)) if wrong else faults == []
    assert (doubtful in "; ".join(doubts)) if doubtful else doubts == []
