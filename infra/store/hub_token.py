"""A token of the Hugging Face Hub for one repository, exchanged for the identity of a workflow's job."""

import os
import threading
import time
from dataclasses import dataclass, field
from urllib.parse import urlencode, urlsplit

from huggingface_hub import get_session
from huggingface_hub.utils import hf_raise_for_status  # type: ignore[attr-defined]

from gpu_offload.infra.store.hub_errors import EXCHANGE

RENEWED_S = 300.0
"""Seconds before its end from which a token is renewed."""


@dataclass
class JobToken:
    """The token for `repository`, in a job with `id-token: write` and without HF_TOKEN; renewed as often as needed.

    Source: https://huggingface.co/docs/hub/trusted-publishers. The Hub's client would do the same, for one repository of a
    process (HF_OIDC_RESOURCE): a second store then had the token of the first.
    """

    endpoint: str
    repository: str
    _token: str = field(default="", repr=False)
    _ends: float = 0.0
    _turn: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def get(self) -> str | None:
        """Return the token; None where the job has no identity, or a secret. Raises what `hub_errors` turns into ours."""
        address, secret = (os.environ.get(f"ACTIONS_ID_TOKEN_REQUEST_{name}") for name in ("URL", "TOKEN"))
        if not address or not secret or os.environ.get("HF_TOKEN"):
            return None
        with self._turn:
            now = time.monotonic()
            if now >= self._ends - RENEWED_S:
                self._token, seconds = self._exchanged(address, secret)
                self._ends = now + seconds
            return self._token

    def _exchanged(self, address: str, secret: str) -> tuple[str, float]:
        """Return a new token and the seconds that it lasts."""
        # The address has a query of its own, which the HTTP library would replace.
        asked = f"{address}{'&' if urlsplit(address).query else '?'}{urlencode({'audience': self.endpoint})}"
        identity = get_session().get(asked, headers={"Authorization": f"Bearer {secret}"})
        hf_raise_for_status(identity)
        wanted = {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token_type": "urn:ietf:params:oauth:token-type:id_token",
            "subject_token": identity.json()["value"],
            "resource": self.repository,
        }
        reply = get_session().post(f"{self.endpoint}{EXCHANGE}", json=wanted)
        hf_raise_for_status(reply)
        found = reply.json()
        return str(found["access_token"]), float(found.get("expires_in", 3600))
