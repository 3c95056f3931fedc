"""Checks between settings: faults that no single value shows. Pure."""

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import ValidationError

from gpu_offload.dataset.task import Task
from gpu_offload.infra.aws.gpu_types import GPU_TYPES
from gpu_offload.orchestrator.output.metrics import published_by
from gpu_offload.orchestrator.settings.dimension import parse_dimension, path_of, sample
from gpu_offload.orchestrator.settings.hyperparameters import problems as hyperparameter_problems
from gpu_offload.orchestrator.settings.messages import explain, shown
from gpu_offload.orchestrator.settings.model_name import BUILT_IN_MODEL, built_in_task, is_weights
from gpu_offload.orchestrator.settings.sections import Sections
from gpu_offload.remote_job.hyperparameters import OURS

_FOREIGN = re.compile(r"(?:yolo\w*?(?:-\w+)*-(obb|depth|sem|world|worldv2)|(yoloe)-[\w-]+)\.(?:ya?ml|pt)")


@dataclass(frozen=True, slots=True)
class Disagreement:
    """Settings that do not fit together. The first of `about` is where the remedy is written."""

    about: tuple[tuple[str, ...], ...]
    message: str
    remedy: str


def disagreements(settings: Sections, root: str = "/") -> Iterator[Disagreement]:
    """Yield every conflict between settings; `root` is the folder that paths are relative to."""
    split = settings.dataset.split
    if split.val + split.test >= 1:
        yield Disagreement(
            (("dataset", "split", "test"), ("dataset", "split", "val")),
            f"dataset.split leaves nothing to train on: val {split.val:g} and test {split.test:g}",
            "let them sum to less than 1",
        )
    yield from _store(settings, root)
    yield from _training(settings)
    yield from _sweep(settings)
    yield from _ec2(settings)


def _store(settings: Sections, root: str) -> Iterator[Disagreement]:
    store = settings.store
    if not store.url.startswith("s3:"):
        for name, value in (("endpoint-url", store.endpoint_url), ("region", store.region)):
            if value is not None:
                yield Disagreement(
                    (("store", name), ("store", "url")),
                    f"store.{name} is for S3, but store.url is {store.url!r}",
                    f'write url = "s3://BUCKET/PREFIX", or remove {name}',
                )
    if not store.url.startswith("file:"):
        return
    data = posixpath.normpath(posixpath.join(root, settings.dataset.path))
    kept = posixpath.normpath(posixpath.join(root, store.url.removeprefix("file:")))
    way = posixpath.relpath(kept, data)
    # What is hidden is no part of a dataset, so a `.offload` in it is none either.
    inside = not way.startswith("..") and not any(p.startswith(".") for p in way.split("/") if way != ".")
    if inside or data.startswith(kept.rstrip("/") + "/"):
        yield Disagreement(
            (("store", "url"), ("dataset", "path")),
            f"the store {store.url!r} and the dataset {settings.dataset.path!r} are inside one another",
            "keep the store in a folder of its own, such as file:.offload",
        )


def _training(settings: Sections) -> Iterator[Disagreement]:
    training = settings.training
    if is_weights(training.model) and training.init_from != "scratch":
        yield Disagreement(
            (("training", "init-from"), ("training", "model")),
            f"training.model ({training.model}) is weights already, and init-from names others",
            "remove init-from, or let model be a definition (.yaml)",
        )
    if training.entrypoint is None:
        yield from _ultralytics(settings)
    elif settings.registry.exports:
        yield Disagreement(
            (("registry", "exports"), ("training", "entrypoint")),
            "registry.exports is for Ultralytics' trainings; training.entrypoint trains by your own code",
            "remove it, and let your function return further files as `extras`",
        )


def _ultralytics(settings: Sections) -> Iterator[Disagreement]:
    training = settings.training
    for name in ("include", "requirements"):
        if getattr(training, name):
            yield Disagreement(
                (("training", name), ("training", "entrypoint")),
                f"training.{name} is for training code of your own, and training.entrypoint is not set",
                "set training.entrypoint, or remove it",
            )
    # The strides of these models are 8, 16 and 32: Ultralytics would round another size up.
    if training.image_size % 32:
        low = training.image_size // 32 * 32
        yield Disagreement(
            (("training", "image-size"), ("training", "entrypoint")),
            f"training.image-size is {training.image_size}, not a multiple of 32",
            f"write {low} or {low + 32}",
        )
    for name, instead in OURS.items():
        if name in training.hyperparameters:
            yield Disagreement(
                (("training", "hyperparameters", name), ("training", "entrypoint")),
                f"training.hyperparameters.{name} is managed by gpu-offload",
                f"remove it ({instead})",
            )
    yield from _by_task(settings)
    # The address of weights ends with their checksum.
    stem = posixpath.basename(training.model.split("#")[0])
    if match := _FOREIGN.fullmatch(stem):
        yield Disagreement(
            (("training", "model"), ("training", "entrypoint")),
            f"training.model {training.model!r}: {match[1] or match[2]} is not among what we train",
            "take a model for " + ", ".join(Task),
        )
    elif (task := settings.dataset.task) is not None and stem.startswith("yolo"):
        built = built_in_task(stem)
        if built is not task:
            yield Disagreement(
                (("training", "model"), ("dataset", "task"), ("training", "entrypoint")),
                f"training.model {training.model!r} is for {built}, but dataset.task is {task}",
                f"take a model for {task}, or remove dataset.task",
            )


def _by_task(settings: Sections) -> Iterator[Disagreement]:
    training, task = settings.training, _task(settings)
    for problem in hyperparameter_problems(training.hyperparameters, task, training.image_size):
        path = tuple(map(str, problem.path))
        yield Disagreement((path, ("training", "entrypoint")), problem.message, problem.remedy)
    metric = settings.registry.metric
    # Ultralytics' own names have a slash: metrics/mAP50(B).
    if metric not in {None, "fitness", *published_by(task)} and "/" not in str(metric):
        yield Disagreement(
            (("registry", "metric"), ("training", "entrypoint")),
            f"registry.metric is {metric!r}, which {f'trainings for {task}' if task else 'a training'} would not have",
            f"write {', '.join(published_by(task))}",
        )


def _task(settings: Sections) -> Task | None:
    """Return the task, as far as it is known without the dataset and the files of the project."""
    stem = settings.training.model.rpartition(".")[0]
    return settings.dataset.task or (built_in_task(stem) if re.fullmatch(BUILT_IN_MODEL, stem) else None)


def _sweep(settings: Sections) -> Iterator[Disagreement]:
    """Yield for each dimension what is wrong with its first value that [training] could not have."""
    known = {one.message for one in _training(settings)}
    for name, written in (settings.sweep.__pydantic_extra__ or {}).items():
        changed = path_of(name)
        for value in sample(parse_dimension(written)):
            try:
                tried = settings.training.having({name: value})
            except ValidationError as error:
                errors = [
                    {**one, "loc": ("training", *one["loc"])} for one in error.errors(include_url=False)
                ]
                faults = [(one.message, one.remedy) for one in explain(errors)]
            else:
                faults = [
                    (one.message, one.remedy)
                    for one in _training(settings.model_copy(update={"training": tried}))
                    # What is wrong without the sweep, too, is reported at its own place.
                    if one.message not in known or changed in one.about
                ]
            for message, remedy in faults:
                yield Disagreement(
                    (("sweep", name), ("training", "entrypoint")),
                    f"sweep.{name}, {shown(value)}: {message}",
                    remedy,
                )
            if faults:
                break


def _ec2(settings: Sections) -> Iterator[Disagreement]:
    ec2 = settings.ec2
    if not ec2.types:
        counts = " or ".join(map(str, sorted({GPU_TYPES[name].gpus for name in ec2.named_types})))
        yield Disagreement(
            (("ec2", "gpus"), ("ec2", "instance-types")),
            f"ec2.gpus is {ec2.gpus}, and the types of ec2.instance-types have {counts}",
            f'write gpus = {counts}, or gpus = "auto"',
        )
    if ec2.policy != "expected-cost" and ec2.market != "spot-then-on-demand":
        yield Disagreement(
            (("ec2", "policy"), ("ec2", "market")),
            f'ec2.policy chooses between spot and on-demand, but ec2.market = "{ec2.market}" leaves no choice',
            'write market = "spot-then-on-demand", or remove policy',
        )
    if settings.limits.on_overrun == "escalate" and ec2.market == "spot":
        yield Disagreement(
            (("limits", "on-overrun"), ("ec2", "market")),
            'limits.on-overrun = "escalate" goes to on-demand, but ec2.market = "spot" forbids it',
            'write market = "spot-then-on-demand", or another on-overrun',
        )
    only = {"image": ec2.image is not None and ec2.image.startswith("ami-"), "subnet": ec2.subnet is not None}
    for name, given in only.items():
        if given and len(ec2.regions) > 1:
            yield Disagreement(
                (("ec2", name), ("ec2", "regions")),
                f"ec2.{name} exists in one region only, and ec2.regions names {len(ec2.regions)}",
                "name its region alone in ec2.regions",
            )
