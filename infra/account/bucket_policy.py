"""Statements of the bucket's own policy: public reads, and what is denied to everyone."""

from gpu_offload.infra.account.bucket import ONCE, PUBLIC
from gpu_offload.infra.account.site import Site
from gpu_offload.infra.account.statement import Statement

LISTING = "https://docs.aws.amazon.com/AmazonS3/latest/userguide/amazon-s3-policy-keys.html"
ARTICLE = "https://docs.aws.amazon.com/AmazonS3/latest/userguide/example-bucket-policies.html"


def bucket_statements(site: Site, *, plain_public: bool = False) -> tuple[Statement, ...]:
    """Return the statements of the bucket's policy. Its denials apply to administrators, too."""
    return (
        *(_everything(site) if plain_public else _models(site)),
        Statement(
            "EncryptedTransportOnly",
            "Every request must be encrypted in transit.",
            ARTICLE,
            ("s3:*",),
            (site.bucket_arn, f"{site.bucket_arn}/*"),
            {"Bool": {"aws:SecureTransport": "false"}},
            effect="Deny",
            principal="*",
        ),
        Statement(
            "ModelsAreWrittenOnce",
            "A published version never changes, for any caller: every write below models/ must carry If-None-Match. "
            "Aliases move, versions do not.",
            ONCE,
            ("s3:PutObject",),
            site.objects("models/*"),
            {"Null": {"s3:if-none-match": "true"}, "Bool": {"s3:ObjectCreationOperation": "true"}},
            effect="Deny",
            principal="*",
        ),
    )


def _models(site: Site) -> tuple[Statement, ...]:
    return (
        Statement(
            "PublicList",
            "Everyone may list the published models, and nothing else in the bucket.",
            LISTING,
            ("s3:ListBucket",),
            (site.bucket_arn,),
            {"StringLike": {"s3:prefix": tuple(f"{site.prefix}{key}" for key in PUBLIC)}},
            principal="*",
        ),
        Statement(
            "PublicRead",
            "Everyone may read models, aliases and the index, but not datasets, logs and checkpoints.",
            ARTICLE,
            ("s3:GetObject",),
            site.objects(*PUBLIC),
            principal="*",
        ),
    )


def _everything(site: Site) -> tuple[Statement, ...]:
    """A policy that makes the whole bucket public, for `--plain-public`."""
    return (
        Statement(
            "PublicList",
            "Everyone may list the whole bucket (--plain-public).",
            ARTICLE,
            ("s3:ListBucket",),
            (site.bucket_arn,),
            principal="*",
        ),
        Statement(
            "PublicRead",
            "Everyone may read everything, including datasets, logs and checkpoints (--plain-public).",
            ARTICLE,
            ("s3:GetObject",),
            (f"{site.bucket_arn}/*",),
            principal="*",
        ),
    )
