"""Cancels persistent spot requests with our tag: each would launch again after a termination."""

from collections.abc import Callable, Sequence

from gpu_offload.infra.aws.errors import CloudError, DeniedError
from gpu_offload.infra.aws.spot_request import SpotRequests


def cancel_persistent_requests(
    regions: Sequence[str],
    store: str,
    *,
    dry_run: bool,
    note: Callable[[str], object],
    fail: Callable[[str], object],
) -> None:
    """Cancel every persistent request with this store's mark or none; `note` and `fail` get what happened."""
    for region in regions:
        requests = SpotRequests(region)
        try:
            found = [request for request in requests.find() if request.store in {None, store}]
        except DeniedError as error:
            note(f"spot requests in {region} were not looked at: {error}")
            continue
        except CloudError as error:
            fail(f"spot requests in {region} could not be looked at: {error}")
            continue
        for request in found:
            verb = "would cancel" if dry_run else "cancelling"
            note(f"{verb} the persistent spot request {request.id} in {region} (run {request.run})")
            if dry_run:
                continue
            try:
                requests.cancel(request.id)
            except CloudError as error:
                fail(f"spot request {request.id} in {region} was not cancelled: {error}")
