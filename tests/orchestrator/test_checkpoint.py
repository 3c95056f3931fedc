"""Files of weights: what no training could read, or what is for another task, is refused before anything is rented."""

import zipfile

import pytest
from dataset_case import BOX, flat, put

from gpu_offload.dataset.task import Task
from gpu_offload.infra.store.factory import open_store
from gpu_offload.orchestrator.plan.checkpoint import check_checkpoint
from gpu_offload.orchestrator.plan.inputs import read_inputs
from gpu_offload.orchestrator.plan.project import PlanningError
from gpu_offload.orchestrator.settings.load import load_settings
from gpu_offload.orchestrator.workspace import Workspace


@pytest.mark.training
@pytest.mark.filterwarnings("default")  # Ultralytics warns as it likes
def test_weights_are_for_the_task_that_ultralytics_wrote_them_for(tmp_path):
    import torch
    from ultralytics.nn.tasks import ClassificationModel

    path = tmp_path / "model.pt"
    model = ClassificationModel("yolov8n-cls.yaml", nc=2, verbose=False)
    torch.save({"model": model}, path)
    check_checkpoint(path, "training.model", Task.CLASSIFY)
    check_checkpoint(path, "training.init-from", None)
    with pytest.raises(PlanningError, match="is for classify, and the dataset is for detect"):
        check_checkpoint(path, "training.model", Task.DETECT)
    for is_zip in (True, False):  # weights alone, and as PyTorch wrote them before 1.6
        torch.save(model.state_dict(), path, _use_new_zipfile_serialization=is_zip)
        check_checkpoint(path, "training.model", Task.DETECT)


def test_a_plan_refuses_a_file_that_pytorch_did_not_write(tmp_path):
    flat(tmp_path / "data", label=BOX)
    put(
        tmp_path / "offload.toml",
        '[dataset]\npath = "data"\n[training]\ninit-from = "store:weights/mine.pt"\n',
    )
    store = open_store(f"file:{tmp_path / 'store'}")
    for content in (b"<html>404</html>", b""):
        put(tmp_path / "store" / "weights" / "mine.pt", content.decode())
        with pytest.raises(
            PlanningError, match=r"training\.init-from store:weights/mine\.pt: PyTorch did not write"
        ):
            read_inputs(load_settings(tmp_path, environment={}), store, Workspace.of(tmp_path))
    with zipfile.ZipFile(tmp_path / "other.pt", "w") as archive:
        archive.writestr("readme.txt", "no weights")
    with pytest.raises(PlanningError, match=r"no data\.pkl"):
        check_checkpoint(tmp_path / "other.pt", "training.model", None)
