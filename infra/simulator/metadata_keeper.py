"""Keeps what instances' metadata services say up to date: state, notices, and the role's credentials."""

import time

from gpu_offload.infra.simulator.identity import Identities
from gpu_offload.infra.simulator.metadata import metadata_document
from gpu_offload.infra.simulator.rented import RUN_TAG, Rented


class MetadataKeeper:
    """Writes metadata documents; renews credentials, which last `credential_seconds`, before they end."""

    def __init__(self, account: str, credential_seconds: float, identities: Identities) -> None:
        self._account = account
        self._seconds = credential_seconds
        self._identities = identities

    def document(self, one: Rented) -> dict[str, str]:
        """Return what the service of an instance says now."""
        return metadata_document(one.facts(self._account))

    def refresh(self, one: Rented) -> None:
        """Let the service say what is so now, with fresh credentials where they near their end."""
        if self.is_due(one):
            one.credentials = self._identities.issue(one.id, one.tags.get(RUN_TAG), self._seconds)
            one.credentials_end = time.time() + self._seconds
        one.host.set_metadata(self.document(one))

    def is_due(self, one: Rented) -> bool:
        """Whether an instance's credentials near their end."""
        return bool(one.role) and one.credentials_end - time.time() < min(300.0, self._seconds / 2)

    def renew(self, one: Rented) -> None:
        """Give an instance new credentials now."""
        one.credentials_end = 0.0
        self.refresh(one)
