"""State of a training in a replay of observed spot capacity."""

from dataclasses import dataclass

from gpu_offload.orchestrator.offers.offer import Market


@dataclass(frozen=True, slots=True)
class Standing:
    """A training under some policy. Times are seconds, money is seconds of on-demand."""

    left: float
    """What is left to train."""
    paid: float = 0.0
    """So far."""
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
