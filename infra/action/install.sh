#!/usr/bin/env bash
# Makes the environment that the action runs in, from locked dependencies with hashes only.
# In: GPU_OFFLOAD_ACTION (our checkout), GPU_OFFLOAD_INSTALL (plan or train), GPU_OFFLOAD_PYTHON (an environment
# that has everything, or empty). Out: the outputs `python`, and `seconds` where it installed something.
set -euo pipefail

action=$GPU_OFFLOAD_ACTION
# The working folder is the caller's checkout: a module or a uv.toml there must not take part in an installation that
# later holds the roles' tokens. So nothing runs there, Python looks for modules in no working folder and in no variable
# (-I), and uv reads no configuration.
case ${GPU_OFFLOAD_PYTHON:-} in
"" | /*) ;;
*) GPU_OFFLOAD_PYTHON=$PWD/$GPU_OFFLOAD_PYTHON ;;
esac
cd "$RUNNER_TEMP"
export UV_NO_CONFIG=1
locks=(-r "$action/requirements/plan.txt") # made to fit the other one: the train environment has both
case $GPU_OFFLOAD_INSTALL in
plan) ;;
train) locks+=(-r "$action/infra/instance/requirements.txt") ;;
*)
    echo "::error title=gpu-offload::the input install is neither plan nor train"
    exit 2
    ;;
esac

environment=$RUNNER_TEMP/gpu-offload-$GPU_OFFLOAD_INSTALL
python=$environment/bin/python

if [[ -n ${GPU_OFFLOAD_PYTHON:-} ]]; then
    base=$GPU_OFFLOAD_PYTHON/bin/python
    if [[ ! -x $base ]]; then
        echo "::error title=gpu-offload::the input python names no environment: there is no $base"
        exit 2
    fi
    # What a caller vouches for is used as it is; only our own code comes from the action.
    if [[ ! -x $python ]]; then
        "$base" -I -m venv --without-pip "$environment"
        "$base" -I -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
            >"$("$python" -I -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/given.pth"
    fi
elif [[ ! -x $python ]]; then
    echo "::group::installing what $GPU_OFFLOAD_INSTALL needs"
    tool=$RUNNER_TEMP/gpu-offload-uv
    python3 -I -m venv "$tool"
    "$tool/bin/python" -I -m pip install --quiet --disable-pip-version-check --only-binary :all: \
        --require-hashes -r "$action/requirements/uv.txt"
    "$tool/bin/uv" venv --quiet --python python3 "$environment"
    "$tool/bin/uv" pip install --quiet --python "$python" --require-hashes --only-binary :all: "${locks[@]}"
    # An instance gets its uv from us, so ours stands where we look for it.
    cp "$tool/bin/uv" "$environment/bin/uv"
    echo "::endgroup::"
    echo "installed what $GPU_OFFLOAD_INSTALL needs in $SECONDS s"
    echo "seconds=$SECONDS" >>"$GITHUB_OUTPUT"
fi

# Our own code is the action's checkout: nothing is built. A file keeps its time, so that what an earlier step of the job
# has compiled stays valid.
"$python" -I - "$action" <<'PYTHON'
import runpy, shutil, sys, sysconfig, tomllib
from pathlib import Path

action, site = Path(sys.argv[1]), Path(sysconfig.get_path("purelib"))
packing = runpy.run_path(str(action / "infra/instance/wheel.py"))
for package in packing["EVERYTHING"]:
    shutil.copytree(action / package, site / "gpu_offload" / package, dirs_exist_ok=True)
release = tomllib.loads((action / "pyproject.toml").read_text("utf-8"))["project"]["version"]
information = site / f"gpu_offload-{release}.dist-info"
information.mkdir(exist_ok=True)
(information / "METADATA").write_text(packing["METADATA"].format(release=release), "utf-8")
PYTHON
echo "python=$python" >>"$GITHUB_OUTPUT"
