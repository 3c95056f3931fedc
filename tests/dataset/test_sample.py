"""The generated sample: clean for every task, and always the same."""

import pytest

from gpu_offload.dataset.layout import Layout
from gpu_offload.dataset.snapshot import read_snapshot
from gpu_offload.dataset.synthetic import CLASSES, generate
from gpu_offload.dataset.task import Task


@pytest.mark.parametrize("task", list(Task))
def test_a_sample_of_every_task_is_a_clean_dataset(tmp_path, task):
    generate(tmp_path, images=40, size=64, task=task)
    snapshot = read_snapshot(tmp_path)
    assert (snapshot.task, snapshot.classes) == (task, CLASSES)
    assert sum(snapshot.images.values()) == 40
    assert [finding.code for finding in snapshot.warnings] == (["split-made"] if task is Task.POSE else [])
    assert (snapshot.layout is Layout.FOLDERS) == (task is Task.CLASSIFY)
    assert (snapshot.keypoint_shape, snapshot.flip_idx) == (
        ((3, 3), (0, 2, 1)) if task is Task.POSE else (None, None)
    )


def test_the_same_seed_draws_the_same_bytes_and_another_does_not(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        generate(tmp_path / name, images=5, size=64, seed=seed)
    a, b, c = ({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in "abc")
    assert a == b
    assert all(a[name] != c[name] for name in a if name.endswith(".png"))


def test_a_longer_sample_begins_like_a_shorter_one(tmp_path):
    generate(tmp_path / "short", images=3, size=64)
    generate(tmp_path / "long", images=6, size=64)
    for path in (tmp_path / "short").iterdir():
        assert (tmp_path / "long" / path.name).read_bytes() == path.read_bytes()


def test_too_small_a_sample_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least"):
        generate(tmp_path, images=0)
