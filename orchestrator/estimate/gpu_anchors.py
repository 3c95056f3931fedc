"""Training speeds on GPUs, published by others or measured: what the GPU prior was fitted on, and is tested by.

A published one is the training part of an epoch, validation apart, of an Ultralytics model in mixed precision, as a public log or
README states it; the notebooks are of Kaggle and Colab, whose hosts have two virtual cores. Peaks are the makers' for
half precision without sparsity, in 10^12 operations a second; bandwidth in 10^9 bytes a second.

A measured one is a step of one batch trained again and again, so that nothing waits for a loader, with the optimizer's part as
often as it comes: `python benchmarks/gpu_speed.py`, 2026-11-26, one H200 and one H100, each with 8 cores of a Xeon of the fifth
generation, torch 2.11, Ultralytics 8.4.190, generated pictures.
"""

from dataclasses import dataclass
from typing import Literal

Source = Literal["notebook", "cloud instance", "readme", "workstation", "measured"]


FAST = ("workstation", "measured")
"""Sources whose processors issue steps as fast as those of 2023 and later."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """One speed."""

    gpu: str
    fp16_tflops: float
    bandwidth_gb_s: float
    workers: int
    """Loader processes, or the cores that they share; 0 where nothing was loaded."""
    model: str
    dual_head: bool
    gflops_640: float
    """Of one forward pass of a 640 x 640 image, in 10^9 operations."""
    image_size: int
    batch: int
    images: int
    seconds: float
    """Of an epoch's training, or of a batch."""
    source: Source

    @property
    def seconds_per_image(self) -> float:
        """What one image takes."""
        return self.seconds / self.images


ANCHORS = (
    Anchor("T4", 65, 320, 2, "yolov8n", False, 8.2, 640, 16, 15210, 204, "notebook"),
    Anchor("T4", 65, 320, 2, "yolov8n", False, 8.2, 640, 16, 5290, 51.5, "notebook"),
    Anchor("T4", 65, 320, 2, "yolov8n", False, 8.2, 640, 16, 704, 6.66, "notebook"),
    Anchor("T4", 65, 320, 2, "yolov8n", False, 8.2, 640, 8, 21, 0.35, "notebook"),
    Anchor("T4", 65, 320, 2, "yolo26s", True, 22.8, 960, 3, 823, 60, "notebook"),
    Anchor("T4", 65, 320, 2, "yolov8m", False, 79.1, 1024, 8, 1024, 93, "notebook"),
    Anchor("T4", 65, 320, 2, "yolov8x", False, 258, 640, 16, 1352, 101, "notebook"),
    Anchor("T4", 65, 320, 4, "yolo11s", False, 21.5, 1280, 4, 101, 9, "cloud instance"),
    Anchor("T4", 65, 320, 2, "yolo26n", True, 5.4, 640, 16, 143, 2.25, "notebook"),
    Anchor("V100", 125, 900, 8, "yolov8s", False, 28.7, 640, 32, 648, 5.1, "cloud instance"),
    Anchor("V100", 125, 900, 8, "yolov5s", False, 16.5, 640, 64, 118287, 552.96, "readme"),
    Anchor("V100", 125, 900, 8, "yolov5m", False, 49.0, 640, 40, 118287, 1105.92, "readme"),
    Anchor("V100", 125, 900, 8, "yolov5l", False, 109.1, 640, 24, 118287, 1658.88, "readme"),
    Anchor("V100", 125, 900, 8, "yolov5x", False, 205.7, 640, 16, 118287, 2211.84, "readme"),
    Anchor("A100", 312, 1555, 8, "yolo26n", True, 5.4, 640, 32, 6720, 52.9, "cloud instance"),
    Anchor("RTX 3090", 71, 936, 8, "yolo11x", False, 194.9, 640, 8, 12824, 339, "workstation"),
    Anchor("RTX 3070", 40.6, 448, 8, "yolov8s", False, 28.6, 640, 16, 1616, 20.6, "workstation"),
    Anchor("RTX 4060 Ti", 44, 288, 8, "yolo26n", True, 5.4, 640, 16, 3200, 28.9, "workstation"),
    Anchor("H200", 989, 4800, 0, "yolov8n", False, 8.9, 640, 16, 16, 0.0466, "measured"),
    Anchor("H200", 989, 4800, 0, "yolov8m", False, 79.3, 640, 16, 16, 0.0529, "measured"),
    Anchor("H200", 989, 4800, 0, "yolov8x", False, 258.5, 640, 16, 16, 0.0724, "measured"),
    Anchor("H200", 989, 4800, 0, "yolo26n", True, 6.2, 640, 16, 16, 0.0926, "measured"),
    Anchor("H200", 989, 4800, 0, "yolov8n", False, 8.9, 640, 64, 64, 0.0512, "measured"),
    Anchor("H200", 989, 4800, 0, "yolov8n", False, 8.9, 640, 128, 128, 0.0658, "measured"),
    Anchor("H200", 989, 4800, 0, "yolov8n", False, 8.9, 640, 4, 4, 0.0515, "measured"),
    Anchor("H200", 989, 4800, 0, "yolov8n", False, 8.9, 320, 64, 64, 0.0477, "measured"),
    Anchor("H200", 989, 4800, 0, "yolov8n", False, 8.9, 1280, 8, 8, 0.0419, "measured"),
    Anchor("H200", 989, 4800, 0, "yolov8s", False, 28.8, 640, 16, 16, 0.0421, "measured"),
    Anchor("H200", 989, 4800, 0, "yolov8s", False, 28.8, 640, 64, 64, 0.0588, "measured"),
    Anchor("H200", 989, 4800, 0, "yolov8m", False, 79.3, 640, 64, 64, 0.1019, "measured"),
    Anchor("H200", 989, 4800, 0, "yolov8m", False, 79.3, 1024, 8, 8, 0.0587, "measured"),
    Anchor("H200", 989, 4800, 0, "yolov8l", False, 165.7, 640, 16, 16, 0.0560, "measured"),
    Anchor("H200", 989, 4800, 0, "yolov8x", False, 258.5, 640, 32, 32, 0.1143, "measured"),
    Anchor("H200", 989, 4800, 0, "yolo11n", False, 6.7, 640, 16, 16, 0.0687, "measured"),
    Anchor("H200", 989, 4800, 0, "yolo11s", False, 21.8, 1280, 4, 4, 0.0598, "measured"),
    Anchor("H200", 989, 4800, 0, "yolo11m", False, 68.6, 640, 16, 16, 0.0778, "measured"),
    Anchor("H200", 989, 4800, 0, "yolo11x", False, 196.3, 640, 8, 8, 0.1076, "measured"),
    Anchor("H200", 989, 4800, 0, "yolo26n", True, 6.2, 640, 32, 32, 0.0896, "measured"),
    Anchor("H200", 989, 4800, 0, "yolo26s", True, 23.1, 960, 4, 4, 0.0839, "measured"),
    Anchor("H200", 989, 4800, 0, "yolo26m", True, 75.6, 640, 16, 16, 0.0968, "measured"),
    Anchor("H200", 989, 4800, 0, "yolo26x", True, 210.1, 640, 16, 16, 0.1176, "measured"),
    Anchor("H100", 989, 3350, 0, "yolov8n", False, 8.9, 640, 16, 16, 0.0503, "measured"),
    Anchor("H100", 989, 3350, 0, "yolov8m", False, 79.3, 640, 16, 16, 0.0639, "measured"),
    Anchor("H100", 989, 3350, 0, "yolov8x", False, 258.5, 640, 16, 16, 0.0821, "measured"),
    Anchor("H100", 989, 3350, 0, "yolo26n", True, 6.2, 640, 16, 16, 0.0878, "measured"),
    Anchor("H100", 989, 3350, 0, "yolov8n", False, 8.9, 640, 64, 64, 0.0588, "measured"),
    Anchor("H100", 989, 3350, 0, "yolov8n", False, 8.9, 640, 128, 128, 0.0708, "measured"),
    Anchor("H100", 989, 3350, 0, "yolov8n", False, 8.9, 640, 4, 4, 0.0479, "measured"),
    Anchor("H100", 989, 3350, 0, "yolov8n", False, 8.9, 320, 64, 64, 0.0441, "measured"),
    Anchor("H100", 989, 3350, 0, "yolov8n", False, 8.9, 1280, 8, 8, 0.0387, "measured"),
    Anchor("H100", 989, 3350, 0, "yolov8s", False, 28.8, 640, 16, 16, 0.0501, "measured"),
    Anchor("H100", 989, 3350, 0, "yolov8s", False, 28.8, 640, 64, 64, 0.0652, "measured"),
    Anchor("H100", 989, 3350, 0, "yolov8m", False, 79.3, 640, 64, 64, 0.1132, "measured"),
    Anchor("H100", 989, 3350, 0, "yolov8m", False, 79.3, 1024, 8, 8, 0.0497, "measured"),
    Anchor("H100", 989, 3350, 0, "yolov8l", False, 165.7, 640, 16, 16, 0.0635, "measured"),
    Anchor("H100", 989, 3350, 0, "yolov8x", False, 258.5, 640, 32, 32, 0.1238, "measured"),
    Anchor("H100", 989, 3350, 0, "yolo11n", False, 6.7, 640, 16, 16, 0.0657, "measured"),
    Anchor("H100", 989, 3350, 0, "yolo11s", False, 21.8, 1280, 4, 4, 0.0638, "measured"),
    Anchor("H100", 989, 3350, 0, "yolo11m", False, 68.6, 640, 16, 16, 0.0856, "measured"),
    Anchor("H100", 989, 3350, 0, "yolo11x", False, 196.3, 640, 8, 8, 0.1035, "measured"),
    Anchor("H100", 989, 3350, 0, "yolo26n", True, 6.2, 640, 32, 32, 0.1056, "measured"),
    Anchor("H100", 989, 3350, 0, "yolo26s", True, 23.1, 960, 4, 4, 0.1003, "measured"),
    Anchor("H100", 989, 3350, 0, "yolo26m", True, 75.6, 640, 16, 16, 0.1121, "measured"),
    Anchor("H100", 989, 3350, 0, "yolo26x", True, 210.1, 640, 16, 16, 0.1178, "measured"),
)
