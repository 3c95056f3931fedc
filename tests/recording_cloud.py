"""A simulated cloud that remembers what it was asked."""

import time

from gpu_offload.infra.simulator.cloud import SimulatedCloud


class Recording(SimulatedCloud):
    """A simulated cloud that remembers what was asked of EC2."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.asked = []

    def before(self, call):
        self.asked.append((time.time(), call))
        return super().before(call)

    def of(self, operation):
        return [call for _, call in self.asked if call.operation == operation]

    def times_of(self, operation):
        return [at for at, call in self.asked if call.operation == operation]
