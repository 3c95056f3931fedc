"""Reports a training's progress: events as JSON lines, and a heartbeat."""

import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpu_offload.remote_job.files import durable
from gpu_offload.remote_job.result import EventName, Heartbeat, ProgressEvent, State
from gpu_offload.remote_job.spec import TrainingSpec

BATCH_INTERVAL = 0.5
"""Seconds between two `batch` events on standard output."""
BATCH_INTERVAL_FILE = 5.0
"""Seconds between two `batch` events in progress.jsonl, which is uploaded again and again."""
HEARTBEAT_INTERVAL = 5.0


def boot_id() -> str:
    """Return an id that changes when the machine restarts; empty where the kernel gives none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


class Progress:
    """Writes progress.jsonl and heartbeat.json below the output, and hands each event line to `emit`.

    A training goes on when its disk is full or its reader is gone: progress that cannot be written is lost.
    """

    def __init__(self, spec: TrainingSpec, emit: Callable[[str], None] | None = None) -> None:
        self._emit = emit
        self._output = Path(spec.output)
        self._output.mkdir(parents=True, exist_ok=True)
        self._events = (self._output / "progress.jsonl").open("a", encoding="utf-8")
        self._lock, self._beat_lock = threading.Lock(), threading.Lock()
        self._last_batch = self._last_batch_file = 0.0
        self._beat: dict[str, Any] = {
            "run": spec.run,
            "attempt": spec.attempt,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "boot_id": boot_id(),
            "epochs_completed": 0,
            "epochs": spec.epochs,
            "state": "starting",
        }
        self._closed = threading.Event()
        self._pulse = threading.Thread(target=self._beat_on, name="heartbeat", daemon=True)
        self.heartbeat()
        self._pulse.start()

    def event(self, event: EventName, **fields: Any) -> None:
        """Report something that happened; `fields` are those of ProgressEvent."""
        if event == "epoch":  # the user's own training need not report batches
            self._beat.setdefault("trains_since", time.time() - (fields.get("seconds") or 0.0))
        self._write(ProgressEvent.measured(event=event, time=time.time(), **fields), to_file=True)

    def stage(self, name: str, seconds: float) -> None:
        """Report a stage that is over."""
        self.event("stage", stage=name, seconds=round(seconds, 4))

    def batch(
        self, batch: int, batches: int, *, epoch: int, losses: Callable[[], dict[str, float]], seconds: float
    ) -> None:
        """Report a finished batch, unless another was reported just before; batch and epoch are counted from 1.

        `losses` is called only when the event is written: reading a loss makes a GPU wait.
        """
        self._beat.update(batch=batch, batches=batches)
        self._beat.setdefault("trains_since", time.time() - seconds)
        now = time.monotonic()
        if now - self._last_batch < BATCH_INTERVAL and batch != batches:
            return
        self._last_batch = now
        to_file = now - self._last_batch_file >= BATCH_INTERVAL_FILE
        if to_file:
            self._last_batch_file = now
        if self._emit is None and not to_file:
            return
        event = ProgressEvent.measured(
            event="batch",
            time=time.time(),
            epoch=epoch,
            epochs=self._beat["epochs"],
            batch=batch,
            batches=batches,
            losses=finite(losses()),
            seconds=round(seconds, 3),
        )
        self._write(event, to_file=to_file)

    def update(self, *, state: State | None = None, **fields: Any) -> None:
        """Change the heartbeat; a change of state is written at once."""
        self._beat.update(fields)
        if state is not None and state != self._beat["state"]:
            self._beat["state"] = state
            self.heartbeat()

    def heartbeat(self) -> None:
        """Write heartbeat.json now."""
        # Two threads call this: without the lock an older state could replace a newer one.
        with self._beat_lock:
            beat = Heartbeat.measured(time=time.time(), **self._beat)
            path = self._output / "heartbeat.json"
            self._safely(
                lambda: durable.write(path, beat.model_dump_json(exclude_none=True).encode(), durable=False)
            )

    def close(self) -> None:
        """Stop the heartbeat and close the files."""
        self._closed.set()
        self._pulse.join()
        self.heartbeat()
        self._safely(self._events.close)

    def _beat_on(self) -> None:
        while not self._closed.wait(HEARTBEAT_INTERVAL):
            self.heartbeat()

    def _write(self, event: ProgressEvent, *, to_file: bool) -> None:
        line = event.model_dump_json(exclude_none=True)
        with self._lock:
            if to_file:
                self._safely(lambda: self._append(line))
            if self._emit is not None:
                emit = self._emit
                self._safely(lambda: emit(line))

    def _append(self, line: str) -> None:
        self._events.write(line + "\n")
        self._events.flush()

    def _safely(self, action: Callable[[], object]) -> None:
        try:
            action()
        except (OSError, ValueError):
            return


def finite(values: dict[str, Any]) -> dict[str, float]:
    """Return the numbers that JSON can carry, as floats; NaN and infinities are left out."""
    result = {}
    for name, value in values.items():
        number = float(value)
        if number - number == 0:  # neither NaN nor infinite, which JSON has no numbers for
            result[name] = round(number, 6)
    return result
