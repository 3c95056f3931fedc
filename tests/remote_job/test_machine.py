"""What a training finds out about its machine."""

from importlib import metadata

import pytest

from gpu_offload.remote_job import machine

pytestmark = pytest.mark.process


@pytest.fixture
def two_gpus(tmp_path, monkeypatch):
    """Put a stand-in for the driver's command before all others, and a PyTorch with CUDA."""
    script = tmp_path / "nvidia-smi"
    script.write_text(
        '#!/bin/sh\ncase "$1" in *driver*) printf "580.1\\n580.1\\n";; *) printf "NVIDIA H200, 143771\\nTesla T4, 15360\\n";; esac\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(metadata, "version", lambda _name: "2.15.0")


@pytest.mark.parametrize(
    ("device", "visible", "name"),
    [
        ("auto", None, "NVIDIA H200"),
        ("cuda:1", None, "Tesla T4"),
        ("1", None, "Tesla T4"),
        ("cuda", "1", "Tesla T4"),
        ("cuda:1", "1,0", "NVIDIA H200"),
        ("cuda:2", None, None),
        ("cuda:1", "0", None),
        ("auto", "", None),
        ("auto", "-1", None),
        ("cpu", None, None),
        ("mps", None, None),
    ],
)
def test_the_gpu_of_a_setting_is_found_without_torch(two_gpus, monkeypatch, device, visible, name):
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = machine.gpu(device)
    assert (found and found[0]) == name
    assert machine.driver() == "580.1"


def test_a_gpu_that_shares_the_memory_has_all_of_it(two_gpus, tmp_path):
    (tmp_path / "nvidia-smi").write_text('#!/bin/sh\necho "NVIDIA GB10, [N/A]"\n')
    assert machine.gpu("auto") == ("NVIDIA GB10", machine.memory() / 2**30)


def test_a_torch_for_cpus_uses_no_gpu(two_gpus, monkeypatch):
    monkeypatch.setattr(metadata, "version", lambda _name: "2.15.0+cpu")
    assert machine.gpu("auto") is None


def test_a_machine_without_a_driver_has_no_gpu(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.gpu("auto") is None
    assert machine.driver() is None
