"""Caches beside the labels go before a training: Ultralytics would unpickle them."""

from dataset_case import put

from gpu_offload.remote_job.data import remove_caches


def test_files_folders_and_links_that_are_named_like_caches_are_removed(tmp_path):
    outside = put(tmp_path / "outside/kept.txt", "mine")
    tree = tmp_path / "tree"
    put(tree / "labels/train.cache", b"\x80\x04.")
    put(tree / "x.cache/inner/y.cache", b"\x80\x04.")
    (tree / "z.cache").symlink_to(outside.parent)
    label = put(tree / "labels/train/a.txt", "0 0.5 0.5 0.1 0.1")
    remove_caches(tree)
    assert {path for path in tree.rglob("*") if not path.is_dir()} == {label}
    assert not list(tree.rglob("*.cache"))
    assert outside.read_text() == "mine"
