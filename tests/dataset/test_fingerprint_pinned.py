"""The fingerprint of a dataset never changes between releases: a changed one trains every model anew."""

import unicodedata

import pytest
from dataset_case import BOX, BOX_1, POLYGON, bitmap, class_folders, flat, pair, put, with_yaml

from gpu_offload.dataset.fingerprint import fingerprint
from gpu_offload.dataset.snapshot import read_snapshot
from gpu_offload.dataset.split import SplitRule
from gpu_offload.dataset.task import Task


def images_and_labels(root):
    for index in range(12):
        pair(root, f"images/{index}.bmp", index, BOX, f"labels/{index}.txt")
    put(root / "classes.txt", "car\nbike\n")
    put(root / "README.txt", "about this dataset\n")
    put(root / "notes.json", "{}")


def nested(root):
    for index in range(12):
        cam = index % 2
        pair(root, f"batch/images/cam{cam}/{index}.bmp", index, BOX, f"batch/labels/cam{cam}/{index}.txt")


def backgrounds(root):
    flat(root)
    (root / "003.txt").unlink()
    put(root / "004.txt")
    put(root / "empty/one.bmp", bitmap(500))


def composed(root):
    flat(root)
    pair(root, unicodedata.normalize("NFC", "café") + ".bmp", 700)
    pair(root, unicodedata.normalize("NFD", "über") + ".bmp", 701)
    pair(root, "日本/写真.bmp", 702)


def hidden(root):
    flat(root)
    pair(root, ".trash/0.bmp", 800)
    pair(root, "labels.cache/0.bmp", 801)


def lists(root):
    with_yaml(root, "train: train.txt\nval: [lists/val.txt, images/val]\nnames: {0: thing, 1: other}\n")
    put(root / "train.txt", "./images/train/0.bmp\nimages/train/1.bmp\n")
    put(root / "lists/val.txt", "images/train/2.bmp\n")


def roboflow(root):
    for part, first in (("train", 0), ("valid", 10), ("test", 20)):
        for index in range(3):
            pair(root, f"{part}/images/{index}.bmp", first + index, BOX, f"{part}/labels/{index}.txt")
    put(
        root / "data.yaml",
        "train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnc: 1\nnames: ['thing']\nroboflow:\n  version: 3\n",
    )


def keypoints(root):
    text = "train: images/train\nval: images/val\nnames: [thing]\nkpt_shape: [2, 3]\nflip_idx: [1, 0]\n"
    with_yaml(root, text, "0 0.5 0.5 0.2 0.2 0.4 0.4 2 0.6 0.6 1\n")


LAYOUTS = {
    "flat": (flat, {"classes": ["thing"]}),
    "flat without names": (lambda root: flat(root, label=BOX + BOX_1), {}),
    "flat, other rule": (flat, {"split": SplitRule(seed=3, val=0.3, test=0.2)}),
    "polygons": (lambda root: flat(root, label=POLYGON), {}),
    "polygons as boxes": (lambda root: flat(root, label=POLYGON), {"task": Task.DETECT}),
    "images and labels": (images_and_labels, {}),
    "nested": (nested, {}),
    "backgrounds": (backgrounds, {}),
    "unicode": (composed, {}),
    "hidden": (hidden, {}),
    "data.yaml": (with_yaml, {}),
    "data.yaml without val": (lambda root: with_yaml(root, "train: images\nnc: 2\n"), {}),
    "lists": (lists, {}),
    "roboflow": (roboflow, {}),
    "keypoints": (keypoints, {}),
    "class folders": (class_folders, {}),
    "class folders, split": (lambda root: class_folders(root, ("train", "valid", "test"), count=3), {}),
}  # fmt: skip

PINNED = {
    "flat": "d52eab3e0b38cf78b76d6b669197e1c1a705b1310cca09aa4f5ccdb679382c93",
    "flat without names": "fdd5976d88133dcbc26f076ce6b1eaa4b30df38c0ae519d0a65311cf76c12350",
    "flat, other rule": "51179298742802f6c8c8961155ba1501d95a72dd87b0df8701d155ef22433ea5",
    "polygons": "dc912839d2c7905916b21f033a2d347374bb3d1808e183899ce9499a6936cd04",
    "polygons as boxes": "470fd2ee28a57cda1f076e03b8fcab000b17b882c83188d7e523b719d334d4f0",
    "images and labels": "539e1cc5efe0ee5d8fc4435cb4ee70c61875a34a09ee9e70b93094ad2f3c5f23",
    "nested": "769a878151bf37c6f9a34726e71d6fb89a64fe17f2ee6e6481bddaf289a8575a",
    "backgrounds": "5c2b3f9cac0a2986393a1170bb8a06e62b347f8fb1f3537697a2f3a05f04ad52",
    "unicode": "df62f18eff558ee14579050bafd5d4c987b7c83885fbf82561bf071224880c02",
    "hidden": "dae7106c85549662f8eabb79e84b9bfa32654586d99fcbbf74942688b8e07308",
    "data.yaml": "5ff6dd2268161f0bb3a1b26b96ecf20266b4e328b7bb8d44c658e0070e79e673",
    "data.yaml without val": "e337d80639d1f3814671951a40845fe6ceea2c12ee66ddf5cc99f91f9da9ebbe",
    "lists": "1c4cfccd795fa73893ace549936cb15f02b14de3520c88207e8c38fa4d236221",
    "roboflow": "51b184989b386208148417b20398b0fc1b846e3b9d29f6e0f6176b3958203630",
    "keypoints": "08628895a3c506d4c8397537c0ba2ddc9e81de6180bb2b76eb9e8d0701cd9392",
    "class folders": "03629795520ef68efe0de00868a68e1f0320739c143291f6768db6ccf5cac76b",
    "class folders, split": "58a098251ea350c1447dab96967497bd450f4be3f7a122015cbfbf4bd19e6899",
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_fingerprint_of_a_valid_dataset_stays_what_it_was(tmp_path, name):
    make, options = LAYOUTS[name]
    make(tmp_path)
    assert fingerprint(read_snapshot(tmp_path, **options)) == PINNED[name]
