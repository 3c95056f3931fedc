"""What former runs observed of EC2, as a run's record keeps it."""

from pydantic import Field

from gpu_offload.remote_job.wire import Wire


class PlaceSighting(Wire):
    """What a former run saw of spot capacity in a place (`capacity.place_name`) at a time, in Unix seconds."""

    place: str
    at: float
    is_up: bool
    watched: bool = False
    """It had not changed since the sighting before."""


class Experience(Wire):
    """What former runs saw of EC2, as it was when this run began."""

    capacity: tuple[PlaceSighting, ...] = ()
    """In order of time."""
    start_seconds: dict[str, tuple[float, ...]] = Field(default_factory=dict)
    """By instance type: seconds from a launch to the first training step."""
