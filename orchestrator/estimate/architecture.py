"""Arithmetic and size of the standard Ultralytics models, without importing torch.

Counted with Ultralytics 8.4.190's own `get_flops` (multiply and add are two operations) on each definition as it
ships: 80 classes, 1000 for classification, unfused. Other numbers of classes change them by a few per cent.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Size and arithmetic of a model."""

    name: str
    """The definition's name without its ending, such as `yolov8n-seg`."""
    gflops_640: float
    """One forward pass of one image of 640 x 640 pixels, in 10^9 operations."""
    parameters: int
    dual_head: bool
    """Whether it trains two heads at once (YOLOv10, YOLO26), which FLOPs do not show."""


def facts(model: str) -> ModelFacts | None:
    """Look up a model by its setting (`yolov8n.yaml`, `yolo11n.pt`, a bare name); None for others and for paths."""
    if "/" in model or "\\" in model or ":" in model:
        return None
    name = re.sub(r"\.(ya?ml|pt)$", "", model)
    without = re.sub(
        r"^(yolov[35][a-z]?(?:-spp|-tiny)?)(6?)u$", lambda m: m[1] + ("-p6" if m[2] else ""), name
    )
    counted = _TABLE.get(name) or _TABLE.get(without)
    if counted is None:
        return None
    return ModelFacts(name, counted[0], counted[1], dual_head=has_dual_head(name))


def has_dual_head(name: str) -> bool:
    """Whether a model of this name trains a one-to-many and a one-to-one head together."""
    return name.startswith(("yolov10", "yolo26")) and not name.endswith("-cls")


HOST_WORK = {"yolo26": 2.2, "yolov10": 2.2, "yolo11": 1.6, "yolo12": 1.6, "yolov9": 1.6}
"""What a step costs the processor that issues it, relative to YOLOv8: it grows with the number of layers, not with their size.

Measured on an H200 for YOLOv8, YOLO11 and YOLO26 (45, 75 and 100 ms a step); the others have about as many layers.
"""
HOST_WORK_OF_TASK = {"cls": 0.35, "seg": 1.3, "pose": 1.25, "obb": 1.25}
"""What another task makes of it; measured but for obb."""


def host_work(name: str) -> float:
    """Return what a step of a model costs its host, relative to YOLOv8's detectors; 1 for a model that is not a standard one."""
    family = re.match(r"yolo(?:v?\d+)", name)
    task = name.partition("-")[2].partition("-")[0]
    relative = HOST_WORK.get(family[0], 1.0) if family else 1.0
    if task == "cls" and has_dual_head(family[0] if family else ""):
        relative = HOST_WORK["yolo11"]  # a classifier has one head
    return relative * HOST_WORK_OF_TASK.get(task, 1.0)


UNKNOWN = ModelFacts("unknown", 28.8, 11_166_560, dual_head=False)
"""Assumption for a model that is not in the table: as much as yolov8s. A calibration replaces it."""

_SCALED = {
    "yolo11*": ((6.7, 2_624_080), (21.8, 9_458_752), (68.6, 20_114_688), (87.9, 25_372_160), (196.3, 56_966_176)),
    "yolo11*-cls": ((3.3, 2_812_104), (12.3, 6_724_008), (39.7, 11_634_216), (50.0, 14_115_624), (111.4, 29_637_064)),
    "yolo11*-obb": ((6.9, 2_695_747), (22.8, 9_744_931), (72.3, 20_963_523), (91.5, 26_220_995), (204.6, 58_875_331)),
    "yolo11*-pose": ((7.8, 2_908_507), (23.6, 9_948_811), (72.4, 20_973_273), (91.6, 26_230_745), (204.7, 58_889_881)),
    "yolo11*-seg": ((10.0, 2_876_848), (33.4, 10_113_248), (114.0, 22_420_896), (133.2, 27_678_368), (297.9, 62_142_656)),
    "yolo12*": ((7.6, 2_602_288), (23.7, 9_284_096), (71.3, 20_199_168), (96.3, 26_450_784), (210.1, 59_210_784)),
    "yolo12*-cls": ((4.6, 2_999_496), (15.5, 7_385_512), (47.4, 13_261_608), (63.4, 16_737_160), (136.3, 35_351_112)),
    "yolo12*-obb": ((7.9, 2_673_955), (24.6, 9_570_275), (75.0, 21_048_003), (100.0, 27_299_619), (218.5, 61_119_939)),
    "yolo12*-pose": ((8.7, 2_886_715), (25.4, 9_774_155), (75.1, 21_057_753), (100.0, 27_309_369), (218.5, 61_134_489)),
    "yolo12*-seg": ((10.9, 2_855_056), (35.2, 9_938_592), (116.7, 22_505_376), (141.6, 28_756_992), (311.7, 64_387_264)),
    "yolo26*": ((6.2, 2_572_280), (23.1, 10_009_784), (75.6, 21_896_248), (94.2, 26_299_704), (210.1, 58_993_368)),
    "yolo26*-cls": ((3.3, 2_812_104), (12.3, 6_724_008), (39.7, 11_634_216), (50.0, 14_115_624), (111.4, 29_637_064)),
    "yolo26*-obb": ((6.7, 2_715_614), (25.1, 10_582_142), (83.0, 23_593_918), (101.6, 27_997_374), (226.7, 62_811_678)),
    "yolo26*-p2": ((9.6, 2_662_400), (28.0, 9_765_856), (91.6, 21_144_288), (115.6, 25_815_520), (257.4, 57_935_232)),
    "yolo26*-p6": ((6.0, 4_063_872), (22.3, 15_876_448), (77.3, 32_400_096), (97.0, 39_365_600), (216.7, 88_330_368)),
    "yolo26*-pose": ((10.8, 3_747_554), (29.8, 11_870_498), (86.1, 24_344_482), (104.7, 28_747_938), (226.9, 62_914_350)),
    "yolo26*-seg": ((10.6, 3_126_280), (37.7, 11_505_800), (132.8, 27_112_072), (151.3, 31_515_528), (338.2, 70_693_800)),
    "yolov5*": ((7.8, 2_654_816), (24.2, 9_153_152), (64.6, 25_111_456), (135.6, 53_225_024), (247.3, 97_276_448)),
    "yolov5*-p6": ((8.0, 4_334_896), (24.6, 15_309_328), (65.7, 41_222_064), (138.0, 86_099_920), (251.6, 155_544_432)),
    "yolov6*": ((13.0, 4_500_080), (44.6, 16_452_192), (161.0, 52_020_496), (390.8, 110_926_464), (609.4, 173_061_616)),
    "yolov8*": ((8.9, 3_157_200), (28.8, 11_166_560), (79.3, 25_902_640), (165.7, 43_691_520), (258.5, 68_229_648)),
    "yolov8*-cls": ((3.4, 2_719_288), (12.6, 6_361_736), (41.9, 17_053_336), (99.1, 37_480_744), (154.3, 57_422_840)),
    "yolov8*-ghost": ((5.8, 1_865_316), (16.4, 5_960_072), (32.7, 10_336_312), (53.7, 14_277_872), (83.3, 22_229_308)),
    "yolov8*-ghost-p2": ((13.8, 2_033_944), (25.0, 5_562_080), (42.8, 9_031_728), (69.0, 12_214_448), (103.2, 18_664_776)),
    "yolov8*-ghost-p6": ((5.8, 2_901_100), (16.4, 9_520_008), (34.4, 18_002_904), (55.3, 21_227_584), (85.7, 33_057_852)),
    "yolov8*-obb": ((9.1, 3_228_867), (29.8, 11_452_739), (81.5, 26_463_235), (169.4, 44_540_355), (264.3, 69_555_651)),
    "yolov8*-p2": ((17.4, 3_354_144), (39.7, 10_884_336), (99.0, 25_082_496), (206.3, 42_888_080), (318.0, 66_637_536)),
    "yolov8*-p6": ((8.8, 4_984_352), (28.7, 17_911_792), (83.5, 44_887_488), (167.8, 62_384_016), (261.8, 97_423_072)),
    "yolov8*-pose": ((9.3, 3_295_470), (30.4, 11_626_046), (81.4, 26_464_462), (169.1, 44_489_196), (264.0, 69_491_724)),
    "yolov8*-pose-p6": ((9.3, 5_182_152), (30.3, 18_563_608), (85.6, 45_724_712), (171.3, 63_496_736), (267.4, 99_182_640)),
    "yolov8*-rtdetr": ((18.6, 9_643_868), (34.3, 16_518_572), (77.3, 29_645_180), (153.8, 45_644_364), (232.3, 67_113_884)),
    "yolov8*-seg": ((12.1, 3_409_968), (40.3, 11_821_056), (105.0, 27_285_968), (211.1, 45_997_728), (329.2, 71_827_888)),
    "yolov8*-seg-p6": ((12.1, 5_302_816), (40.3, 18_687_280), (109.2, 46_542_144), (213.2, 65_024_336), (332.6, 101_542_624)),
}  # fmt: skip
"""GFLOPs of one forward pass at 640 px and parameters, of the scales n, s, m, l and x in place of `*`. Without a scale it is n."""

_PLAIN = {
    "rtdetr-l": (110.2, 32_970_476), "rtdetr-resnet101": (193.7, 61_917_260), "rtdetr-resnet50": (132.7, 42_925_132),
    "yolov8-cls-resnet101": (130.5, 46_405_160), "yolov8-cls-resnet50": (69.6, 27_413_032),
    "rtdetr-x": (234.9, 67_467_852), "yolov10b": (99.5, 20_574_384),
    "yolov10l": (128.0, 25_888_688), "yolov10m": (64.6, 16_576_768), "yolov10n": (8.8, 2_775_520),
    "yolov10s": (25.2, 8_128_272), "yolov10x": (172.0, 31_808_960), "yolov3": (283.3, 103_754_144),
    "yolov3-spp": (284.2, 104_803_744), "yolov3-tiny": (19.1, 12_173_248), "yolov9c": (104.0, 25_590_912),
    "yolov9c-seg": (149.3, 27_897_120), "yolov9e": (193.0, 58_206_592), "yolov9e-seg": (238.3, 60_512_800),
    "yolov9m": (77.9, 20_216_160), "yolov9s": (27.6, 7_318_368), "yolov9t": (8.5, 2_128_720),
}  # fmt: skip

_TABLE: dict[str, tuple[float, int]] = _PLAIN | {
    name.replace("*", scale): counted
    for name, row in _SCALED.items()
    for scale, counted in zip(("", *"nsmlx"), (row[0], *row), strict=True)
}
