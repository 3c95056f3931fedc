"""The spec of an attempt on an instance or a node: the run's, with paths and keys of that machine."""

from gpu_offload.infra.instance.software import HostSoftware
from gpu_offload.infra.ssh.client import SshHost
from gpu_offload.orchestrator.backends.staging import weights_key
from gpu_offload.orchestrator.plan.candidate import Project
from gpu_offload.orchestrator.run.record import RunRecord
from gpu_offload.remote_job.spec import DatasetRef, StoreRef, TrainingSpec

UNPACK = r"""
set -e
become=; [ "$(id -u)" = 0 ] || [ -n "${GPU_OFFLOAD_ROOT+set}" ] || become="sudo -n"
echo "$1  $2" | sha256sum --check --quiet --status || { echo "the archive did not arrive whole" >&2; exit 1; }
$become mkdir -p "$3"
$become tar -xf "$2" -C "$3" --no-same-owner --no-same-permissions
$become chmod -R a+rX "$3"
"""
"""SHA256, ARCHIVE, FOLDER: unpacks the user's own files where the training, as its own user, can read them."""


def remote_spec(
    run: RunRecord,
    attempt: int,
    store: StoreRef,
    *,
    dataset: str,
    output: str,
    project: str | None,
    gpus: int = 1,
) -> TrainingSpec:
    """Return the spec of an attempt on an instance: `dataset` is a key, `output` and `project` are folders there."""
    own_model = run.project.model if run.project else None
    return run.spec.model_copy(
        update={
            "run": run.id,
            "attempt": attempt,
            "output": output,
            "gpus": max(1, gpus),
            "store": store,
            "project": project if run.spec.entrypoint else None,
            "model": f"{project}/{own_model}" if own_model else run.spec.model,
            "dataset": DatasetRef(fingerprint=run.fingerprint, archive=dataset),
            "weights": run.spec.weights
            and run.spec.weights.model_copy(
                update={"path": None, "key": weights_key(run.id, run.spec.weights.sha256)}
            ),
        }
    )


def send_project(host: SshHost, instance: HostSoftware, project: Project, archive: bytes) -> str:
    """Send the user's own files to an instance and return the folder that they are in. Raises HostError."""
    path = f"{instance.inbox}/{project.sha256}.tar"
    folder = f"{instance.root}/var/lib/gpu-offload/projects/{project.sha256[:16]}"
    host.put(archive, path)
    host.run(["sh", "-c", UNPACK, "unpack", project.sha256, path, folder], timeout=120)
    return folder
