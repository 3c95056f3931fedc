"""How long pictures take to decode: measured on a few of the dataset's own."""

import pytest
from PIL import Image

from gpu_offload.dataset import decoding
from gpu_offload.dataset.snapshot import read_snapshot
from gpu_offload.dataset.synthetic import generate
from gpu_offload.dataset.task import Task


@pytest.fixture
def snapshot(tmp_path):
    """Return a function that reads pictures of these sizes: the first class is small, the second large."""

    def read(small, large):
        for folder, size, count in (("a", small, 6), ("b", large, 6)):
            (tmp_path / "data" / folder).mkdir(parents=True)
            for number in range(count):
                Image.effect_noise((size, size), number + 10).save(
                    tmp_path / "data" / folder / f"{number}.png"
                )
        return read_snapshot(tmp_path / "data", task=Task.CLASSIFY)

    return read


def test_the_rate_of_a_few_pictures_holds_for_the_mean_size_of_all(snapshot, monkeypatch):
    read = snapshot(32, 96)
    seen = []

    def linear(path):
        seen.append(path)
        with Image.open(path) as picture:
            return 1e-6 * picture.width * picture.height

    monkeypatch.setattr(decoding, "_decoded", linear)
    assert decoding.decode_seconds(read) == pytest.approx(1e-6 * (32**2 + 96**2) / 2)
    assert len(seen) == decoding.PICTURES
    assert {path.parent.name for path in seen} == {"a", "b"}


def test_the_few_are_spread_over_the_whole_dataset(snapshot, monkeypatch):
    seen = []
    monkeypatch.setattr(decoding, "_decoded", seen.append)
    decoding.decode_seconds(snapshot(32, 96))
    assert [path.name for path in seen] == ["0.png", "2.png", "4.png", "1.png", "3.png"]


def test_a_picture_that_a_stranger_made_to_take_minutes_is_passed_over(tmp_path):
    """Each scan of a progressive JPEG has a few bytes, and visits every block of the picture."""
    Image.new("L", (640, 640), 99).save(tmp_path / "usual.jpg", progressive=True)
    usual = (tmp_path / "usual.jpg").read_bytes()
    scan = usual[usual.rindex(b"\xff\xda") : -2]
    (tmp_path / "hostile.jpg").write_bytes(usual[:-2] + 1000 * scan + usual[-2:])
    assert decoding._decoded(tmp_path / "usual.jpg") > 0
    assert decoding._decoded(tmp_path / "hostile.jpg") is None


def test_a_file_that_changed_since_it_was_read_is_passed_over(tmp_path, monkeypatch):
    """It may have become larger, or what no decoder of pictures should open."""
    Image.new("L", (64, 64)).save(tmp_path / "0.png")
    monkeypatch.setattr(decoding, "LARGEST", 64 * 63)
    assert decoding._decoded(tmp_path / "0.png") is None
    monkeypatch.setattr(decoding, "LARGEST", 64 * 64)
    assert decoding._decoded(tmp_path / "0.png") > 0
    Image.new("L", (64, 64)).save(tmp_path / "0.png", "EPS")
    assert decoding._decoded(tmp_path / "0.png") is None


def test_real_pictures_of_every_size_take_some_time(snapshot):
    assert 0 < decoding.decode_seconds(snapshot(32, 640)) < 60


def test_no_further_picture_is_decoded_after_enough_time(snapshot, monkeypatch):
    seen = []
    monkeypatch.setattr(decoding, "_decoded", lambda path: seen.append(path) or 1.0)
    assert decoding.decode_seconds(snapshot(32, 32)) == pytest.approx(1.0)
    assert len(seen) == 1


def test_nothing_is_said_of_pictures_that_cannot_be_read_or_are_of_unknown_size(
    snapshot, tmp_path, monkeypatch
):
    read = snapshot(32, 32)
    monkeypatch.setattr(decoding, "_decoded", lambda _path: None)
    assert decoding.decode_seconds(read) is None
    generate(tmp_path / "more", images=20, size=64, task=Task.CLASSIFY)
    assert decoding.decode_seconds(read_snapshot(tmp_path / "more", task=Task.CLASSIFY, check=False)) is None


def test_a_picture_that_vanished_is_passed_over(snapshot):
    read = snapshot(32, 32)
    for path in read.root.rglob("*.png"):
        path.unlink()
    assert decoding.decode_seconds(read) is None
