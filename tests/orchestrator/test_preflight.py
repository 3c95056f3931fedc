"""What is refused before anything starts or is rented, in a plan as in a training."""

import dataclasses
import hashlib
import io
import os
import re

import pytest
from registry_case import manifest_for

from gpu_offload.dataset.finding import DatasetError
from gpu_offload.dataset.synthetic import generate
from gpu_offload.infra.store.factory import open_store
from gpu_offload.orchestrator.estimate.calibration import UntrainableError
from gpu_offload.orchestrator.estimate.installation import PRIORS_S
from gpu_offload.orchestrator.lifecycle.new_run import run_record
from gpu_offload.orchestrator.lifecycle.train import Training
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.plan import appraisal, prerequisites
from gpu_offload.orchestrator.plan import inputs as inputs_module
from gpu_offload.orchestrator.plan.inputs import PlanInputs
from gpu_offload.orchestrator.plan.model import DEFINITIONS, WEIGHTS, model_file
from gpu_offload.orchestrator.plan.planned import limits_of
from gpu_offload.orchestrator.plan.planner import Planning
from gpu_offload.orchestrator.plan.prerequisites import TrainingExtraError, profile_obstacles, renting_faults
from gpu_offload.orchestrator.plan.project import PlanningError, UnknownNameError
from gpu_offload.orchestrator.plan.reasons import changes_for_cpu
from gpu_offload.orchestrator.plan.receipt import receipt_text
from gpu_offload.orchestrator.plan.requirements import lock, read_requirements
from gpu_offload.orchestrator.plan.training_key import TrainingInputs, training_key
from gpu_offload.orchestrator.registry import publish
from gpu_offload.orchestrator.run.experience import Experience
from gpu_offload.orchestrator.settings.load import load_settings
from gpu_offload.orchestrator.training_environment import training_environment
from gpu_offload.orchestrator.workspace import Workspace
from gpu_offload.remote_job import machine
from gpu_offload.remote_job.requirements import COMPLETE

BASE = '[dataset]\npath = "shapes"\nclasses = ["circle", "square", "triangle"]\n[training]\nepochs = 1\n'
OWN = 'entrypoint = "mine:main"\nmodel = "forest.yaml"\n'
KEY_BEFORE = "aabc7a554bee3ae4bbe05bb98d554d28b7f1f1d474670727e133bd277f100cd5"
"""Of a training without code of its own, in release 0.1."""
MAIN = "def main(context):\n    ...\n"


@pytest.fixture
def shapes(tmp_path):
    generate(tmp_path / "shapes", images=12, size=64)
    return tmp_path


def planning(root, training="", store="", ec2=""):
    (root / "offload.toml").write_text(f"{BASE}{training}\n[store]\n{store}\n[ec2]\n{ec2}\n")
    settings = load_settings(root, environment={})
    return Planning(
        settings, open_store(f"file:{root / 'store'}"), Workspace.of(root), Console(io.StringIO())
    )


def plan(root, training="", on="auto", **sections):
    return planning(root, training, **sections).plan(on=on, calibrate=False)


def test_a_plan_counts_the_comparison_with_stable_where_there_will_be_one(shapes):
    """A run's time ends when its model is published, so what it is compared with leaves the comparison out."""
    store, model = open_store(f"file:{shapes / 'store'}"), shapes / "model.pt"
    model.write_bytes(b"model")
    classes = plan(shapes).snapshot.classes

    def published(version, **changes):
        manifest = manifest_for(model, version).model_copy(update={"classes": classes} | changes)
        publish.publish(store, manifest, model, note=lambda _: None)
        planned = plan(shapes)
        here = planned.report.options[0]
        run = run_record(
            planned, "run", now=1.0, commit=None, repository=None, resumes=None, experience=Experience()
        )
        assert run.estimate == run.candidates[0].seconds == here.trained
        return here

    assert "comparison with stable" not in published("aaaa").breakdown, "it is not by Ultralytics"
    ours = {"environment": {"ultralytics": "8.4"}, "created_at": 200.0}
    here = published("bbbb", **ours)
    assert here.interval.likely - here.trained.likely == pytest.approx(
        here.breakdown["comparison with stable"]
    )
    assert "compare the new model with stable" in plan(shapes).report.decision.why, (
        "its time differs from the run's"
    )
    alone = dataclasses.replace(planning(shapes), moves_aliases=False).plan(calibrate=False).report.options[0]
    assert alone.interval == alone.trained, "a version of a sweep is not compared"
    other = published("cccc", **ours | {"classes": ("board",), "created_at": 300.0})
    assert other.interval == other.trained, "it knows other classes"


def test_a_batch_that_this_machines_memory_cannot_hold_is_refused_with_one_that_fits(shapes, monkeypatch):
    """The kernel kills such a training without a message, and again on each resumption."""
    monkeypatch.setattr(appraisal, "memory", lambda: 4 * 2**30)

    def decided(model, batch=16):
        training = f'model = "{model}.yaml"\nimage-size = 640\nbatch = {batch}'
        return plan(shapes, training, on="cpu").report.options[0]

    assert decided("yolov8n").feasible
    refused = decided("yolov8x")
    assert not refused.feasible
    batch = re.search(r"^needs about .* and has 4: training.batch = (\d+) fits", refused.reason)[1]
    assert decided("yolov8x", batch).feasible


# ------------------------------------------------------------------------------------------- names of models


@pytest.mark.parametrize(
    ("name", "suggested"),
    [
        ("yolo8n.yaml", "yolov8n.yaml"),
        ("yolov11n.yaml", "yolo11n.yaml"),
        ("yolov8n-sge.yaml", "yolov8n-seg.yaml"),
        ("models/yolov8n.yaml", "yolov8n.yaml"),
        ("yolov8b.pt", "yolov8n.pt"),
    ],
)
def test_a_model_that_does_not_exist_is_refused_with_similar_names(tmp_path, name, suggested):
    with pytest.raises(PlanningError, match="did you mean") as error:
        model_file(tmp_path, name, is_own=False)
    assert suggested.removesuffix(".yaml")[:7] in str(error.value)


def test_files_known_names_and_names_for_own_code_are_models(tmp_path):
    (tmp_path / "mine.yaml").write_text("nc: 1")
    assert model_file(tmp_path, "mine.yaml", is_own=False) == tmp_path / "mine.yaml"
    for name in (
        "yolov8n.yaml",
        "yolov8n.yml",
        "yolov8.yaml",
        "yolov5n6.yaml",
        "rtdetr-l.yaml",
        "yolo11n-seg.pt",
    ):
        assert model_file(tmp_path, name, is_own=False) is None
    assert model_file(tmp_path, "forest", is_own=True) is None


@pytest.mark.training
@pytest.mark.filterwarnings("default")  # Ultralytics warns as it likes
def test_the_offline_list_is_what_this_ultralytics_has():
    """Each name is found by Ultralytics' own rules; weights are in its list of assets."""
    from pathlib import Path

    import ultralytics
    from ultralytics.nn.tasks import yaml_model_load
    from ultralytics.utils.downloads import GITHUB_ASSETS_NAMES

    assert Path(ultralytics.__file__).is_file()
    for name in DEFINITIONS:
        assert yaml_model_load(name)["nc"], name
    assert set(GITHUB_ASSETS_NAMES) >= WEIGHTS


def test_a_plan_counts_the_epochs_of_a_warm_start_and_not_those_from_scratch(shapes):
    model = shapes / "model.pt"
    model.write_bytes(b"weights")
    manifest = manifest_for(model).model_copy(update={"classes": ("circle", "square", "triangle")})
    publish.publish(open_store(f"file:{shapes / 'store'}"), manifest, model, note=lambda _: None)
    made = plan(shapes, 'init-from = "stable"\nwarm-epochs = 10')
    assert made.spec.epochs == 10
    options, limits = made.report.options, limits_of(made.settings)
    of_ten = changes_for_cpu(options[0], options, limits, 10, 0.5)[-1]
    assert "epochs it would no longer fit" in of_ten
    assert of_ten in made.report.decision.changes


@pytest.mark.parametrize(
    ("model", "freeze"),
    [("yolov8n.yaml", "23"), ("yolov8n-p2.yaml", "29"), ("yolov3-tiny.yaml", str([*range(21)]))],
)
def test_a_training_that_freezes_every_layer_is_refused(shapes, model, freeze):
    text = f'model = "{model}"\nhyperparameters = {{ freeze = %s }}\n'
    with pytest.raises(PlanningError, match="freeze leaves none of the model's"):
        plan(shapes, text % freeze)
    assert plan(shapes, text % "3")


def test_bfloat16_is_for_processors_that_compute_in_it(shapes):
    options = plan(shapes, 'hyperparameters = { amp = "bf16" }\n').report.options
    ruled_out = {option.offer.instance_type for option in options if "bfloat16" in option.reason}
    assert {None, "g4dn.xlarge"} <= ruled_out
    assert "g6.xlarge" not in ruled_out


@pytest.mark.training
def test_a_definition_of_ones_own_is_measured_and_one_that_cannot_be_built_is_refused(shapes):
    """Its rows are right, and the arguments of a layer are not: only building it shows that."""
    text = "nc: 3\nbackbone:\n  - [-1, 1, Conv, [16, 3, 8]]\nhead:\n  - [[0], 1, Detect, [nc]]\n"
    (shapes / "mine.yaml").write_text(text)
    settings = (
        'model = "mine.yaml"\nimage-size = 64\nbatch = 4\nhyperparameters = { plots = false, workers = 0 }\n'
    )
    made = planning(shapes, settings).plan(calibrate=True)
    assert any("measured on this machine" in note for note in made.report.notes)
    (shapes / "mine.yaml").write_text(text.replace("3, 8]", "'x', 8]"))
    with pytest.raises(UntrainableError, match=r"mine\.yaml cannot be built: "):
        planning(shapes, settings).plan(calibrate=True)


@pytest.mark.process
def test_a_last_batch_that_cannot_be_normalised_is_refused(shapes):
    count = plan(shapes).report.images["train"]
    with pytest.raises(DatasetError, match="last batch has one image"):
        plan(shapes, f"image-size = 32\nbatch = {count - 1}\n")
    assert plan(shapes, f"image-size = 64\nbatch = {count - 1}\n")


def test_code_of_ones_own_has_hyperparameters_of_its_own(shapes):
    (shapes / "mine.py").write_text(MAIN)
    assert plan(shapes, OWN + "hyperparameters = { lr = 0.1, mosaic = 7 }\n")


def test_weights_to_start_from_are_looked_up_before_they_are_fetched(shapes):
    with pytest.raises(PlanningError, match=r"training\.init-from.*yolov8n\.pt"):
        plan(shapes, 'init-from = "yolov8b.pt"')


@pytest.mark.process
def test_a_plan_names_the_faults_of_a_dataset_with_its_folder_and_the_warnings_too(shapes):
    label = next((shapes / "shapes").rglob("*.txt"))
    label.write_text("9 0.5 0.5 0.1 0.1\n")
    next(path for path in (shapes / "shapes").rglob("*.txt") if path != label).unlink()
    with pytest.raises(DatasetError) as found:
        plan(shapes)
    assert f"{label.relative_to(shapes)}:1" in str(found.value)
    assert "1 warning" in str(found.value)


def test_a_plan_refuses_an_unknown_model(shapes):
    with pytest.raises(PlanningError, match=r"yolov8n\.yaml"):
        plan(shapes, 'model = "yolo8n.yaml"')


# ------------------------------------------------------------------------------------------------ renting


def test_a_plan_marks_gpus_as_impossible_where_a_training_could_not_rent_them(shapes):
    made = plan(shapes)
    rented = [option for option in made.report.options if option.where == "ec2"]
    assert rented
    assert not any(option.feasible for option in rented)
    assert "folder" in rented[0].reason
    assert any("instance-profile" in change for change in made.report.decision.changes)
    assert made.report.decision.where == "cpu"
    ready = {"store": 'url = "s3://bucket/x"', "ec2": 'instance-profile = "trainer"'}
    assert any(option.feasible for option in plan(shapes, **ready).report.options if option.where == "ec2")


def test_ec2_is_not_asked_where_nothing_could_be_rented(shapes, monkeypatch):
    """Half a credential of another project, as people have it in their environment, hurts no plan on a CPU."""
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    planner = planning(shapes)

    def offers():
        pytest.fail("EC2 was asked for offers")

    planner.offers = offers
    assert planner.plan(calibrate=False).report.decision.where == "cpu"


@pytest.mark.parametrize("on", ["auto", "ec2"])
def test_a_missing_or_empty_instance_profile_is_found_before_anything_is_staged(shapes, cloud, on):
    """One that has its role is fit, and so is one that the caller may not read: then the launch says it."""
    import boto3

    iam = boto3.client("iam")
    ready = {"store": 'url = "s3://bucket/x"', "ec2": 'instance-profile = "trainer"'}

    def obstacles():
        planner = planning(shapes, **ready)
        planner.account = lambda: profile_obstacles(planner.settings)
        options = planner.plan(on=on, calibrate=False).report.options
        return {option.reason for option in options if option.where == "ec2" and "profile" in option.reason}

    assert "no such instance profile" in "".join(obstacles())
    iam.create_instance_profile(InstanceProfileName="trainer")
    assert "no role" in "".join(obstacles())
    iam.create_role(RoleName="trainer", AssumeRolePolicyDocument="{}")
    iam.add_role_to_instance_profile(InstanceProfileName="trainer", RoleName="trainer")
    assert obstacles() == set()
    iam.close()


def test_a_plan_on_ec2_says_everything_that_is_missing(shapes):
    decision = plan(shapes, on="ec2").report.decision
    assert decision.where == "none"
    assert "store.url" in decision.why
    assert "ec2.instance-profile" in decision.why


def test_what_an_instance_does_not_have_is_said_before_it_is_rented(shapes):
    (shapes / "mine.py").write_text("import pytest\n" + MAIN)
    ready = {"store": 'url = "s3://bucket/x"', "ec2": 'instance-profile = "trainer"'}
    made = plan(shapes, OWN, **ready)
    [fault] = renting_faults(made.settings, made.inputs, {})
    assert "pytest" in fault.reason
    assert "mine.py:1" in fault.reason
    (shapes / "requirements.txt").write_text("pytest==9.0.0\n")
    made = plan(shapes, OWN + 'requirements = "requirements.txt"\n', **ready)
    assert renting_faults(made.settings, made.inputs, {}) == ()
    (shapes / "mine.py").write_text("import pluggy\n" + MAIN)
    made = plan(shapes, OWN + 'requirements = "requirements.txt"\n', **ready)
    assert renting_faults(made.settings, made.inputs, {}) == (), "pytest brings it"


@pytest.mark.parametrize(
    ("device", "blocked"), [("cpu", "ec2"), ("mps", "ec2"), ("cuda", "cpu"), ("3", "ec2")]
)
def test_a_place_without_the_configured_device_is_not_offered(shapes, monkeypatch, device, blocked):
    monkeypatch.setattr(machine, "driver", lambda: None)
    ready = {"store": 'url = "s3://bucket/x"', "ec2": 'instance-profile = "trainer"'}
    options = [o for o in plan(shapes, f'device = "{device}"', **ready).report.options if o.where == blocked]
    assert options
    assert not any(option.feasible for option in options)
    assert "training.device" in options[0].reason


# ------------------------------------------------------------------------------------------------ own code


def test_every_fault_of_the_training_code_is_said_at_once(shapes):
    (shapes / "mine.py").write_text("import not_installed_anywhere\nfrom shapes_helper import f\n")
    with pytest.raises(PlanningError) as error:
        plan(shapes, OWN)
    for fact in (
        "mine.py:1 imports not_installed_anywhere",
        "mine.py:2 imports shapes_helper",
        "no function main",
    ):
        assert fact in str(error.value)


def test_a_module_may_come_from_the_requirements(shapes):
    (shapes / "mine.py").write_text("import not_installed_anywhere\n" + MAIN)
    (shapes / "requirements.txt").write_text("some-distribution\n")
    assert plan(shapes, OWN + 'requirements = "requirements.txt"\n').inputs.requirements is not None


def test_what_has_to_be_installed_is_in_the_estimates(shapes, monkeypatch):
    monkeypatch.setattr(inputs_module, "decode_seconds", lambda _snapshot: 1e-3)  # else it is measured
    (shapes / "mine.py").write_text(MAIN)
    (shapes / "requirements.txt").write_text("some-distribution==1 --hash=sha256:00\n")
    own = 'requirements = "requirements.txt"\n'
    bare = plan(shapes, OWN)
    assert bare.report.decision.certainty is not None
    assert bare.report.certainty is None, "it is a guess"
    assert "% probability" not in receipt_text(bare.report)
    found = plan(shapes, OWN + own)
    here, there = found.report.options[0], found.report.options[1]
    assert here.breakdown["installation"] == PRIORS_S["requirements"]
    assert here.point == bare.report.options[0].point
    assert there.breakdown["set-up"] > bare.report.options[1].breakdown["set-up"]
    assert any("training.requirements are installed" in note for note in found.report.notes)

    lock = (shapes / "requirements.txt").read_bytes()
    digest = hashlib.sha256(lock).hexdigest()
    kept = Workspace.of(shapes).packages / digest[:16]
    kept.mkdir()
    (kept / COMPLETE).write_text(digest)
    assert "installation" not in plan(shapes, OWN + own).report.options[0].breakdown


def test_a_job_that_installs_takes_longer_and_has_spent_a_part_of_its_time(shapes):
    asked = planning(shapes)
    asked.job_installs, asked.installed_s = True, 30.0
    found = asked.plan(on="cpu", calibrate=False)
    here = found.report.options[0]
    assert here.installation.likely == here.breakdown["installation"] == PRIORS_S["job"]
    now = 1_000_000.0
    run = run_record(
        found, "abc-1", now=now, commit=None, repository=None, resumes=None, experience=Experience()
    )
    limit = asked.settings.limits.deadline.total_seconds()
    assert (run.began_at, run.deadline_at) == (now - 30, now - 30 + limit)
    assert run.installation == here.installation


def test_requirements_are_part_of_the_key_and_keys_without_them_stay_what_they_were(shapes):
    plain = TrainingInputs("f", "detect", "yolov8n.yaml", None, None, 20, 640, 16, 0)
    assert training_key(plain) == KEY_BEFORE
    with_them = dataclasses.replace(plain, requirements_sha256="0" * 64)
    assert training_key(with_them) != training_key(plain)
    (shapes / "mine.py").write_text(MAIN)
    before = plan(shapes, OWN).training_key
    (shapes / "requirements.txt").write_text("a==1\n")
    first = plan(shapes, OWN + 'requirements = "requirements.txt"\n').training_key
    (shapes / "requirements.txt").write_text("a==2\n")
    second = plan(shapes, OWN + 'requirements = "requirements.txt"\n').training_key
    assert len({before, first, second}) == 3


def test_the_files_that_requirements_name_are_part_of_them(tmp_path):
    (tmp_path / "r.txt").write_text(
        "-r more.txt\nNum_Py>=1  # a comment\nscikit.learn[extra]; python_version>'3'\n"
    )
    (tmp_path / "more.txt").write_text("torch\n")
    found = read_requirements(tmp_path, "r.txt")
    assert found.names == {"num-py", "scikit-learn", "torch"}
    assert not found.is_locked
    (tmp_path / "more.txt").write_text("torch==2\n")
    assert read_requirements(tmp_path, "r.txt").sha256 != found.sha256
    with pytest.raises(PlanningError, match=r"gone\.txt"):
        read_requirements(tmp_path, "gone.txt")


def test_requirements_with_hashes_are_taken_as_they_are(tmp_path):
    (tmp_path / "r.txt").write_text("a==1 \\\n    --hash=sha256:00\nb==2 --hash=sha256:11\n")
    found = read_requirements(tmp_path, "r.txt")
    assert found.is_locked
    assert lock(found, open_store(f"file:{tmp_path / 'store'}")) == (tmp_path / "r.txt").read_bytes()


def test_what_was_resolved_once_is_what_every_later_training_gets(tmp_path):
    (tmp_path / "r.txt").write_text("a\n")
    found, store = read_requirements(tmp_path, "r.txt"), open_store(f"file:{tmp_path / 'store'}")
    store.create(found.lock_key, b"a==1 --hash=sha256:00\n")
    assert lock(found, store) == b"a==1 --hash=sha256:00\n"


# ---------------------------------------------------------------------------------------------- this machine


def test_a_machine_without_the_extra_begins_no_run_and_names_the_pip_line(shapes, monkeypatch):
    monkeypatch.setattr(prerequisites, "is_installed", lambda name: False)
    planner = planning(shapes)
    made = planner.plan(on="cpu", calibrate=False)
    assert any("gpu-offload[train]" in note for note in made.report.notes)
    with pytest.raises(TrainingExtraError, match=r"pip install 'gpu-offload\[train\]'"):
        Training(made, planner.store, planner.workspace, planner.console).run()
    assert list(planner.store.list("runs/")) == []


def test_pythonpath_brings_libraries_and_nothing_of_the_project(tmp_path):
    """What it finds in the project is not hashed, and not on an instance; a cluster's libraries stay importable."""
    (tmp_path / "src").mkdir()
    given = os.pathsep.join(["/opt/cluster/lib", str(tmp_path / "src"), "", str(tmp_path)])

    def child(path):
        variables = {"PYTHONPATH": path, "HOME": "/home/me"}
        return training_environment(variables, project=tmp_path, in_bucket=False, own_code=True)

    assert child(given) == {"PYTHONPATH": "/opt/cluster/lib", "HOME": "/home/me"}
    assert child("") == {"HOME": "/home/me"}


@pytest.mark.parametrize("setting", ["model = 'yolo8n.yaml'", "entrypoint = 'gone:main'"])
def test_a_name_that_means_nothing_is_a_fault_of_the_configuration(shapes, setting):
    with pytest.raises(UnknownNameError) as refused:
        plan(shapes, f"{setting}\n")
    assert refused.value.exit_code == 2


def test_own_code_needs_no_extra(shapes, monkeypatch):
    (shapes / "mine.py").write_text(MAIN)
    made = plan(shapes, OWN)
    assert isinstance(made.inputs, PlanInputs)
    monkeypatch.setattr(prerequisites, "is_installed", lambda name: False)
    prerequisites.check_here(made.inputs)
