"""The software of an instance: taken from its image, or set up once from the lock, over a real SSH connection."""

import hashlib
import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from commands import wait_until
from instance_bench import simulated_host

from gpu_offload.infra.instance import script
from gpu_offload.infra.instance.software import (
    HostSoftware,
    SetUpError,
    Software,
    look,
    own_software,
    read_instance,
    set_up,
)
from gpu_offload.infra.instance.wheel import PACKAGES, Wheel, pack_wheel
from gpu_offload.infra.ssh.errors import CommandFailedError


@pytest.fixture
def bench(tmp_path):
    with simulated_host(tmp_path) as bench:
        yield bench


def software(**changes):
    return Software(**({"version": "1.2", "lock": b"lock", "wheel": Wheel("w.whl", b"wheel")} | changes))


def test_an_image_with_just_this_software_baked_in_needs_no_set_up():
    wanted = software()
    baked = f"root=/r\nprocessor=x\nuv=\nversion=1.2\nlock={wanted.lock_sha256}\npython=/r/python\n"
    assert read_instance(baked).ready_python(wanted) == "/r/python"
    assert read_instance(baked).ready_python(software(version="1.3")) is None
    assert read_instance(baked).ready_python(software(lock=b"other")) is None


def test_what_we_installed_is_used_again_only_if_the_wheel_is_the_very_same():
    wanted = software()
    text = (
        f"root=\nprocessor=x\nuv=/u\ninstalled_lock={wanted.lock_sha256}\n"
        f"installed_wheel={wanted.wheel.sha256}\ninstalled_python=/p\n"
    )
    assert read_instance(text).ready_python(wanted) == "/p"
    assert read_instance(text).ready_python(software(wheel=Wheel("w.whl", b"other"))) is None


def test_without_uv_on_either_side_the_error_says_what_to_do(bench):
    bare = HostSoftware(bench.instance.root, bench.instance.processor, has_uv=False, found={})
    with pytest.raises(SetUpError, match="baked in"):
        set_up(bench.host, bare, software())
    with pytest.raises(SetUpError, match="the instance is vax"):
        set_up(bench.host, HostSoftware("", "vax", has_uv=False, found={}), software(uv=Path(sys.executable)))


def test_our_wheel_is_the_code_that_runs_and_equal_code_gives_equal_bytes(tmp_path):
    for package in PACKAGES:
        (tmp_path / package / "__pycache__").mkdir(parents=True)
        (tmp_path / package / "__init__.py").write_text(f'NAME = "{package}"\n')
        (tmp_path / package / "data.sh").write_text("echo\n")
        (tmp_path / package / "__pycache__/x.pyc").write_bytes(b"x")
    one, two = pack_wheel("1.2", tmp_path), pack_wheel("1.2", tmp_path)
    assert one == two
    assert one.name == "gpu_offload-1.2-py3-none-any.whl"
    (tmp_path / "infra/data.sh").write_text("echo changed\n")
    assert pack_wheel("1.2", tmp_path).sha256 != one.sha256
    assert len(pack_wheel("1.2").body) < 1_000_000


def find_uv():
    uv = own_software().uv
    if uv is None or subprocess.run([uv, "--version"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no uv on this machine")
    return uv


def with_uv(uv):
    """The PATH of a host whose image has uv."""
    return f"{uv.parent}:/usr/local/bin:/usr/bin:/bin"


def test_uv_sets_up_the_locked_requirements_and_our_own_wheel_once(bench, tmp_path):
    uv = find_uv()
    # A requirement of our own making stands for the lock's; it is found in a folder, without a network.
    requirement = tmp_path / "wheels/offload_requirement-7-py3-none-any.whl"
    requirement.parent.mkdir()
    info = "offload_requirement-7.dist-info"
    with zipfile.ZipFile(requirement, "w") as archive:
        archive.writestr("offload_requirement.py", "ANSWER = 42\n")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: offload-requirement\nVersion: 7\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    lock = f"offload-requirement==7 --hash=sha256:{hashlib.sha256(requirement.read_bytes()).hexdigest()}\n"
    options = ("--offline", "--no-index", "--find-links", str(requirement.parent))
    wanted = Software("0.1.0", lock.encode(), pack_wheel("0.1.0"), uv, options)
    python = set_up(bench.host, bench.instance, wanted)
    assert python.startswith(f"{bench.root}/opt/gpu-offload/venv/")
    check = (
        "import offload_requirement as r, gpu_offload.infra.instance as i, importlib.util as u; "
        "print(r.ANSWER, len(i.script('job.sh')) > 0, u.find_spec('gpu_offload.remote_job.spec') is not None)"
    )
    assert bench.host.run([python, "-I", "-c", check], timeout=30).text == "42 True True\n"
    again = look(bench.host)
    bench.host.put = None  # nothing is sent again
    assert set_up(bench.host, again, wanted) == python


@pytest.mark.process
def test_two_set_ups_at_the_same_time_make_one_environment(tmp_path):
    """A driver that lost its connection repeats the set-up while the first one still goes on."""
    inbox = tmp_path / "var/lib/gpu-offload/inbox"
    inbox.mkdir(parents=True)
    (inbox / "job.sh").write_text(script("job.sh"))
    (inbox / "w.whl").write_bytes(b"wheel")
    uv = inbox / "uv"
    uv.write_text(
        f'#!/bin/sh\necho "$1" >>{tmp_path}/asked\nwhile [ ! -e {tmp_path}/go ]; do sleep 0.02; done\n'
    )
    uv.chmod(0o755)
    environment = {"GPU_OFFLOAD_ROOT": str(tmp_path), "PATH": f"{inbox}:/usr/bin:/bin"}
    words = ["sh", inbox / "job.sh", "install", software().lock_sha256, "w.whl"]
    asked = tmp_path / "asked"
    first = subprocess.Popen(words, env=environment)
    wait_until(asked.exists)
    second = subprocess.Popen(words, env=environment)
    (tmp_path / "go").touch()
    assert (first.wait(60), second.wait(60)) == (0, 0)
    assert asked.read_text().split() == ["venv", "pip", "pip"]
    installed = (tmp_path / "opt/gpu-offload/installed").read_text()
    python = f"{tmp_path}/opt/gpu-offload/venv/bin/python"
    assert read_instance(f"root={tmp_path}\n{installed}").ready_python(software()) == python


@pytest.mark.process
def test_a_requirement_whose_hash_is_wrong_stops_the_set_up(tmp_path):
    uv = find_uv()
    lock = b"six==1.17.0 --hash=sha256:" + b"0" * 64 + b"\n"
    wanted = software(lock=lock, uv_options=("--offline", "--no-index"))
    with (
        simulated_host(tmp_path, PATH=with_uv(uv)) as bench,
        pytest.raises(CommandFailedError, match="locked requirements"),
    ):
        set_up(bench.host, look(bench.host), wanted)


@pytest.mark.process
def test_the_real_lock_sets_up_an_environment_that_trains(tmp_path):
    """Torch, Ultralytics and our own wheel, as an image without them gets them; here from uv's cache, without a network."""
    uv = find_uv()
    cache = subprocess.run([uv, "cache", "dir"], capture_output=True, text=True, check=True).stdout.strip()
    wanted = replace(own_software(), uv_options=("--offline",))
    with simulated_host(tmp_path, UV_CACHE_DIR=cache, PATH=with_uv(uv)) as bench:
        try:
            python = set_up(bench.host, bench.instance, wanted)
        except CommandFailedError as error:
            if "not found in the cache" not in str(error):
                raise
            pytest.skip(f"uv's cache is not warm (`make` warms it): {str(error)[-300:]}")
        assert python.startswith(str(bench.root))
        check = "import gpu_offload.remote_job as r; print(r.__file__)"
        assert bench.host.run([python, "-c", check], timeout=60).text.startswith(str(bench.root))
        device = json.loads(
            bench.host.run([python, "-P", "-m", "gpu_offload.remote_job", "--device-check"], timeout=300).text
        )
        assert device["ok"]
        assert look(bench.host).ready_python(wanted) == python
