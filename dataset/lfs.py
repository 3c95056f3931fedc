"""Pointers that Git LFS leaves in the place of files that it did not fetch."""

from typing import Final

LFS_POINTER: Final = b"version https://git-lfs.github.com/spec/"
LFS_REMEDY: Final = "fetch it with `git lfs pull`; in a workflow, give actions/checkout the input `lfs: true`"
