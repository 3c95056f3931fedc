"""An `offload` command as a process whose clock is wrong, and that knows how late its simulated cloud shows an instance.

python tests/chaos_driver.py COMMAND ...
"""

import os
import time

_true, _skew = time.time, float(os.environ.get("CHAOS_SKEW", "0"))
time.time = lambda: _true() + _skew

from gpu_offload.orchestrator.cli import main  # noqa: E402
from gpu_offload.orchestrator.run import liveness  # noqa: E402

# AWS shows an instance within five minutes, this cloud within its lag: waiting longer proves nothing.
liveness.VISIBLE_S = float(os.environ.get("CHAOS_VISIBLE", liveness.VISIBLE_S))

if __name__ == "__main__":
    main()
