"""What the action does in a step: its inputs from the environment, its answers to the runner.

The inputs come in variables, never in a script's text: whatever a branch or a person writes into one stays a value.
"""

import os
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from gpu_offload.errors import EXIT_FAILED, EXIT_RESUMABLE, EXIT_USAGE, OffloadError
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.github.cached_store import KeptFolder
from gpu_offload.orchestrator.github.console import GitHubConsole
from gpu_offload.orchestrator.github.event import Event
from gpu_offload.orchestrator.github.inputs import Inputs, InputsError
from gpu_offload.orchestrator.github.plan_summary import plan_sentence, plan_summary
from gpu_offload.orchestrator.github.runner import Runner
from gpu_offload.orchestrator.github.small_summaries import (
    clean_up_summary,
    done_summary,
    kept_summary,
    tend_summary,
    trouble_summary,
)
from gpu_offload.orchestrator.github.summary import run_summary
from gpu_offload.orchestrator.github.summary_context import Around, Before
from gpu_offload.orchestrator.output.console import plain
from gpu_offload.orchestrator.plan.training_key import version_of
from gpu_offload.orchestrator.registry import publish
from gpu_offload.orchestrator.registry.manifest import STABLE, model_key
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.settings.load import Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gpu_offload.orchestrator.lifecycle.train_report import TrainReport
    from gpu_offload.orchestrator.plan.planned import Planned
    from gpu_offload.orchestrator.run.record import RunRecord

CLEAN_UP = "the workflow's clean-up"
CLOCK_SLACK_S = 2.0
"""Seconds between our clock and the journal's when looking for a run that has just ended."""


class UntrustedEventError(OffloadError):
    """What was asked for may not be done on this event."""

    exit_code = EXIT_USAGE


@dataclass
class Step:
    """One step of a workflow."""

    inputs: Inputs
    event: Event
    runner: Runner
    console: GitHubConsole
    settings: Settings

    def run(self) -> int:
        """Do what the inputs ask for; return the exit code.

        Raises:
            UntrustedEventError: it would spend or publish, and a stranger may have caused it.
        """
        command = self.inputs.command
        if command != "plan" and not self.event.is_trusted:
            raise UntrustedEventError(
                f"'{command}' does not run on {self.event.name}: it would give credentials or a place in the registry "
                "to code that nobody has merged. Let a push to the default branch, a schedule or a person start it; "
                "'plan' runs anywhere"
            )
        commands: Mapping[str, Callable[[], int]] = {
            "plan": self.plan,
            "train": self.train,
            "pack": self.pack,
            "stop": self.stop,
            "tend": self.tend,
        }
        return commands[command]()

    def plan(self) -> int:
        """Show what would be done. Needs no credentials, and uses none."""
        from gpu_offload.orchestrator.github.store import readable_store
        from gpu_offload.orchestrator.plan.planner import Planning
        from gpu_offload.orchestrator.plan.receipt import receipt_text
        from gpu_offload.orchestrator.workspace import Workspace

        store = readable_store(self.settings, self.console)
        if isinstance(store, KeptFolder) and self.event.is_private:
            self.console.warning(
                "this repository is private, so its release cannot be read without credentials: every push would train "
                "again. Set store.url to a bucket and run `offload init` again"
            )
        planning = Planning(self.settings, store, Workspace.beside(self.settings.root), self.console)
        planned = planning.plan(on=self.inputs.on, calibrate=self.inputs.calibrate, only_if_it_matters=True)
        report = planned.report
        option = report.decision.option
        self.runner.outputs(
            {
                "where": report.decision.where,
                "version": planned.version,
                "training-key": planned.training_key,
                "already-trained": _flag(report.already_trained is not None),
                "why": plain(report.decision.why),
                "estimate-seconds": f"{option.interval.likely:.0f}" if option else "",
                "estimate-usd": f"{option.cost_likely:.4f}" if option else "",
            }
        )
        self.console.text(receipt_text(report))
        if self.inputs.measured_later and report.decision.where != "cpu" and report.already_trained is None:
            self.console.text("measuring this runner before anything is rented")
            return 0
        self.runner.summary(plan_summary(report, proposed=self.event.is_pull_request))
        self.console.notice(plan_sentence(report, proposed=self.event.is_pull_request))
        if report.decision.where == "none" and report.already_trained is None:
            self.console.warning(f"{report.decision.why} Nothing will be trained until that changes.")
        return 0

    def train(self) -> int:
        """Train and publish, or carry on with what was begun; then tell of it, however it went."""
        from gpu_offload.orchestrator.github.store import store_on_runner
        from gpu_offload.orchestrator.lifecycle.train import Training
        from gpu_offload.orchestrator.lifecycle.train_report import trained_text
        from gpu_offload.orchestrator.offers.ec2 import ec2_offers
        from gpu_offload.orchestrator.plan.planner import Planning
        from gpu_offload.orchestrator.plan.receipt import receipt_text
        from gpu_offload.orchestrator.workspace import Workspace

        began = time.time()
        store, workspace = store_on_runner(self.settings, os.environ), Workspace.beside(self.settings.root)
        before = _newest(store)
        planned = Planning(
            self.settings,
            store,
            workspace,
            self.console,
            offers=lambda: ec2_offers(self.settings.ec2, self.console),
        ).plan(on=self.inputs.on, calibrate=self.inputs.calibrate, only_if_it_matters=True)
        if planned.report.already_trained is None and not self.inputs.because:
            self.console.text(receipt_text(planned.report))
        try:
            done = Training(planned, store, workspace, self.console, detach=self.inputs.detach).run()
        except OffloadError as error:
            resumable = error.exit_code == EXIT_RESUMABLE
            self._tell_of_failure(planned, store, began, str(error), can_resume=resumable)
            raise
        self.console.text(trained_text(done))
        self._tell(planned, store, done, before)
        return 0

    def _tell(
        self, planned: "Planned", store: ObjectStore, done: "TrainReport", before: Before | None
    ) -> None:
        from gpu_offload.orchestrator.github.predictions import publish_pictures
        from gpu_offload.orchestrator.report.load import gather

        # A run that was over long ago may have left the journal: a skip does not need it.
        skipped = done.status == "already_trained"
        report = None if skipped else gather(store, self.settings.store, done.run)
        self.runner.outputs(
            {
                "where": done.where,
                "version": done.version,
                "run": done.run,
                # What is accounted for, store and disks included; nothing where nothing was done.
                "cost-usd": f"{report.bill.total if report else 0:.4f}",
                "seconds": f"{done.seconds:.0f}",
                "model-url": done.model_url or "",
                "already-trained": _flag(skipped),
                "training-key": done.training_key,
                "why": self.inputs.because or plain(planned.report.decision.why),
            }
        )
        around = Around(
            because=self.inputs.because,
            reason=self.inputs.reason,
            before=before if before and before.version != done.version else None,
            model_url=done.model_url,
            detached=done.status == "detached",
            kept=done.status == "trained" and isinstance(store, KeptFolder),
        )
        if report is None:
            self.runner.summary(done_summary(done.version, around, moved=done.stable_moved))
            self.console.notice(f"already trained: version {done.version}")
            return
        if done.status == "trained":
            pictures = publish_pictures(planned, store, done.version, self.console)
            around = replace(around, pictures_url=pictures)
        self.runner.summary(run_summary(report, around))
        self.console.notice(plain(report.title))

    def _tell_of_failure(
        self, planned: "Planned", store: ObjectStore, began: float, trouble: str, *, can_resume: bool
    ) -> None:
        """Tell of a run that ended without a model, or of there being none."""
        from gpu_offload.orchestrator.lifecycle.logs import read_log
        from gpu_offload.orchestrator.report.load import gather

        run = _latest(store, planned.training_key, began)
        self.runner.outputs(
            {
                "where": planned.report.decision.where,
                "version": planned.version,
                "run": run.id if run else "",
                "seconds": f"{time.time() - began:.0f}",
                "already-trained": _flag(False),
                "training-key": planned.training_key,
            }
        )
        if run is None:
            self.runner.summary(trouble_summary(trouble))
            self.runner.summary(plan_summary(planned.report))
            return
        report = gather(store, self.settings.store, run.id)
        around = Around(
            because=self.inputs.because,
            reason=self.inputs.reason,
            trouble=trouble,
            log="".join(read_log(store, run.id)),
            can_resume=can_resume,
        )
        self.runner.summary(run_summary(report, around))

    def pack(self) -> int:
        """Pack what has to outlive this runner, if anything does, for a job that may write to the repository."""
        from gpu_offload.orchestrator.github.release import pack_for_keeping
        from gpu_offload.orchestrator.github.store import store_on_runner

        if not self.inputs.training_key:
            raise InputsError("'pack' needs the input training-key")
        store = store_on_runner(self.settings, os.environ)
        if not isinstance(store, KeptFolder):
            self.console.text(f"{store.url} outlives this runner by itself")
            return 0
        folder = Path(os.environ["RUNNER_TEMP"]) / "gpu-offload-packed"
        packed = pack_for_keeping(store, self.inputs.training_key, folder)
        if packed.is_empty:
            self.console.text(f"everything is kept at {store.kept.url} already")
            return 0
        self.runner.outputs(
            {"packed": str(folder), "artifact": f"gpu-offload-{version_of(self.inputs.training_key)}"}
        )
        told = f"version {packed.version}" if packed.version else f"{packed.unfinished} unfinished run(s)"
        self.console.text(f"packed {told if not packed.moved or packed.version else 'what stable means'}")
        return 0

    def stop(self) -> int:
        """End what a training has rented, found by its key and by tag: whoever began it may be gone."""
        from gpu_offload.orchestrator.lifecycle.stop import stop_run
        from gpu_offload.orchestrator.lifecycle.train import is_rented
        from gpu_offload.orchestrator.registry import stores

        store = stores.store_of(self.settings)
        journal = Journal(store)
        if self.inputs.run:
            runs = [self.inputs.run]
        elif self.inputs.training_key:
            runs = [r.id for r in journal.runs_of(self.inputs.training_key) if is_rented(r.candidates)]
        else:
            raise InputsError("'stop' needs the input run or training-key")
        ended: list[str] = []
        for run in runs:
            self.console.stage(f"looking for what run {run} has left")
            ended += stop_run(self.settings, store, run, self.console, reason=self.inputs.reason or CLEAN_UP)
        found = f"terminated {', '.join(ended)}" if ended else "nothing was left to terminate"
        self.runner.summary(clean_up_summary(len(runs), ended))
        if ended:
            self.console.warning(
                f"the clean-up terminated {', '.join(ended)}: the job was cancelled, or ended before it could"
            )
        else:
            self.console.text(found)
        return 0

    def tend(self) -> int:
        """Bring every open run as far as it goes, and end what belongs to none."""
        from gpu_offload.orchestrator.cleanup.tend import Tend
        from gpu_offload.orchestrator.registry import stores

        tended = Tend(self.settings, stores.store_of(self.settings), self.console).tend()
        self.console.text(tended.text())
        for failure in tended.failures:
            self.console.error(failure)
        self.runner.summary(tend_summary(tended.text(), tended.failures))
        return EXIT_FAILED if tended.failures else 0


def keep(inputs: Inputs, event: Event, runner: Runner, console: GitHubConsole) -> int:
    """Bring what a training packed into the repository's release. Needs no configuration, and reads no dataset.

    Raises:
        UntrustedEventError: a stranger may have caused it.
    """
    from gpu_offload.infra.github.release import GitHubRelease
    from gpu_offload.infra.store.web import asset_name, release_address
    from gpu_offload.orchestrator.github import release as keeping
    from gpu_offload.orchestrator.github import store

    if not event.is_trusted:
        raise UntrustedEventError(f"'keep' does not run on {event.name}: it publishes")
    if not inputs.token:
        raise InputsError("'keep' needs the input token: ${{ github.token }}, in a job with contents: write")
    api = os.environ.get("GITHUB_API_URL") or "https://api.github.com"
    server = os.environ.get("GITHUB_SERVER_URL") or "https://github.com"
    release = GitHubRelease(api, event.repository, inputs.token, store.TAG)
    packed = inputs.packed.resolve()
    kept = keeping.keep(release, packed, console.note)
    if kept is None and not list(packed.glob("unfinished-*")):
        return 0
    address = release_address(server, event.repository, store.TAG)
    url = f"{address}/{asset_name(model_key(kept.version))}" if kept else ""
    runner.outputs({"model-url": url, "version": kept.version if kept else ""})
    runner.summary(kept_summary(address, kept.version if kept else None, url, kept.model.size if kept else 0))
    console.notice(f"kept: {url}" if kept else f"kept an unfinished run in {address}")
    return 0


def _newest(store: ObjectStore) -> Before | None:
    """Return the version that `stable` means, to compare a new one with."""
    alias = publish.alias_of(store, STABLE)
    manifest = publish.manifest_of(store, alias.version) if alias else None
    return Before(manifest.version, manifest.metrics) if manifest else None


def _latest(store: ObjectStore, training_key: str, began: float) -> "RunRecord | None":
    """Return the run that a failed command was about: one that is open, or ended meanwhile."""
    journal = Journal(store)
    runs = journal.runs_of(training_key)
    if not runs:
        return None
    outcome = journal.outcome(runs[-1].id)
    return runs[-1] if outcome is None or outcome.at >= began - CLOCK_SLACK_S else None


def _flag(value: bool) -> Literal["true", "false"]:
    return "true" if value else "false"


def main() -> int:
    """Run the step that the environment describes; return its exit code. Every failure becomes an annotation."""
    console = GitHubConsole(sys.stdout)
    runner = Runner(os.environ)
    for mask in runner.masks():
        sys.stdout.write(f"{mask}\n")
    sys.stdout.flush()
    try:
        inputs = Inputs.of(os.environ)
        if inputs.command == "keep":
            return keep(inputs, Event.of(os.environ), runner, console)
        if inputs.role:
            os.environ["AWS_ROLE_ARN"] = inputs.role
        settings = load_settings(
            inputs.directory.resolve(),
            file=inputs.config,
            overrides=inputs.settings,
            environment=os.environ,
        )
        return Step(inputs, Event.of(os.environ), runner, console, settings).run()
    except (InputsError, UntrustedEventError) as error:
        console.error(str(error))
        runner.summary(trouble_summary(str(error)))
        return error.exit_code
    except KeyboardInterrupt:
        console.error("told to end before anything was begun")
        return EXIT_RESUMABLE
    except OffloadError as error:
        console.error(str(error))
        return error.exit_code
    finally:
        console.close()


if __name__ == "__main__":
    sys.exit(main())
