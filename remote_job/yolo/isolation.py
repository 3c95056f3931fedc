"""Keeps Ultralytics off the network: no telemetry, no auto-install, no downloads, no eval of a file's content."""

import contextlib
import importlib.util
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpu_offload.remote_job.machine import cores

AMP_UNSAFE = re.compile(r"\b(GTX 16[0-9]{2}|T[4568]00|T1000|T1200|T2000|K40m?)\b", re.IGNORECASE)
"""GPUs whose half precision yields NaN; the families that Ultralytics refuses by name too (`check_amp`, 8.4)."""


def variables() -> dict[str, str]:
    """Return the environment that must be set before Ultralytics or torch is imported."""
    return {
        "YOLO_OFFLINE": "true",
        "YOLO_AUTOINSTALL": "false",
        # Files are unpickled against an allow-list, and model definitions are built without eval.
        "ULTRALYTICS_SAFE_LOAD": "true",
        "ULTRALYTICS_SKIP_REQUIREMENTS_CHECKS": "true",
        "NO_ALBUMENTATIONS_UPDATE": "1",
        "MPLBACKEND": "Agg",
        "WANDB_MODE": "disabled",
        "COMET_MODE": "disabled",
        # onnxruntime sends events to Microsoft otherwise, the first one before a program can forbid it.
        "ORT_DISABLE_TELEMETRY": "1",
        # Without it Ultralytics sets 1 for the whole process; torch's own pool is sized by the trainer.
        # OpenMP's threads wait for each other by spinning. Where anything else wants a processor too, a spinning
        # thread keeps the one that it waits for from running: steps then take 2 to 12 times as long (measured,
        # 2 threads on 2 busy cores). Sleeping costs a quiet machine next to nothing.
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY") or "PASSIVE",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(cores()),
    }


def isolate(config: Path) -> None:
    """Set `variables`. Without effect on what a process that imported Ultralytics before has read already.

    Ultralytics' settings are in the private folder `config`; the user's own are neither read nor written.
    """
    config.mkdir(parents=True, exist_ok=True)
    os.environ.update(variables())
    os.environ["YOLO_CONFIG_DIR"] = str(config)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(config / "torchinductor")  # else below /tmp, where it stays


def bundled_font(_font: str = "") -> str:
    """Return a font that is on every machine with matplotlib, in place of the one Ultralytics downloads."""
    # Where `matplotlib.get_data_path` is, whose import takes longer than all that is drawn with the font.
    package = importlib.util.find_spec("matplotlib")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("matplotlib is not installed")
    return str(Path(package.origin).with_name("mpl-data") / "fonts" / "ttf" / "DejaVuSans.ttf")


def check_amp(model: Any) -> bool:
    """Say whether mixed precision is sound here, by the model to train instead of a downloaded one.

    The model's answer to noise in half precision must be finite and close to its answer in single
    precision. Ultralytics fetches `yolo26n.pt` for the same question.
    """
    import torch
    from ultralytics.utils import LOGGER

    from gpu_offload.remote_job.speed.outputs import tensors

    device = next(model.parameters()).device
    if device.type in {"cpu", "mps"}:
        return False
    if device.type == "cuda" and AMP_UNSAFE.search(torch.cuda.get_device_name(device)):
        LOGGER.warning("AMP: off, this GPU is known for NaN in half precision")
        return False
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(2, next(model.parameters()).shape[1], 256, 256, generator=generator).to(device)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            single = tensors(model(noise))
            with torch.autocast(device.type):
                half = tensors(model(noise))
    finally:
        model.train(was_training)
    sound = len(single) == len(half) and all(
        a.shape == b.shape
        and bool(torch.isfinite(b).all())
        and float((a - b.float()).abs().mean()) <= 0.05 * float(a.abs().mean()) + 1e-3
        for a, b in zip(single, half, strict=False)
    )
    LOGGER.info(f"AMP: offline check {'passed' if sound else 'failed, training in single precision'}")
    return sound


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """Replace what would reach out or take other cores while a training runs; everything is put back afterwards.

    Works in a process that imported Ultralytics long before, where environment variables come too late.
    """
    import ultralytics.data.base
    import ultralytics.data.dataset
    import ultralytics.data.loaders
    import ultralytics.data.utils
    import ultralytics.engine.trainer
    import ultralytics.nn.tasks
    import ultralytics.utils
    import ultralytics.utils.callbacks
    import ultralytics.utils.callbacks.base
    import ultralytics.utils.checks
    import ultralytics.utils.downloads
    import ultralytics.utils.plotting
    import ultralytics.utils.torch_utils

    def refuse_download(url: Any, *_args: Any, **_kwargs: Any) -> Any:
        raise ConnectionError(
            f"a training has no network, and something wants to fetch {url}; "
            "name weights in the configuration (training.model, training.init-from) so that they are staged before"
        )

    def no_integrations(_instance: Any) -> None:
        """Leave telemetry and experiment trackers out."""

    # A name that a module has imported is one of its own: each has to be replaced where it is looked up.
    replaced: list[tuple[Any, str, Any]] = [
        (ultralytics.utils, "ONLINE", False),
        (ultralytics.utils, "AUTOINSTALL", False),
        (ultralytics.utils, "SAFE_LOAD", True),
        (ultralytics.utils.checks, "ONLINE", False),
        (ultralytics.utils.checks, "AUTOINSTALL", False),
        (ultralytics.nn.tasks, "SAFE_LOAD", True),
        (ultralytics.utils.checks, "check_font", bundled_font),
        (ultralytics.data.utils, "check_font", bundled_font),
        (ultralytics.utils.plotting, "check_font", bundled_font),
        (ultralytics.data.utils, "safe_download", refuse_download),
        (ultralytics.utils.downloads, "safe_download", refuse_download),
        (ultralytics.engine.trainer, "check_amp", check_amp),
        (ultralytics.utils.callbacks, "add_integration_callbacks", no_integrations),
        (ultralytics.utils.callbacks.base, "add_integration_callbacks", no_integrations),
    ]
    # Ultralytics counts the machine's cores: eight threads on the two that a container has take 20 times as long.
    counting = (
        ultralytics.data.base,
        ultralytics.data.dataset,
        ultralytics.data.loaders,
        ultralytics.utils.torch_utils,
    )
    replaced += [(module, "NUM_THREADS", cores()) for module in counting]
    with contextlib.ExitStack() as stack:
        for owner, name, value in replaced:
            stack.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, value)
        yield
