"""The checks before a training starts here or an instance is rented."""

import contextlib
import importlib.metadata
import importlib.util
import os
import re
from collections.abc import Iterable, Mapping
from functools import cache

from gpu_offload.errors import OffloadError
from gpu_offload.infra.instance.software import LOCK
from gpu_offload.infra.origin import documentation
from gpu_offload.infra.store.s3_credentials import STORE_KEYS, is_elsewhere, store_keys
from gpu_offload.orchestrator.output.console import enumerated
from gpu_offload.orchestrator.plan.code_reader import External
from gpu_offload.orchestrator.plan.inputs import PlanInputs, ProjectFiles
from gpu_offload.orchestrator.plan.option import Obstacle
from gpu_offload.orchestrator.plan.project import PlanningError
from gpu_offload.orchestrator.plan.requirements import normalised
from gpu_offload.orchestrator.settings.load import Settings

SIMULATOR = "GPU_OFFLOAD_SIMULATOR"
"""Set by the simulated cloud for the processes inside it."""

EXTRA = "pip install 'gpu-offload[train]'"


class RentingError(OffloadError):
    """The configuration does not allow training on EC2; the text says what to set."""


class TrainingExtraError(OffloadError):
    """Ultralytics is not installed here; the text says how to install it."""


def is_installed(module: str) -> bool:
    """Return whether this environment has a top-level module, without importing it."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def check_code(inputs: PlanInputs | ProjectFiles) -> None:
    """Check that the user's training code can be imported, without importing it. Raises PlanningError with every fault."""
    if inputs.code is None:
        return
    required = inputs.requirements.names if inputs.requirements else None
    # With a requirements file the module may come from a distribution of another name.
    missing = [e for e in inputs.code.externals if required is None and not is_installed(e.name)]
    faults = [
        *inputs.code.faults,
        *(
            f"{external.where} imports {external.name}, which is neither in the project nor installed; "
            "name its distribution in a file and set training.requirements to it"
            for external in missing
        ),
    ]
    if faults:
        raise PlanningError(enumerated("the training code cannot be imported", faults))


def missing_extra(inputs: PlanInputs) -> tuple[str, ...]:
    """Return a note for a plan on a machine that cannot train; a runner's plan job need not be able to."""
    if os.environ.get("GITHUB_ACTIONS") or can_train_here(inputs):
        return ()
    return (f"training on this machine needs {EXTRA}",)


def check_here(inputs: PlanInputs) -> None:
    """Check that this machine has what Ultralytics' trainings need. Raises TrainingExtraError."""
    if not can_train_here(inputs):
        raise TrainingExtraError(f"Ultralytics and PyTorch are not installed here: {EXTRA}")


def can_train_here(inputs: PlanInputs) -> bool:
    """Return whether this environment has what the training imports, as far as we choose it."""
    return inputs.code is not None or all(map(is_installed, ("torch", "ultralytics")))


def imported_on_node(inputs: PlanInputs) -> tuple[str, ...]:
    """Return the modules that a node of a cluster must have beside our own package's; a requirements file brings them."""
    if inputs.code is None:
        return "torch", "ultralytics"
    return () if inputs.requirements else tuple(external.name for external in inputs.code.externals)


def renting_faults(
    settings: Settings, inputs: PlanInputs | None = None, environment: Mapping[str, str] | None = None
) -> tuple[Obstacle, ...]:
    """Return what keeps an instance from training, as far as configuration and code decide it."""
    environment = os.environ if environment is None else environment
    faults = [] if environment.get(SIMULATOR) else _account_faults(settings)
    if inputs is not None and inputs.code is not None:
        faults += _import_faults(inputs)
    return tuple(faults)


def check_renting(
    settings: Settings, environment: Mapping[str, str] | None = None, inputs: PlanInputs | None = None
) -> None:
    """Check configuration, code and environment before anything is rented. Raises RentingError with every fault."""
    environment = os.environ if environment is None else environment
    faults = (*_key_faults(settings, environment), *renting_faults(settings, inputs, environment))
    if faults:
        raise RentingError(enumerated("cannot train on EC2", faults))


def may_rent(settings: Settings, inputs: PlanInputs) -> bool:
    """Return whether `check_renting` passes."""
    return not (_key_faults(settings, os.environ) or renting_faults(settings, inputs))


def _key_faults(settings: Settings, environment: Mapping[str, str]) -> tuple[Obstacle, ...]:
    endpoint = settings.store.endpoint_url
    if not is_elsewhere(endpoint) or store_keys(endpoint, environment):
        return ()
    return (
        Obstacle(
            "store.endpoint-url is not AWS's, where an instance's role counts for nothing",
            f"set {STORE_KEYS[0]} and {STORE_KEYS[1]} to keys for this bucket only; see {documentation('gpu.md')}",
        ),
    )


def profile_obstacles(settings: Settings) -> tuple[Obstacle, ...]:
    """Ask AWS whether instances can get their profile; () where it is not set, or nothing can be said."""
    name = settings.ec2.instance_profile
    if name is None:
        return ()
    from gpu_offload.infra.aws.credentials import open_session
    from gpu_offload.infra.aws.profile import profile_fault

    why = profile_fault(open_session(settings.ec2.regions[0]), name)
    remedy = "set ec2.instance-profile to the profile that `offload bootstrap` made"
    return (Obstacle(f"ec2.instance-profile {name}: {why}", remedy),) if why else ()


def _account_faults(settings: Settings) -> list[Obstacle]:
    """Return the faults of store and profile: an instance opens a bucket with its role, and no other store."""
    faults = []
    url, has_profile = settings.store.url, settings.ec2.instance_profile is not None
    in_bucket = url.startswith("s3:")
    made = f"`offload bootstrap` makes {'it' if in_bucket or has_profile else 'both'}"
    if not in_bucket:
        place = "a folder, which an instance cannot reach"
        faults.append(
            Obstacle(
                f"store.url is {place if url.startswith('file:') else f'{url}, which an instance cannot open'}",
                f"set store.url to s3://BUCKET{f' ({made})' if has_profile else ''}",
            )
        )
    if not has_profile:
        faults.append(
            Obstacle(
                "ec2.instance-profile is not set, so an instance could read no dataset and write no checkpoint",
                f"set ec2.instance-profile ({made})",
            )
        )
    return faults


def _import_faults(inputs: PlanInputs) -> list[Obstacle]:
    """Return the modules that the user's code imports and that an instance would not have."""
    required = _with_dependencies(inputs.requirements.names) if inputs.requirements else set()
    faults = []
    for external in inputs.code.externals if inputs.code else ():
        distributions = _distributions(external)
        if distributions and not distributions & (_on_instances() | required):
            name = min(distributions)
            faults.append(
                Obstacle(
                    f"an instance does not have {external.name}, which {external.where} imports",
                    f"add {name} to training.requirements",
                )
            )
    return faults


def _distributions(external: External) -> set[str]:
    """Return the installed distributions that provide a module; empty where none is installed here."""
    # A module may have another name than its distribution: cv2 comes with opencv-python.
    return {normalised(name) for name in importlib.metadata.packages_distributions().get(external.name, ())}


def _with_dependencies(names: Iterable[str]) -> set[str]:
    """Add what the distributions need, as far as they are installed here."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            needed = importlib.metadata.requires(name) or ()
            waiting += [
                # A requirement begins with its name; markers and versions follow.
                normalised(re.split(r"[^\w.-]", line, maxsplit=1)[0])
                for line in needed
                # Only an extra, which was not asked for, needs the others.
                if "extra ==" not in line
            ]
    return found


@cache
def _on_instances() -> frozenset[str]:
    """Return the distributions in the lock from which an instance is set up."""
    text = LOCK.read_text(encoding="utf-8") if LOCK.is_file() else ""
    return frozenset(normalised(name) for name in re.findall(r"^([\w.-]+)==", text, re.MULTILINE))
