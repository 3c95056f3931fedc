"""Where a bucket is."""

from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.infra.store.s3 import S3Store


def bucket_region(store: ObjectStore) -> str | None:
    """Return the region that a bucket says it is in; None for another store, and where it does not answer."""
    return store.region() if isinstance(store, S3Store) else None
