"""What surrounds a run in its summary: the previous model, links."""

from dataclasses import dataclass

from gpu_offload.orchestrator.report.content import Before


@dataclass(frozen=True, slots=True)
class Around:
    """What a summary shows beside the run itself.

    Attributes:
        because: The plan's reason; the run's own where it is empty.
        reason: Why a person asked for it, in their words.
        before: The version before.
        model_url: The model's public address.
        pictures_url: A public picture of predictions.
        trouble: What ended the command, if something did.
        log: The end of the training's log.
        can_resume: Whether the same command would carry on.
        detached: Whether the instance trains on by itself.
        kept: Whether the job `keep` puts the model where `model_url` says, after this one.
        candidate: Why the new version did not become `stable`; empty if it did.
        moved: Whether `stable` means another version now.
    """

    because: str = ""
    reason: str = ""
    before: Before | None = None
    model_url: str | None = None
    pictures_url: str | None = None
    trouble: str = ""
    log: str = ""
    can_resume: bool = False
    detached: bool = False
    kept: bool = False
    moved: bool = False
    candidate: str = ""
