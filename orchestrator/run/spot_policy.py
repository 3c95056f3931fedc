"""Spot, on-demand, or wait: how a training keeps its deadline for little money.

A training has *slack*: the time that may still be lost before only on-demand, started at once and never reclaimed,
keeps the deadline. Waiting uses it up, and so does every change of machine; training on either market does not. So
slack is what buys spot hours, and the rule is about when to spend it:

1. Spot while there is spot, as long as losing it at the worst moment would still leave time for on-demand.
2. Where there is none, wait for it, as long as more slack is left than the rest of the time is expected to need for
   its changes of machine, and a share of what the run began with for worse luck than that.
3. Otherwise on-demand, and back to spot when it is there again and what is left is worth two changes.

See docs/deadline.md for where the two numbers come from and what the rule is worth.
"""

from dataclasses import dataclass

from gpu_offload.orchestrator.offers.offer import Market

CHANGES_PER_HOUR = 0.55
"""For how many changes of machine slack is kept; spot capacity comes or goes 0.4 times an hour in the mean."""

KEPT_SHARE = 0.2
"""Of the slack at the beginning, in proportion to the time that is left: kept for worse luck than that."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where a training with checkpoints stands. Times are seconds.

    Attributes:
        left: What is left to train, on either market.
        until_deadline: From now.
        whole: From the beginning of the run to its deadline.
        work: The whole training.
        overhead: From a launch to where the training goes on, and what is trained again then.
        pause: How long a wait lasts before this is asked again.
        running: The market of the machine that trains, None where none does.
        spot_open: Whether there is spot capacity, as far as is known.
    """

    left: float
    until_deadline: float
    whole: float
    work: float
    overhead: float
    pause: float
    running: Market | None
    spot_open: bool

    @property
    def slack(self) -> float:
        """What may be lost before on-demand has to be started; below zero it is too late to start anything."""
        return self.until_deadline - self.left - self.overhead

    @property
    def reserve(self) -> float:
        """The slack that what is left of the time is expected to need."""
        changes = self.until_deadline / 3600 * CHANGES_PER_HOUR
        spare = max(0.0, self.whole - self.work) * self.until_deadline / self.whole
        return changes * self.overhead + KEPT_SHARE * spare


def choose_market(at: Position) -> Market | None:
    """Return where to train now; None is to wait for spot.

    The deadline is kept where it could be: a position with slack is never left for one without, whatever spot does.
    """
    if at.running == "spot" and at.spot_open:
        return "spot"
    if at.spot_open and at.slack >= at.overhead and not (at.running and at.left <= 2 * at.overhead):
        return "spot"
    if at.running is None and not at.spot_open and at.slack - at.pause >= at.reserve:
        return None
    return "on-demand"
