"""The model card: what a version is, in Markdown with the metadata that the Hugging Face Hub reads.

https://huggingface.co/docs/hub/model-cards
"""

from typing import Any

import yaml

from gpu_offload.dataset.split import SPLITS
from gpu_offload.orchestrator.output.markdown import escape_markdown, table
from gpu_offload.orchestrator.output.metrics import class_table, metric_table, named
from gpu_offload.orchestrator.output.units import human_bytes, human_cost, human_duration, utc
from gpu_offload.orchestrator.registry.manifest import IndexEntry, Manifest
from gpu_offload.remote_job.result import Export

PIPELINES = {
    "detect": "object-detection",
    "segment": "image-segmentation",
    "classify": "image-classification",
    "pose": "keypoint-detection",
    "obb": "object-detection",
}
"""The Hub's tasks by ours: https://huggingface.co/tasks."""

DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def card(manifest: Manifest, entry: IndexEntry) -> str:
    """Return a version's model card. It is written once, so it holds neither aliases nor yanks."""
    head = yaml.dump(_metadata(manifest), Dumper=DUMPER, sort_keys=False, allow_unicode=True)
    title = escape_markdown(f"{_name(manifest)} {entry.semver or manifest.version}")
    parts = [f"---\n{head}---\n", f"# {title}\n", table([("", ""), *facts(manifest, entry).items()]) + "\n"]
    if manifest.metrics:
        metrics = table(metric_table(named(manifest.metrics)))
        parts.append(f"## Metrics\n\nOf the final validation.\n\n{metrics}\n")
    if manifest.per_class:
        parts.append(f"## By class\n\n{table(class_table(manifest.per_class))}\n")
    parts.append(_licence(manifest))
    return "\n".join(parts)


def _name(manifest: Manifest) -> str:
    return (manifest.repository or manifest.base_model).rsplit("/", 1)[-1]


def _metadata(manifest: Manifest) -> dict[str, Any]:
    task = PIPELINES.get(manifest.task)
    results = [
        {"type": name, "value": round(value, 4), "name": name}
        for name, value in named(manifest.metrics).items()
    ]
    found: dict[str, Any] = {}
    if manifest.license:
        # The Hub writes agpl-3.0 where SPDX has AGPL-3.0-only: https://huggingface.co/docs/hub/repositories-licenses
        found["license"] = manifest.license.lower().removesuffix("-only").removesuffix("-or-later")
    if _is_ultralytics(manifest):
        found["library_name"] = "ultralytics"
    if task is not None:
        found["pipeline_tag"] = task
    found["tags"] = ["gpu-offload", manifest.task]
    if task is not None and results:
        result = {
            "task": {"type": task},
            "dataset": {"name": f"fingerprint {manifest.fingerprint[:12]}", "type": "custom"},
            "metrics": results,
        }
        found["model-index"] = [{"name": _name(manifest), "results": [result]}]
    return found


def facts(manifest: Manifest, entry: IndexEntry | None) -> dict[str, str]:
    """Return the facts about a version, each by the name under which it is shown."""
    count, given = manifest.images or {}, manifest.hyperparameters or {}
    found = {
        "version": f"{entry.semver} ({manifest.version})" if entry and entry.semver else manifest.version,
        "published": utc(manifest.created_at, "%Y-%m-%d %H:%M UTC"),
        "task": manifest.task,
        "model": manifest.base_model,
        "classes": ", ".join(manifest.classes or ()),
        "images": ", ".join(f"{count[split]} {split}" for split in SPLITS if count.get(split)),
        "image size": manifest.image_size,
        "epochs": f"{manifest.epochs_completed} of {manifest.epochs}",
        "batch": manifest.batch,
        "seed": manifest.seed,
        "hyperparameters": ", ".join(f"{name} = {value}" for name, value in sorted(given.items())),
        "started from": _started_from(manifest),
        "parent": manifest.parent,
        "repository": manifest.repository,
        "commit": manifest.commit,
        "data": manifest.fingerprint,
        "training key": manifest.training_key,
        "trained on": manifest.where,
        "took": human_duration(manifest.seconds.actual),
        "cost": human_cost(manifest.cost_usd, manifest.where),
        "file": f"{manifest.model.name}, {human_bytes(manifest.model.size)}, sha256 {manifest.model.sha256}",
        **{f"as {export.format}": _export(export) for export in manifest.exports},
    }
    return {name: str(value) for name, value in found.items() if value not in {None, ""}}


def _started_from(manifest: Manifest) -> str | None:
    """Return the weights that a training started from; None for random ones."""
    if not manifest.weights_sha256:
        return None
    weights = f"weights {manifest.weights_sha256[:16]}"
    if manifest.init_from is None:
        return weights
    return f"version {manifest.init_from}, {weights}, warm start {manifest.warm_starts} in a row"


def _export(export: Export) -> str:
    return (
        f"{export.file.name}, {human_bytes(export.file.size)}, sha256 {export.file.sha256}; "
        f"{export.agreement:.1%} of its outputs are the model's on {export.images} held-out images"
    )


def _licence(manifest: Manifest) -> str:
    if not _is_ultralytics(manifest):
        return "## Licence\n\nThat of the training code and data of the repository named above.\n"
    return (
        "## Licence\n\nTrained with Ultralytics, which regards models trained with it as covered by AGPL-3.0 unless you "
        "hold their Enterprise licence. The data's licence is that of the repository named above.\n"
    )


def _is_ultralytics(manifest: Manifest) -> bool:
    return bool(manifest.environment.get("ultralytics"))
