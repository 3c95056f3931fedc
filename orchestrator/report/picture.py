"""The picture of predictions that a training drew, read as the untrusted file that it is."""

from hashlib import sha256

from gpu_offload.infra.store.errors import StoreError
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.run.record import run_key
from gpu_offload.remote_job.result import PREDICTIONS, TrainingResult

PNG = b"\x89PNG\r\n\x1a\n"
"""What every PNG begins with."""

LARGEST_PICTURE = 8 << 20
"""Bytes; a page or a release shows nothing larger."""


def read_picture(store: ObjectStore, run: str, result: TrainingResult | None) -> bytes | None:
    """Return the PNG that a run's result names, None where there is none that can be shown."""
    drawn = next((extra for extra in result.extras if extra.name == PREDICTIONS), None) if result else None
    if drawn is None or drawn.size > LARGEST_PICTURE:
        return None
    key = run_key(run, f"result/{PREDICTIONS}")
    try:
        # The size comes first: under this key may be anything.
        there = store.stat(key)
        if there is None or there.size != drawn.size:
            return None
        body, _ = store.read(key)
    except StoreError:
        return None
    return body if body.startswith(PNG) and sha256(body).hexdigest() == drawn.sha256 else None
