"""Shortens the pauses of commands between two looks at a simulated cloud, which is many times faster than AWS.

Nor do they wait for the disk: no test cuts the power. The commands that a test starts find this file by PYTHONPATH; the
fixture `hurried` does the same in the test's process.
"""

import os
import sys

RUN, BACKENDS = "gpu_offload.orchestrator.run", "gpu_offload.orchestrator.backends"
PAUSES = {
    f"{RUN}.closing": {"ENDING_POLL_S": 0.2},
    f"{RUN}.next_step": {"STARTING_POLL_S": 0.2},
    f"{BACKENDS}.ssh_session": {"READY_POLL_S": 0.1, "LOOK_S": 0.4},
    f"{BACKENDS}.ec2": {"SETTLE_S": 0.2},
    f"{BACKENDS}.ec2_cleanup": {"TERMINATED_S": 0.1},
    "gpu_offload.orchestrator.cleanup.reaper": {"POLL_S": 0.2},
    "gpu_offload.orchestrator.lifecycle.stop": {"POLL_S": 0.2},
    "gpu_offload.infra.aws.termination": {"POLL_S": 0.2},
}


class Finder:
    """Finds the modules of `PAUSES` as others do, and sets their constants before another module copies them."""

    def find_spec(self, name, path=None, target=None):
        if name not in PAUSES:
            return None
        others = (finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not self)
        spec = next(spec for spec in others if spec is not None)
        run = spec.loader.exec_module

        def run_and_set(module):
            run(module)
            vars(module).update(PAUSES[name])

        spec.loader.exec_module = run_and_set
        return spec


if __name__ == "sitecustomize":
    os.fsync = os.fstat
    sys.meta_path.insert(0, Finder())
