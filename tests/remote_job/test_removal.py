"""What a training left is removed, whatever it is."""

import os

import pytest

from gpu_offload.remote_job.files.removal import remove_tree


def test_a_tree_deeper_than_python_recurses_and_without_permissions_is_removed_and_nothing_behind_a_link(
    tmp_path, monkeypatch
):
    """A path as long as that has no name that the system takes, either."""
    kept, folder = tmp_path / "kept", tmp_path / "run"
    kept.mkdir()
    (kept / "file").write_text("kept")
    folder.mkdir()
    (folder / "link").symlink_to(kept)
    (folder / "dangling").symlink_to("nowhere")
    os.mkfifo(folder / "pipe")
    (folder / "1.removed").mkdir()
    for _ in range(2):
        monkeypatch.chdir(folder)
        for name in range(1500):
            os.mkdir(f"{name % 3}.removed" if name else "deep")  # noqa: PTH102 - the path is too long for a Path
            os.chdir(f"{name % 3}.removed" if name else "deep")
        os.symlink(kept, "link")  # noqa: PTH211
        os.chmod("..", 0)  # noqa: PTH101
        folder = folder / "1.removed"
    folder = tmp_path / "run"
    monkeypatch.chdir(tmp_path)
    folder.chmod(0)
    remove_tree(folder)
    assert not folder.exists()
    assert (kept / "file").read_text() == "kept"
    (tmp_path / "alias").symlink_to(kept)
    with pytest.raises(OSError, match="link"):
        remove_tree(tmp_path / "alias")
    assert (kept / "file").exists()
    with pytest.raises(FileNotFoundError):
        remove_tree(folder)
