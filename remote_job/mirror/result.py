"""Uploads a finished training's result: artifacts first, result.json last."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic import ValidationError

from gpu_offload.infra.store.errors import StoreError
from gpu_offload.remote_job.files import regular_file
from gpu_offload.remote_job.mirror.target import DOCUMENT_BYTES, MirrorError, RunFolder
from gpu_offload.remote_job.result import Artifact, TrainingResult


@dataclass
class ResultUpload:
    """One upload with a time limit, in a thread of its own because a store may hang.

    `pauses` are seconds between tries; the last one repeats.
    """

    target: RunFolder
    pauses: Sequence[float]
    _failure: StoreError | OSError | None = None
    _done: threading.Event = field(default_factory=threading.Event)

    def send(self, seconds: float) -> bool:
        """Upload the result and return whether there is one.

        Raises:
            MirrorError: It is not there after `seconds`, or it is not this training's.
        """
        try:
            body, artifacts = self._staged()
        except FileNotFoundError:
            return False
        deadline = time.monotonic() + seconds
        sender = threading.Thread(
            target=self._try, args=(body, artifacts, deadline), name="mirror-result", daemon=True
        )
        sender.start()
        sender.join(seconds)
        if not self._done.is_set():
            why = self._failure or f"no answer within {seconds:.0f} s"
            raise MirrorError(
                f"the result is complete in {self.target.output / 'result'}, but the store did not take it ({why}); "
                "start the training again when the store answers, and it is uploaded without training again"
            )
        return True

    def _try(self, body: bytes, artifacts: tuple[Artifact, ...], deadline: float) -> None:
        tries = 0
        while not self._done.is_set():
            try:
                self._upload(body, artifacts)
                self.target.trouble.took("result")
                self._done.set()
            except (StoreError, OSError) as error:
                self._failure = error
                self.target.refused("result", error)
                pause = self.pauses[min(tries, len(self.pauses) - 1)]
                tries += 1
                # A link or a pipe in place of a file stays one, however often it is tried.
                hopeless = isinstance(error, regular_file.UnexpectedFileError)
                if hopeless or self.target.trouble.given_up or time.monotonic() + pause > deadline:
                    return
                time.sleep(pause)

    def _upload(self, body: bytes, artifacts: tuple[Artifact, ...]) -> None:
        prefix = f"{self.target.root}/result"
        for artifact in artifacts:
            self.target.upload(prefix, "result", artifact)
        self.target.store.put(f"{prefix}/result.json", body)

    def _staged(self) -> tuple[bytes, tuple[Artifact, ...]]:
        """Return the staged result's document and the files it names. Raises FileNotFoundError, MirrorError."""
        folder = self.target.output / "result"
        try:
            body = regular_file.read(self.target.output, "result/result.json", limit=DOCUMENT_BYTES)
            result = TrainingResult.model_validate_json(body)
        except FileNotFoundError:
            raise
        except (OSError, ValidationError) as error:
            raise MirrorError(f"{folder}: holds no result of ours: {error}") from error
        if not self.target.owns(result):
            raise MirrorError(f"{folder}: the result is another training's, or names files elsewhere")
        return body, result.artifacts
