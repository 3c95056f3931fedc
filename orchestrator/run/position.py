"""Where a training with checkpoints stands between the beginning of its run and its deadline."""

from dataclasses import dataclass, replace

from gpu_offload.orchestrator.offers.offer import Market
from gpu_offload.orchestrator.run.availability import Belief


@dataclass(frozen=True, slots=True)
class Standing:
    """A training under some policy. Times are seconds, money is seconds of on-demand."""

    left: float
    paid: float = 0.0
    running: Market | None = None
    """The market of the machine that runs, None where none does."""
    pending: float = 0.0
    """Overhead of that machine that is still ahead."""

    def after(
        self, choice: Market | None, seconds: float, *, overhead: float, spot_price: float
    ) -> "Standing":
        """Return where it stands after a choice has run for a while; a finished training pays nothing more."""
        if choice is None or self.left <= 0:
            return Standing(self.left, self.paid)
        ahead = self.pending if choice == self.running else overhead
        used = min(seconds, ahead + self.left)
        price = spot_price if choice == "spot" else 1.0
        left = max(0.0, self.left - max(0.0, seconds - ahead))
        return Standing(left, self.paid + used * price, choice, max(0.0, ahead - seconds))

    def reclaimed(self) -> "Standing":
        """Return it without its spot instance, where it has one."""
        return Standing(self.left, self.paid) if self.running == "spot" else self


CHANGES_PER_HOUR = 0.8
LEAST_RESERVE, MOST_RESERVE = 0.25, 0.6
"""Reserve of slack for waiting: the number of changes of machine an hour to allow for until the deadline, and bounds as
shares of the slack at the beginning, in proportion to the time left."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where a training with checkpoints stands. Times are seconds."""

    left: float
    """What is left to train, on either market."""
    until_deadline: float
    whole: float
    """From the beginning of the run to its deadline."""
    work: float
    overhead: float
    """From a launch to where the training goes on, and what is trained again then."""
    pause: float
    """How long a wait lasts before the next decision."""
    running: Market | None
    """The market of the machine that trains, None where none does."""
    spot_open: bool
    """Whether there is spot capacity, as far as is known."""
    spot_price: float = 0.33
    """Of an hour, relative to on-demand."""
    pending: float = 0.0
    """Overhead of the running machine that is still ahead."""
    belief: Belief | None = None
    """What earlier sightings say about spot capacity; None where there are none."""
    now: float = 0.0
    """On the clock of the belief."""
    paid: float = 0.0
    """What was paid so far, in seconds of on-demand."""
    rival: Standing | None = None
    """Where Uniform Progress would stand now, by the same sightings; None to do without that bound."""
    margin: float = 0.0
    """How long on-demand can be refused from now on, in all."""
    reclaims: int = 0
    """Number of spot instances that EC2 reclaimed in one place within the last `spot_policy.BREAKER_S`."""

    @property
    def slack(self) -> float:
        """What can be lost before on-demand has to be started; below zero it is too late for all that can go wrong."""
        return self.until_deadline - self.left - self.overhead - self.margin

    @property
    def floor(self) -> float:
        """Share of the slack at the beginning that waiting must not use, in proportion to the time left."""
        changes = CHANGES_PER_HOUR * self.whole / 3600 * self.overhead
        return min(MOST_RESERVE, max(LEAST_RESERVE, changes / max(1.0, self._spare)))

    @property
    def reserve(self) -> float:
        """The slack that waiting must not use."""
        return self.floor * self._spare * self.until_deadline / self.whole

    @property
    def patience(self) -> float:
        """How much longer a wait is allowed, in seconds, if spot stays away."""
        # The reserve shrinks with the time left, while the slack shrinks by the whole wait.
        falls = self.reserve / max(1.0, self.until_deadline)
        return max(0.0, (self.slack - self.reserve) / (1 - falls))

    @property
    def _spare(self) -> float:
        return max(0.0, self.whole - self.work - self.overhead - self.margin)

    @property
    def standing(self) -> Standing:
        """The same as a standing."""
        return Standing(self.left, self.paid, self.running, self.pending)

    def of(self, standing: Standing) -> "Position":
        """Return the position of another training with the same deadline and the same sightings."""
        standing = standing if self.spot_open else standing.reclaimed()
        return replace(
            self,
            left=standing.left,
            paid=standing.paid,
            running=standing.running,
            pending=standing.pending,
            rival=None,
        )
