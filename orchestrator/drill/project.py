"""The project that a drill trains."""

from dataclasses import dataclass

TRAINING = '''\
"""A training that needs no torch: it takes PACE seconds an epoch and can be interrupted at any time."""

import time

from gpu_offload.remote_job.entrypoint import Trained

TRACE = {trace!r}
PACE = {pace!r}


def main(context):
    """Train."""
    model = context.output / "model.bin"
    for epoch in range(context.epochs_completed + 1, context.spec.epochs + 1):
        until = time.monotonic() + PACE
        while time.monotonic() < until:
            if context.interrupted():
                return None
            time.sleep(0.02)
        with open(TRACE, "a") as trace:
            trace.write(f"{{epoch}}\\n")
        context.progress(epoch=epoch, batch=1, batches=1)
        context.epoch(epoch, metrics={{"score": epoch / context.spec.epochs}}, losses={{"loss": 1 / epoch}})
        model.write_text(f"trained for {{epoch}} epochs")
        context.checkpoint(model, epochs_completed=epoch)
    return Trained(model, {{"score": 1.0}})
'''

OWN = """entrypoint = "drill_training:main"
epochs = {epochs}
image-size = 64
batch = 8"""

YOLO = """model = "yolov8n.yaml"
epochs = {epochs}
image-size = 64
batch = 8
hyperparameters = {{plots = false, mosaic = 0.0}}"""

CONFIGURATION = """\
[dataset]
path = "shapes"
classes = ["circle", "square", "triangle"]
[training]
{training}
[store]
url = "{store}"
[ec2]
regions = ["us-east-1"]
instance-types = ["g4dn.xlarge"]
"""


@dataclass(frozen=True, slots=True)
class DrillPace:
    """The size of the training: `epochs` of `seconds` each; `real` for Ultralytics, whose epochs have no set time."""

    epochs: int = 4
    seconds: float = 1.0
    real: bool = False
