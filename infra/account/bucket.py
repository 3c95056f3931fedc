"""Policy statements for the roles' access to the store."""

from gpu_offload.infra.account.site import Site
from gpu_offload.infra.account.statement import Conditions, Statement
from gpu_offload.infra.origin import documentation

ONCE = "https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes-enforce.html"
OBJECTS = "https://docs.aws.amazon.com/AmazonS3/latest/userguide/security_iam_service-with-iam.html"
MISSING = "https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html"
MULTIPART = "https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html"

IF_ABSENT: Conditions = {"Null": {"s3:if-none-match": "false"}}
"""The write has `If-None-Match`. S3 accepts only `*` there, so it never replaces an object."""

IF_SAME: Conditions = {"Null": {"s3:if-match": "false"}}

PARTS: Conditions = {"Bool": {"s3:ObjectCreationOperation": "false"}}
"""Starting a multipart upload and uploading parts: these have no condition and create no object yet."""

INDEX = ("open/*", "recent/*")
MOVING = ("aliases/*", "index.json", "site/index.html", "site/feed.xml")
"""What each publication rewrites: aliases, the index, and the model's page."""

PUBLIC = ("models/*", *MOVING)
READ_BY_TRAINER = ("datasets/*", "weights/*", "environments/*", "wheels/*", "runs/*")
WRITTEN_BY_TRAINER = ("runs/*/attempts/*/*", "runs/*/checkpoint/*", "runs/*/result/*")


def launcher_store(site: Site) -> tuple[Statement, ...]:
    """Stage the inputs, write the journal; publish, where one role does both."""
    return (*_drive(site), *(_publish(site) if site.drivers_publish else ()))


def publisher_store(site: Site) -> tuple[Statement, ...]:
    """Train on the runner, which keeps a journal as well, and publish."""
    return (*_drive(site), *_publish(site))


def janitor_store(site: Site) -> tuple[Statement, ...]:
    """Read the journal and add a run's outcome; publish staged results; overwrite nothing."""
    return (
        *(_publish(site) if site.drivers_publish else ()),
        _list(site),
        _read(site, ("runs/*", *INDEX, *PUBLIC, "timings/*", "tend.json")),
        Statement(
            "AppendToJournal",
            "The outcome of an attempt and of a run is written once; existing documents cannot be overwritten.",
            ONCE,
            ("s3:PutObject",),
            site.objects("runs/*"),
            IF_ABSENT,
        ),
        Statement(
            "TakeTheLease",
            "The lease, a launch in progress and the cost are the documents of a run that change.",
            OBJECTS,
            ("s3:PutObject",),
            site.objects("runs/*/driver.json", "runs/*/attempts/*.launching.json", "runs/*/cost.json"),
            IF_SAME,
        ),
        *_keep_index(site),
        *((_abort(site, ("models/*",)),) if site.drivers_publish else ()),
        Statement(
            "RecordTimings",
            "Durations for the next estimate, and the last run of `tend`, so that a dead schedule is noticed.",
            OBJECTS,
            ("s3:PutObject",),
            site.objects("timings/*", "tend.json"),
        ),
    )


def trainer_store(site: Site) -> tuple[Statement, ...]:
    """Read inputs; write an instance's part of a run: progress, checkpoints, the staged result."""
    return (
        _list(site),
        _read(site, READ_BY_TRAINER),
        Statement(
            "WriteBelowRuns",
            "Progress, checkpoints and the staged result, but neither the journal nor published objects. All "
            "instances share this role, and IAM knows only an instance's id, which AWS chooses after the run's "
            "folder has its name. So this keeps an instance below runs/, but not below its own run. "
            f"See {documentation('security.md')}.",
            "https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_variables.html",
            ("s3:PutObject",),
            site.objects(*WRITTEN_BY_TRAINER),
        ),
        Statement(
            "DropOldCheckpoints",
            "Superseded checkpoints. The bucket keeps versions, and this role can delete none of them for good.",
            OBJECTS,
            ("s3:DeleteObject",),
            site.objects("runs/*/checkpoint/*"),
        ),
        _abort(site, WRITTEN_BY_TRAINER),
    )


def _drive(site: Site) -> tuple[Statement, ...]:
    """Keep a run's journal and stage its inputs."""
    written = ("runs/*", "sweeps/*", "timings/*", "weights/*", "tend.json")
    return (
        _list(site),
        _read(site, ("*",)),
        Statement(
            "KeepTheJournal",
            "A run's journal, inputs, checkpoints and result; a sweep's trials; starting weights, which are fetched "
            "once; durations for the next estimate; the last run of `tend`.",
            OBJECTS,
            ("s3:PutObject",),
            site.objects(*written),
        ),
        Statement(
            "StageDatasetsOnce",
            "A dataset is named by its fingerprint, so it is written once.",
            ONCE,
            ("s3:PutObject",),
            site.objects("datasets/*"),
            IF_ABSENT,
        ),
        Statement(
            "StageDatasetsInParts",
            "The parts of a large archive carry no condition; their completion does.",
            ONCE,
            ("s3:PutObject",),
            site.objects("datasets/*"),
            PARTS,
        ),
        Statement(
            "ClearStaging",
            "Superseded checkpoints, and a staged result that is incomplete.",
            OBJECTS,
            ("s3:DeleteObject",),
            site.objects("runs/*/checkpoint/*", "runs/*/result/*"),
        ),
        *_keep_index(site),
        _abort(site, (*written, "datasets/*", "models/*")),
    )


def _keep_index(site: Site) -> tuple[Statement, ...]:
    """Add runs to the index of open and recent runs, and remove those that ended."""
    return (
        Statement(
            "EnterRuns",
            "The index of open runs and of the newest ones. It says where to look; the journal decides.",
            OBJECTS,
            ("s3:PutObject",),
            site.objects(*INDEX),
        ),
        Statement(
            "RemoveEndedRuns",
            "A run that has ended is removed from the index of open ones; the run itself stays.",
            OBJECTS,
            ("s3:DeleteObject",),
            site.objects("open/*"),
        ),
    )


def _publish(site: Site) -> tuple[Statement, ...]:
    """Create versions, move aliases; overwrite or delete nothing that is published."""
    moving = site.objects(*MOVING)
    return (
        Statement(
            "PublishOnce",
            "A version is written once: a write without If-None-Match is refused before S3 looks at the object.",
            ONCE,
            ("s3:PutObject",),
            site.objects("models/*"),
            IF_ABSENT,
        ),
        Statement(
            "PublishInParts",
            "The parts of a large model carry no condition; their completion does.",
            ONCE,
            ("s3:PutObject",),
            site.objects("models/*"),
            PARTS,
        ),
        Statement(
            "MakeAliases",
            "The first version of an alias and of the index.",
            ONCE,
            ("s3:PutObject",),
            moving,
            IF_ABSENT,
        ),
        Statement(
            "MoveAliases",
            "An alias moves only if it is still what was read before: two publications at the same time do not undo one "
            "another.",
            ONCE,
            ("s3:PutObject",),
            moving,
            IF_SAME,
        ),
    )


def _list(site: Site) -> Statement:
    return Statement(
        "List",
        "Without it a missing object cannot be distinguished from a forbidden one. A request for one object carries no "
        "prefix, hence IfExists.",
        MISSING,
        ("s3:ListBucket",),
        (site.bucket_arn,),
        {"StringLikeIfExists": {"s3:prefix": f"{site.prefix}*"}} if site.prefix else {},
    )


def _read(site: Site, keys: tuple[str, ...]) -> Statement:
    return Statement(
        "Read",
        "The objects that the role works with, below the store's prefix.",
        OBJECTS,
        ("s3:GetObject",),
        site.objects(*keys),
    )


def _abort(site: Site, keys: tuple[str, ...]) -> Statement:
    return Statement(
        "AbortUploads",
        "The parts of a failed upload cost storage until they are removed.",
        MULTIPART,
        ("s3:AbortMultipartUpload",),
        site.objects(*keys),
    )
