"""`offload doctor`: what would go wrong, before the first dollar: a line each, green or red, with the remedy."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from dataset.finding import DatasetError
from infra.object_store import StoreError, StoreReadOnlyError, open_store
from orchestrator.console import plain
from orchestrator.github_repository import numbers_of, repository_of
from orchestrator.quantity import human_bytes
from orchestrator.settings import Settings, SettingsError
from orchestrator.snapshots import snapshot_of
from orchestrator.workspace import Workspace

State = Literal["green", "yellow", "red", "grey"]
"""Fine; worth knowing; a run would fail; not needed here."""

MARKS: Mapping[State, tuple[str, str]] = {
    "green": ("ok  ", "32"),
    "yellow": ("note", "33"),
    "red": ("FAIL", "31"),
    "grey": ("-   ", "90"),
}


@dataclass(frozen=True, slots=True)
class Check:
    """One line: what was looked at, how it is, and what to do."""

    name: str
    state: State
    text: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Examination:
    """All lines, in the order in which a run would stumble."""

    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is red."""
        return not any(check.state == "red" for check in self.checks)

    def json(self) -> dict[str, Any]:
        """Return the documented JSON object."""
        return {"ok": self.ok, "checks": [asdict(check) for check in self.checks]}

    def text(self, *, colour: bool = False) -> str:
        """Return the lines for a person."""
        width = max(len(check.name) for check in self.checks)
        lines: list[str] = []
        for check in self.checks:
            mark, code = MARKS[check.state]
            shown = f"\x1b[{code}m{mark}\x1b[0m" if colour else mark
            lines.append(f"{shown}  {check.name:{width}}  {plain(check.text)}")
            if check.remedy:
                lines.append(f"{' ' * (width + 8)}-> {plain(check.remedy)}")
        counts = {state: sum(check.state == state for check in self.checks) for state in MARKS}
        lines.append("")
        lines.append(
            f"{counts['red']} to mend, {counts['yellow']} to know, {counts['green']} fine"
            + (f", {counts['grey']} not needed here" if counts["grey"] else "")
        )
        return "\n".join(lines)


def examine(
    directory: Path,
    load: Callable[[], Settings],
    *,
    environment: Mapping[str, str],
    repository: str | None = None,
    roles: Sequence[str] = (),
    probe: bool = True,
) -> Examination:
    """Look at everything that a run needs.

    Args:
        directory: Where the command runs.
        load: Loads the configuration; may raise SettingsError.
        environment: The process's.
        repository: ORG/REPO; None for the remote's.
        roles: ARNs or names of roles whose trust is looked at, beside the role that we are.
        probe: Whether a test object may be written, and a security group made for dry runs.
    """
    checks = [_ultralytics()]
    try:
        settings = load()
    except SettingsError as error:
        lines = [str(fault) for fault in error.faults]
        checks.append(
            Check(
                "configuration",
                "red",
                "; ".join(lines),
                "correct it; `offload init` writes one to start from",
            )
        )
        return Examination(tuple(checks))
    checks.append(
        Check("configuration", "green", f"{settings.source or 'no file: defaults and the environment'}")
    )
    checks.append(_dataset(settings))
    repository = repository or repository_of(directory, environment)
    checks.append(_repository(repository))
    in_bucket = settings.store.url.startswith("s3://")
    # The janitor may add to the journal and take nothing away; neither it nor the publisher rents.
    who = environment.get("AWS_ROLE_ARN", "")
    checks += _store(settings, probe=probe and not who.endswith("-janitor"), in_bucket=in_bucket)
    rents = probe and not who.endswith(("-janitor", "-publisher"))
    found = list(_account(settings, repository, environment, roles, probe=rents))
    if not in_bucket:
        checks += [_not_needed(check) for check in found]
        checks.append(
            Check(
                "instances",
                "grey",
                "trainings run on this CPU: an instance cannot reach a store that is a folder",
                "for GPUs set store.url to s3://BUCKET; `offload bootstrap` makes one with all it needs",
            )
        )
    else:
        checks += found
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


def _dataset(settings: Settings) -> Check:
    try:
        found = snapshot_of(settings, Workspace.beside(settings.root))
    except DatasetError as error:
        first, _, rest = str(error).partition("\n")
        more = f" (and {len(rest.splitlines())} lines more)" if rest else ""
        return Check(
            "dataset", "red", f"{first}{more}", "`offload check` lists every fault with its file and line"
        )
    counts = ", ".join(f"{n} {split}" for split, n in found.images.items())
    return Check("dataset", "green", f"{found.task}: {counts}; {human_bytes(found.bytes)}")


def _repository(repository: str | None) -> Check:
    if repository is None:
        return Check(
            "repository",
            "yellow",
            "there is no remote origin at GitHub: roles cannot be compared with it",
            "give --repository ORG/REPO",
        )
    return Check("repository", "green", repository)


def _store(settings: Settings, *, probe: bool, in_bucket: bool) -> Iterator[Check]:
    from infra.doctor_checks import anonymous, first_published, probe_store

    url = settings.store_url
    try:
        store = open_store(url, endpoint_url=settings.store.endpoint_url, region=settings.store.region)
        if not probe:
            sum(1 for _, _ in zip(store.list("index.json"), range(1), strict=False))
            yield Check("store", "green", f"{url}: can be read; writing was not tried")
        else:
            done = probe_store(store, public=in_bucket)
            if done.faults:
                yield Check(
                    "store",
                    "red",
                    f"{url}: {'; '.join(done.faults)}",
                    "use a server that honours conditional writes: AWS, R2, MinIO, Ceph, or a folder",
                )
            else:
                yield Check("store", "green", f"{url}: written, read, write-once and compare-and-swap kept")
            if done.public == 200 or done.public == 206:  # noqa: PLR1714 - two statuses, one meaning
                yield Check(
                    "store is private",
                    "red",
                    "anybody can read runs/: logs, checkpoints and datasets are public",
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
        address = key and (
            f"{settings.store.public_url.rstrip('/')}/{key}"
            if settings.store.public_url
            else store.public_url(key)
        )
        if not address:
            yield Check("models are public", "grey", "nothing is published yet, so nothing can be tried")
            return
        status = anonymous(address)
        if status in {200, 206}:
            yield Check("models are public", "green", f"{address} can be read by anybody")
        else:
            yield Check(
                "models are public",
                "yellow",
                f"{address} answers {status or 'nothing'} to strangers: only who has credentials can pull",
                "if others shall pull: the bucket policy of `offload bootstrap`, or store.public-url; and see that "
                "the account's own Block Public Access allows it",
            )
    except StoreReadOnlyError as error:
        yield Check("store", "red", str(error), "set store.url to s3://BUCKET or file:FOLDER")
    except StoreError as error:
        yield Check("store", "red", str(error), "" if in_bucket else "choose a folder that can be written to")


# ------------------------------------------------------------------------------------------ the account


def _account(
    settings: Settings,
    repository: str | None,
    environment: Mapping[str, str],
    roles: Sequence[str],
    *,
    probe: bool,
) -> Iterator[Check]:
    from infra.credentials import describe_credentials, open_session
    from infra.doctor_checks import caller
    from infra.errors import CloudError

    first = settings.ec2.regions[0]
    try:
        session = open_session(first)
        how = describe_credentials(session)
        if session.get_credentials() is None:
            yield Check(
                "AWS credentials",
                "red",
                "there are none",
                "AWS_PROFILE or AWS_ACCESS_KEY_ID; in a workflow `permissions: id-token: write` and AWS_ROLE_ARN",
            )
            return
        me = caller(session)
    except CloudError as error:
        yield Check("AWS credentials", "red", str(error).partition(": " + error.remedy)[0], error.remedy)
        return
    yield Check("AWS credentials", "green", how)
    yield Check("AWS identity", "green", me.arn)
    yield _clock(me.skew_s)
    yield from _trusts(session, me.role, repository, environment, roles)
    yield from _limits(settings)
    with ThreadPoolExecutor(len(settings.ec2.regions)) as pool:
        regions = list(
            pool.map(lambda name: list(_region(name, settings, probe=probe)), settings.ec2.regions)
        )
    usable = any(all(check.state != "red" for check in checks) for checks in regions)
    for checks in regions:
        # One region that works is enough: the others are left out of a run's offers.
        yield from (
            replace(check, state="yellow") if usable and check.state == "red" else check for check in checks
        )


def _not_needed(check: Check) -> Check:
    """Without a bucket a training never leaves the CPU, so nothing that AWS lacks is in its way."""
    if check.state != "red":
        return check
    if check.name == "AWS credentials" and check.text == "there are none":
        return Check(check.name, "grey", "there are none, and a CPU training needs none")
    return replace(check, state="yellow")


def _clock(seconds: float) -> Check:
    far = abs(seconds)
    text = f"this machine's clock is {far:.0f} s {'ahead of' if seconds > 0 else 'behind'} AWS's"
    remedy = "set it: timedatectl set-ntp true"
    if far > 240:  # AWS refuses signatures after 5 minutes, S3 after 15
        return Check("clock", "red", text, remedy)
    if far > 30:
        return Check("clock", "yellow", text, remedy)
    return Check("clock", "green", "agrees with AWS's")


def _trusts(
    session: Any,
    role: str | None,
    repository: str | None,
    environment: Mapping[str, str],
    roles: Sequence[str],
) -> Iterator[Check]:
    from infra.doctor_checks import trust_faults, trust_of
    from infra.errors import CloudError, DeniedError, MissingError

    if repository is None:
        return
    numbers = numbers_of(repository, environment)
    owner, name = repository.split("/", 1)
    classic = f"repo:{owner}/{name}:"
    numeric = f"repo:{owner}@{numbers[0]}/{name}@{numbers[1]}:" if numbers else None
    wanted = roles or (
        [role] if role else [f"gpu-offload-{kind}" for kind in ("launcher", "janitor", "publisher")]
    )
    for each in wanted:
        title = f"trust of {each.rsplit('/', 1)[-1]}"
        try:
            wrong, doubtful = trust_faults(trust_of(session, each), classic, numeric)
        except MissingError:
            yield Check(title, "yellow", "there is no such role", "`offload bootstrap` makes it")
        except DeniedError:
            yield Check(title, "grey", "we may not read it: nothing can be said of it")
        except CloudError as error:
            yield Check(title, "yellow", str(error))
        else:
            if not wrong and not doubtful:
                yield Check(title, "green", f"admits {repository}, and nobody else")
            else:
                yield Check(
                    title,
                    "red" if wrong else "yellow",
                    "; ".join([*wrong, *doubtful]),
                    f"`offload bootstrap --repository {repository} --deploy` sets it right",
                )


def _limits(settings: Settings) -> Iterator[Check]:
    if settings.ec2.instance_profile is None:
        yield Check(
            "instance profile",
            "yellow",
            "ec2.instance-profile is not set: an instance cannot upload by itself",
            "`offload bootstrap` makes one and says what to set",
        )
    if settings.ec2.schedule_role is None:
        yield Check(
            "schedule role",
            "yellow",
            "ec2.schedule-role is not set: one layer less against an instance that keeps running",
            "`offload bootstrap` makes one and says what to set",
        )


def _region(name: str, settings: Settings, *, probe: bool) -> Iterator[Check]:
    from infra.credentials import open_session
    from infra.ec2 import Ec2
    from infra.errors import CloudError
    from infra.image import find_image
    from infra.spot_market import SpotMarket

    # A session each: boto3's may not make clients in two threads at once.
    session = open_session(name)
    yield from _quotas(name, SpotMarket(name, session=session), settings)
    ec2 = Ec2(name, session=session)
    image = subnet = None
    try:
        image = find_image(name, settings.ec2.image, session=session)
        yield Check(f"{name}: image", "green", f"{image.id}, {image.name}, of {image.owner}")
    except CloudError as error:
        yield _of(f"{name}: image", error)
    try:
        subnets = ec2.subnets()
        subnet = next(iter(subnets.values()), None)
        yield _network(name, tuple(subnets), settings)
        yield from _terminating(name, ec2, session)
    except CloudError as error:
        yield _of(f"{name}: network", error)
    if not probe:
        yield Check(f"{name}: launching", "grey", "not tried: forbidden to, or by a role that rents nothing")
    elif image is not None and subnet is not None:
        yield _launching(name, ec2, image, subnet, settings)


def _network(name: str, zones: Sequence[str], settings: Settings) -> Check:
    if zones:
        return Check(f"{name}: network", "green", f"default subnets in {', '.join(zones)}")
    if settings.ec2.subnet is not None:
        return Check(f"{name}: network", "grey", f"no default subnet; {settings.ec2.subnet} is used")
    remedy = f"aws ec2 create-default-vpc --region {name}, or set ec2.subnet"
    return Check(f"{name}: network", "red", "there is no default subnet", remedy)


def _terminating(name: str, ec2: Any, session: Any) -> Iterator[Check]:
    """EC2 answers a dry run of a termination for an instance that exists: there must be one of ours."""
    from infra.doctor_checks import may_terminate
    from infra.errors import CloudError

    ours = [instance for instance in ec2.find() if not instance.ended]
    if not ours:
        return
    try:
        may_terminate(session, name, ours[0].id)
        yield Check(f"{name}: terminating", "green", f"we may ({len(ours)} of ours are alive there)")
    except CloudError as error:
        yield _of(f"{name}: terminating", error)


def _launching(name: str, ec2: Any, image: Any, subnet: Any, settings: Settings) -> Check:
    from infra.doctor_checks import try_launch
    from infra.errors import CloudError

    title, kind = f"{name}: launching", settings.ec2.instance_types[0]
    market = "on-demand" if settings.ec2.market == "on-demand" else "spot"
    try:
        try_launch(
            ec2,
            image,
            subnet,
            instance_type=kind,
            market=market,
            volume_gib=settings.ec2.volume_gib,
            instance_profile=settings.ec2.instance_profile,
        )
    except CloudError as error:
        found = _of(title, error)
        return found if error.retry == "never" else replace(found, state="yellow")
    return Check(title, "green", f"we may launch {kind} ({market}); dry run, nothing was launched")


def _quotas(name: str, market: Any, settings: Settings) -> Iterator[Check]:
    from infra.errors import QuotaError

    quotas = market.quotas()
    for label, value, used in (
        ("spot", quotas.spot_vcpus, settings.ec2.market != "on-demand"),
        ("on-demand", quotas.on_demand_vcpus, settings.ec2.market == "on-demand"),
    ):
        if not used:
            continue
        title = f"{name}: quota of {label} GPU vCPUs"
        if value is None:
            yield Check(
                title,
                "yellow",
                f"unknown: {quotas.reason}",
                "a new account's is 0; " + QuotaError.default_remedy.partition(";")[0],
            )
        elif value < 4:
            yield Check(
                title,
                "red",
                f"{value:.0f}: not even the smallest instance starts",
                QuotaError.default_remedy,
            )
        else:
            yield Check(title, "green", f"{value:.0f}")


def _of(name: str, error: Any) -> Check:
    """Make a line of a CloudError: its remedy apart from what happened."""
    return Check(name, "red", str(error).removesuffix(f": {error.remedy}"), error.remedy)
