"""After a publication: automatic retention, and a warning before the store's free tier is full."""

from gpu_offload.infra.store.errors import StoreError
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.cleanup.prune import prune
from gpu_offload.orchestrator.cleanup.retention import GB, Retention
from gpu_offload.orchestrator.cleanup.usage import tier_of, usage
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.output.units import human_bytes
from gpu_offload.orchestrator.registry.manifest import RegistryError
from gpu_offload.orchestrator.settings.load import Settings
from gpu_offload.orchestrator.settings.sections import RetentionSettings


def after_publication(store: ObjectStore, settings: Settings, console: Console) -> tuple[str, ...]:
    """Delete what the configuration does not keep; return warnings for the job's summary, also if the store refuses."""
    warnings: list[str] = []
    try:
        if settings.retention.mode != "off":
            delete = settings.retention.mode == "delete"
            done = prune(store, policy_of(settings.retention), delete=delete)
            if done.candidates:
                verb = "deleted" if delete else "would delete"
                names = ", ".join(f"{c.kind} {c.name}" for c in done.candidates)
                console.note(f"retention {verb} {human_bytes(done.freed)}: {names}")
        free = tier_of(settings.store_url, settings.store.endpoint_url)
        held = usage(store.list(""), free, model=0, users=0, updates=0)
        if found := held.warnings():
            remedy = "`offload prune` says what may go, and `[retention]` lets it go by itself"
            warnings += [f"the store holds {human_bytes(held.storage)}: {text}; {remedy}" for text in found]
    except (StoreError, RegistryError) as error:
        warnings.append(f"retention: {error}")
    for warning in warnings:
        console.warning(warning)
    return tuple(warnings)


def policy_of(settings: RetentionSettings) -> Retention:
    """Return what the configuration keeps."""
    below = None if settings.below_gb is None else round(settings.below_gb * GB)
    return Retention(keep=settings.keep, days=settings.days, below=below)
