"""What surrounds a run in its summary: the previous model, links."""

from dataclasses import dataclass

from gpu_offload.orchestrator.report.content import Before


@dataclass(frozen=True, slots=True)
class Around:
    """What a summary shows beside the run itself."""

    because: str = ""
    """The plan's reason; the run's own where it is empty."""
    reason: str = ""
    """Why a person asked for it, in their words."""
    before: Before | None = None
    """The version before."""
    model_url: str | None = None
    """The model's public address."""
    pictures_url: str | None = None
    """A public picture of predictions."""
    trouble: str = ""
    """What ended the command, if something did."""
    log: str = ""
    """The end of the training's log."""
    can_resume: bool = False
    """Whether the same command would carry on."""
    detached: bool = False
    """Whether the instance trains on by itself."""
    kept: bool = False
    """Whether the job `keep` puts the model where `model_url` says, after this one."""
    moved: bool = False
    """Whether `stable` means another version now."""
    candidate: str = ""
    """Why the new version did not become `stable`; empty if it did."""
