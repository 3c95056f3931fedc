"""What the tests of leaks share: instances launched as a run does it, and a project whose training takes seconds."""

import time
from datetime import UTC, datetime

import run_case
from run_case import gpu_offer

from gpu_offload.dataset.synthetic import generate
from gpu_offload.infra.aws.ec2 import Ec2
from gpu_offload.infra.aws.image import find_image
from gpu_offload.infra.aws.launch import LaunchRequest
from gpu_offload.infra.aws.tags import store_mark
from gpu_offload.infra.instance.user_data import user_data
from gpu_offload.infra.ssh.key import ClientKey, HostKey

STORE = "s3://gpu-offload/project"
OTHER_STORE = "s3://gpu-offload/another"

OWN_TRAINING = '''
import time
from pathlib import Path

from gpu_offload.remote_job.entrypoint import Trained


def main(context):
    """Take the given time, and return a better score the longer it took."""
    pace = float(context.spec.hyperparameters["pace"])
    model = context.output / "model.bin"
    for epoch in range(context.epochs_completed + 1, context.spec.epochs + 1):
        until = time.monotonic() + pace
        while time.monotonic() < until or (epoch > HELD_AFTER and not Path(GATE).exists()):
            if context.interrupted():
                return None
            time.sleep(0.02)
        context.progress(epoch=epoch, batch=1, batches=1)
        context.epoch(epoch, metrics={"score": epoch / context.spec.epochs}, losses={"loss": 1 / epoch})
        model.write_text(str(epoch))
        context.checkpoint(model, epochs_completed=epoch)
    return Trained(model, {"score": 1.0})
'''


def train_project(folder, *, pace=0.1, epochs=3, images=24, held_after=10**6, extra=""):
    """Make a project whose training lasts `pace` seconds an epoch, and waits after one of them for the file `gate`."""
    generate(folder / "shapes", images=images, size=64)
    held = f"HELD_AFTER = {held_after}\nGATE = {str(folder / 'gate')!r}\n"
    (folder / "mine.py").write_text(held + OWN_TRAINING)
    (folder / "offload.toml").write_text(
        f"""
[dataset]
path = "shapes"
classes = ["circle", "square", "triangle"]
[training]
entrypoint = "mine:main"
epochs = {epochs}
image-size = 64
batch = 8
hyperparameters = {{pace = {pace}}}
[store]
url = "{STORE}"
[ec2]
regions = ["us-east-1"]
instance-types = ["g4dn.xlarge"]
{extra}
"""
    )


def run_of(name, *, deadline_in=3600.0, zone="us-east-1a"):
    """A run as the journal has it, of a training that is never started."""
    now = time.time()
    return run_case.run_of(
        gpu_offer(zone), now=now, id=name, version=f"{name}-version", deadline_at=now + deadline_in
    )


def launch(name, *, attempt=1, expires_in=3600.0, region="us-east-1", store=STORE, dead_man_in=3600.0):
    """Launch an instance just as a run does, and nothing else; return its id."""
    ec2, now = Ec2(region), time.time()
    zone = f"{region}a"
    subnet, image = ec2.subnet(zone), find_image(region, None)
    expires = datetime.fromtimestamp(int(now + expires_in), UTC)
    mark = store_mark(store)
    request = LaunchRequest(
        run=name,
        attempt=attempt,
        expires=expires,
        instance_type="g4dn.xlarge",
        market="spot",
        subnet=subnet,
        image_id=image.id,
        root_device=image.root_device,
        security_group=ec2.create_security_group(
            name, "127.0.0.1/32", 22, vpc=subnet.vpc, expires=None, store=mark
        ),
        user_data=user_data(
            deadline=now + dead_man_in,
            launched=now,
            host_key=HostKey.generate(),
            client_key=ClientKey.generate().public,
            ssh_user="offload",
        ),
        volume_gib=image.size_gib,
        store=mark,
    )
    return ec2.launch(request).id
