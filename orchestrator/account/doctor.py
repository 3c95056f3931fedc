"""`offload doctor`: checks everything that a run needs before money is spent; a line each, with its remedy."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from gpu_offload.dataset.finding import DatasetError, counted
from gpu_offload.infra.github.protection import protection_of
from gpu_offload.infra.github.repository import repository_of
from gpu_offload.infra.origin import documentation
from gpu_offload.infra.store.clock import clock_of
from gpu_offload.infra.store.errors import StoreError, StoreReadOnlyError
from gpu_offload.infra.store.s3_credentials import is_elsewhere
from gpu_offload.orchestrator.account.checklist import Check, Examination
from gpu_offload.orchestrator.account.checks import account_checks, not_needed
from gpu_offload.orchestrator.backends.isolated_training import IsolationError, not_isolated, why_open
from gpu_offload.orchestrator.cleanup.sweep_note import REMEDY, SILENT_S, seconds_since_sweep
from gpu_offload.orchestrator.output.units import human_bytes, human_duration
from gpu_offload.orchestrator.registry.stores import FIT_SERVERS, public_address, store_of
from gpu_offload.orchestrator.settings.findings import findings_prefix
from gpu_offload.orchestrator.settings.load import Settings, SettingsError
from gpu_offload.orchestrator.workspace import Workspace, snapshot_of

READABLE = frozenset({200, 206})
"""HTTP statuses of what can be read: whole, or in part."""


def examine(
    directory: Path,
    load: Callable[[], Settings],
    *,
    environment: Mapping[str, str],
    repository: str | None = None,
    roles: Sequence[str] = (),
    deployment: str = "gpu",
    probe: bool = True,
) -> Examination:
    """Check everything that a run needs.

    `load` may raise SettingsError; the trust of `roles` (ARNs or names) is checked in place of the current role's;
    `deployment` is the launcher's GitHub environment; `probe` allows a test object and a security group for dry runs.
    """
    checks = [_ultralytics()]
    try:
        settings = load()
    except SettingsError as error:
        faults = "; ".join(str(fault) for fault in error.faults)
        remedy = "correct it; `offload init` writes one to start from"
        return Examination((*checks, Check("configuration", "red", faults, remedy)))
    source = str(settings.source or "no file: defaults and the environment")
    checks += [Check("configuration", "green", source), _dataset(settings)]
    checks += _isolation(settings, environment)
    repository = repository or repository_of(directory, environment)
    checks.append(_repository(repository))
    in_bucket = settings.store.url.startswith("s3://")
    # The janitor may add to the journal and take nothing away; neither it nor the publisher rents.
    # Roles of our stack have these names.
    who = environment.get("AWS_ROLE_ARN", "")
    checks += _store(settings, probe=probe and not who.endswith("-janitor"), in_bucket=in_bucket)
    rents = probe and not who.endswith(("-janitor", "-publisher"))
    found = list(account_checks(settings, repository, environment, roles, probe=rents))
    why_none = None
    if not in_bucket:
        kind = "that is a folder" if settings.store.url.startswith("file:") else "other than a bucket"
        why_none = (
            f"an instance cannot reach a store {kind}",
            "for GPUs set store.url to s3://BUCKET; `offload bootstrap` makes one with all it needs",
        )
    elif is_elsewhere(settings.store.endpoint_url) and not any(
        check.name == "AWS identity" and check.state == "green" for check in found
    ):
        # Keys of R2 or MinIO are no keys of AWS: a CPU training needs none.
        why_none = (
            "the credentials are the store's, and AWS does not know them",
            f"for GPUs give AWS credentials, and the store its own keys: {documentation('gpu.md')}",
        )
    if why_none is not None:
        checks += [not_needed(check) for check in found]
        checks.append(Check("instances", "grey", f"trainings run on this CPU: {why_none[0]}", why_none[1]))
    else:
        checks += [*found, *_sweep(settings)]
        if repository is not None:
            checks.append(_deployment(repository, deployment, environment))
    return Examination(tuple(checks))


def _ultralytics() -> Check:
    if find_spec("ultralytics") is None:
        return Check(
            "training here",
            "yellow",
            "Ultralytics is not installed: this machine can plan and rent, not train",
            "to train here: pip install 'gpu-offload[train]'",
        )
    from importlib.metadata import version

    return Check("training here", "green", f"Ultralytics {version('ultralytics')} is installed")


def _isolation(settings: Settings, environment: Mapping[str, str]) -> Iterator[Check]:
    """Check, on a runner, whether a training there is isolated."""
    title = "training.isolation"
    try:
        reason = why_open(settings, environment)
    except IsolationError as error:
        yield Check(title, "red", str(error))
        return
    if reason is None:
        yield Check(title, "green", "a training on this runner has no network and no credentials")
    elif reason:
        yield Check(title, "yellow", not_isolated(reason), documentation("security.md"))


def _dataset(settings: Settings) -> Check:
    try:
        snapshot = snapshot_of(settings, Workspace.of(settings.root))
    except DatasetError as error:
        found = [finding for finding in error.findings if finding.severity == "error"]
        first = found[0].text(findings_prefix(settings))
        more = f", and {counted(len(found) - 1, 'other fault')}" if len(found) > 1 else ""
        return Check(
            "dataset", "red", f"{first}{more}", "`offload check` lists every fault with its file and line"
        )
    counts = ", ".join(f"{n} {split}" for split, n in snapshot.images.items())
    return Check("dataset", "green", f"{snapshot.task}: {counts}; {human_bytes(snapshot.bytes)}")


def _repository(repository: str | None) -> Check:
    if repository is None:
        return Check(
            "repository",
            "yellow",
            "there is no remote origin at GitHub: roles cannot be compared with it",
            "give --repository ORG/REPO",
        )
    return Check("repository", "green", repository)


def _deployment(repository: str, name: str, environment: Mapping[str, str]) -> Check:
    """Check whether the environment of the launcher role requires a reviewer, and which branches it allows."""
    title, where = f"environment {name}", f"https://github.com/{repository}/settings/environments"
    found = protection_of(repository, name, environment)
    if found is None:
        return Check(
            title,
            "grey",
            "GitHub does not show its protection without credentials; look at it yourself",
            where,
        )
    if not found.exists:
        return Check(
            title, "yellow", f"{repository} has no environment {name!r}: GitHub makes it unprotected", where
        )
    missing = (
        [] if found.reviewers else ["it has no required reviewers: everyone who may push can spend money"]
    )
    missing += [] if found.limits_branches else ["every branch may use it: limit it to the default branch"]
    if missing:
        return Check(title, "yellow", "; ".join(missing), where)
    return Check(title, "green", f"{found.reviewers} reviewer(s), and not every branch")


def _sweep(settings: Settings) -> Iterator[Check]:
    """Check that the scheduled `tend` still runs: GitHub ends schedules without a word."""
    try:
        store = store_of(settings)
        silent = seconds_since_sweep(store, now=clock_of(store)())
    except StoreError:
        return  # the store's own check says why
    if silent is None:
        yield Check(
            "scheduled tend", "grey", "`offload tend` has not run on this store yet", f"schedule it. {REMEDY}"
        )
    elif silent < SILENT_S:
        yield Check("scheduled tend", "green", f"`offload tend` ran {human_duration(silent)} ago")
    else:
        yield Check(
            "scheduled tend", "yellow", f"`offload tend` ran last {human_duration(silent)} ago", REMEDY
        )


def _store(settings: Settings, *, probe: bool, in_bucket: bool) -> Iterator[Check]:
    from gpu_offload.infra.store.probe import anonymous, first_published, probe_store

    url = settings.store_url
    try:
        store = store_of(settings)
        if not probe:
            next(iter(store.list("index.json")), None)
            yield Check("store", "green", f"{url}: can be read; writing was not tried")
        else:
            done = probe_store(store, public=in_bucket)
            if faults := (*done.faults, *done.weaknesses):
                yield Check("store", "red", f"{url}: {'; '.join(faults)}", FIT_SERVERS)
            else:
                yield Check(
                    "store", "green", f"{url}: can be read and written, and keeps the conditions of writes"
                )
            if done.public in READABLE:
                yield Check(
                    "store is private",
                    "red",
                    "runs/ can be read without credentials: logs, checkpoints and datasets are public",
                    "narrow the bucket's policy to models/*, aliases/* and index.json: `offload bootstrap "
                    "--show-policies`",
                )
            elif done.public is not None:
                yield Check(
                    "store is private", "green", f"runs/ is closed to strangers (status {done.public})"
                )
        if not in_bucket:
            return
        key = first_published(store)
        address = public_address(settings, store, key) if key else None
        if not address:
            yield Check("models are public", "grey", "nothing is published yet, so nothing can be tried")
            return
        status = anonymous(address)
        if status in READABLE:
            yield Check("models are public", "green", f"{address} can be read without credentials")
        else:
            yield Check(
                "models are public",
                "yellow",
                f"{address} answers {status or 'nothing'} to strangers: only who has credentials can pull",
                "to let others pull: the bucket policy of `offload bootstrap`, or store.public-url; and see that "
                "the account's own Block Public Access allows it",
            )
    except StoreReadOnlyError as error:
        yield Check("store", "red", str(error), "set store.url to s3://BUCKET or file:FOLDER")
    except StoreError as error:
        yield Check("store", "red", str(error), "" if in_bucket else "choose a folder that can be written to")
