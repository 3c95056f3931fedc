"""Trainings and calibrations for the tests of estimates."""

from gpu_offload.dataset.task import Task
from gpu_offload.orchestrator.estimate.workload import Workload, workload
from gpu_offload.remote_job.pace.pace import ModePace, Pace
from gpu_offload.remote_job.result import Calibration


def work(**changes) -> Workload:
    given_ = {
        "task": Task.DETECT,
        "model": "yolov8n.yaml",
        "image_size": 320,
        "batch": 16,
        "epochs": 20,
        "train_images": 301,
        "val_images": 76,
    }
    return workload(**given_ | changes)


def calibration(**changes) -> Calibration:
    given_ = {
        "machine": "test, 2 cores",
        "device": "cpu",
        "model": "yolov8n.yaml",
        "task": Task.DETECT,
        "image_size": 320,
        "batch": 16,
        "gflops": 2.2,
        "parameters": 3_157_200,
        "pace": pace(**changes.pop("pace", {})),
    }
    return Calibration(**given_ | changes)


def pace(**changes) -> Pace:
    given_ = {
        "ready": 6.0,
        "batches": 19,
        "mosaic": ModePace(batch=1.2, spread=0.02, steps=3),
        "plain": ModePace(batch=1.0, spread=0.02, steps=3),
        "optimizer": 0.03,
        "validation": 0.02,
        "save": 0.4,
        "final": 4.0,
    }
    return Pace(**given_ | changes)
