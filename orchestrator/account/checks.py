"""What `offload doctor` asks AWS: identity, clock, trust, quotas, images, networks, and a launch as a dry run."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from gpu_offload.infra.github.repository import numbers_of
from gpu_offload.orchestrator.account.checklist import Check
from gpu_offload.orchestrator.account.region_checks import check_region, failed
from gpu_offload.orchestrator.settings.load import Settings


def account_checks(
    settings: Settings,
    repository: str | None,
    environment: Mapping[str, str],
    roles: Sequence[str],
    *,
    probe: bool,
) -> Iterator[Check]:
    """Check identity, trust of the roles and, in each region, whether a launch would be accepted."""
    from gpu_offload.infra.aws.caller import caller
    from gpu_offload.infra.aws.credentials import describe_credentials, open_session
    from gpu_offload.infra.aws.errors import CloudError

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
        yield failed("AWS credentials", error)
        return
    yield Check("AWS credentials", "green", how)
    yield Check("AWS identity", "green", me.arn)
    yield _clock(me.skew_s)
    yield from _trusts(session, me.role, repository, environment, roles)
    yield from _limits(settings, session)
    # A region takes seconds, and most of that is waiting.
    with ThreadPoolExecutor(len(settings.ec2.regions)) as pool:
        regions = list(
            pool.map(lambda name: list(check_region(name, settings, probe=probe)), settings.ec2.regions)
        )
    usable = any(all(check.state != "red" for check in checks) for checks in regions)
    for checks in regions:
        # One region that works is enough: the others are left out of a run's offers.
        yield from (
            replace(check, state="yellow") if usable and check.state == "red" else check for check in checks
        )


def not_needed(check: Check) -> Check:
    """Soften a check of AWS for a project that trains on this CPU only."""
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
    from gpu_offload.infra.account.role_trust import trust_faults, trust_of
    from gpu_offload.infra.aws.errors import CloudError, DeniedError, MissingError

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
                yield Check(title, "green", f"admits {repository}, and no other repository")
            else:
                yield Check(
                    title,
                    "red" if wrong else "yellow",
                    "; ".join([*wrong, *doubtful]),
                    f"`offload bootstrap --repository {repository} --deploy` sets it right",
                )


def _limits(settings: Settings, session: Any) -> Iterator[Check]:
    from gpu_offload.infra.aws.profile import profile_fault

    name = settings.ec2.instance_profile
    if name is not None and (fault := profile_fault(session, name)) is not None:
        remedy = "set ec2.instance-profile to the profile that `offload bootstrap` made"
        yield Check("instance profile", "red", f"{name}: {fault}", remedy)
    if name is None:
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
