"""Checks a model definition of the user's without building it: its keys, its rows, and the layers that each row reads."""

import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from gpu_offload.orchestrator.output.console import enumerated
from gpu_offload.orchestrator.plan.project import PlanningError, read_source, suggestion

MAX_BYTES = 1 << 20
MAX_FAULTS = 20

HEADS = {
    "Detect", "Segment", "Segment26", "Pose", "Pose26", "OBB", "OBB26", "SemanticSegment", "Depth",
    "RTDETRDecoder", "WorldDetect", "YOLOEDetect", "YOLOESegment", "YOLOESegment26", "v10Detect", "LRPCHead",
}  # fmt: skip
"""Last rows that read several layers."""
SEVERAL = HEADS | {"CBFuse", "Concat", "ImagePoolingAttn"}
"""Modules that read several layers; each other one reads one."""
MODULES = SEVERAL | {
    "A2C2f", "AConv", "ADown", "AIFI", "Bottleneck", "BottleneckCSP", "C1", "C2", "C2PSA", "C2f", "C2fAttn",
    "C2fCIB", "C2fPSA", "C3", "C3Ghost", "C3TR", "C3k2", "C3x", "CBLinear", "Classify", "Conv", "Conv2",
    "ConvTranspose", "DWConv", "DWConvTranspose2d", "ELAN1", "Focus", "GhostBottleneck", "GhostConv", "HGBlock",
    "HGStem", "Index", "PSA", "RepC3", "RepConv", "RepNCSPELAN4", "RepVGGDW", "ResNetLayer", "SCDown", "SPP",
    "SPPELAN", "SPPF", "TorchVision",
}  # fmt: skip
"""What a row of Ultralytics can name in the version `CHECKED`, beside `nn.` and `torchvision.ops.`."""
CHECKED = (8, 4, 190)


def check_definition(path: Path, name: str) -> int:
    """Check a model definition, called `name` in the settings, and return its number of layers.

    Raises PlanningError with every fault and its line.
    """
    text = read_source(path, MAX_BYTES).decode("utf-8", errors="ignore")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    top: Any = None
    try:
        top = yaml.compose(text, Loader=loader)
        faults = list(_faults(top, path.stem))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        faults = [
            (mark, f"is no YAML: {getattr(error, 'problem', None) or type(error).__name__}; correct it")
        ]
    except RecursionError:
        faults = [(None, "is nested too deep; write it flat")]
    if faults:
        more = [f"and {len(faults) - MAX_FAULTS} more"] if len(faults) > MAX_FAULTS else []
        lines = [f"{name}{f':{mark.line + 1}' if mark else ''}: {message}" for mark, message in faults]
        raise PlanningError(enumerated("training.model cannot be built", [*lines[:MAX_FAULTS], *more]))
    return sum(len(value.value) for key, value in top.value if key.value in {"backbone", "head"})


def _faults(top: Any, stem: str) -> Iterator[tuple[Any, str]]:
    """Yield the faults of a document by their place in it; nothing is constructed, so that aliases cost nothing."""
    if not isinstance(top, yaml.MappingNode):
        yield getattr(top, "start_mark", None), "is no mapping with nc, backbone and head; write one"
        return
    table = {key.value: value for key, value in top.value if isinstance(key, yaml.ScalarNode)}
    if "nc" not in table:
        yield None, "has no number of classes; write nc: 80 (the dataset's own number replaces it)"
    if "scales" in table:
        yield from _scale_faults(table["scales"], stem)
    rows: list[Any] | None = []
    for key in ("backbone", "head"):
        if isinstance(table.get(key), yaml.SequenceNode):
            rows = None if rows is None else rows + table[key].value
        else:
            rows = None  # without a part of them, the numbers mean other rows
            place = table[key].start_mark if key in table else None
            yield place, f"has no list {key}; write rows [from, repeats, module, arguments]"
    for index, row in enumerate(rows or ()):
        for message in _row_faults(row, index):
            yield row.start_mark, message
    if rows:
        last = rows[-1].value[2].value if _is_row(rows[-1]) else None
        if last is not None and last not in HEADS | {"Classify"} and (last in MODULES or _is_layer(last)):
            message = f"ends with {last}, which is no head; end with Detect, Segment, Pose or Classify"
            yield rows[-1].start_mark, message


def _scale_faults(scales: Any, stem: str) -> Iterator[tuple[Any, str]]:
    written = "write n: [depth, width, max_channels] with three numbers"
    if not isinstance(scales, yaml.MappingNode) or not scales.value:
        yield scales.start_mark, f"scales is no mapping; {written}"
        return
    for key, value in scales.value:
        numbers = value.value if isinstance(value, yaml.SequenceNode) else []
        if len(numbers) != 3 or any(not _tagged(one, "int", "float") for one in numbers):
            yield key.start_mark, f"scale {key.value} is not three numbers; {written}"
    # Ultralytics reads the scale from the file's name, else it takes the first.
    asked = re.search(r"yolo(?:e-)?v?\d+([nslmx])", stem)
    known = [key.value for key, _ in scales.value]
    if asked and asked[1] not in known:
        yield (
            scales.start_mark,
            f"the file's name asks for the scale {asked[1]}, and scales has {', '.join(map(str, known))}; add it, or rename the file",
        )


def _row_faults(row: Any, index: int) -> Iterator[str]:
    if not _is_row(row):
        yield f"row {index} is not [from, repeats, module, arguments]; write these four"
        return
    source, repeats, module, _ = row.value
    if (count := _integer(repeats)) is None or count < 1:
        yield f"row {index} repeats {_shown(repeats)} times; write a whole number from 1 on"
    name = module.value
    if not _is_known(name):
        yield f"row {index} names {name}, which Ultralytics does not have{suggestion(name, MODULES)}"
        return
    several = isinstance(source, yaml.SequenceNode)
    if name in MODULES and several != (name in SEVERAL):
        yield f"row {index}: {name} reads " + (
            "one layer, not a list; write for example -1"
            if several
            else "a list of layers; write for example [-1, 6]"
        )
        return
    before = (
        f"the layers before it are 0 to {index - 1}, the last one is -1" if index else "the first reads -1"
    )
    for one in source.value if several else [source]:
        layer = _integer(one)
        if layer is None or not -max(index, 1) <= layer < index:
            yield f"row {index} reads layer {_shown(one)}; {before}"


def _is_known(module: str) -> bool:
    return module in MODULES or _is_layer(module) or _has_newer()


def _is_layer(module: str) -> bool:
    return re.fullmatch(r"(?:nn|torchvision\.ops)\.[A-Za-z]\w*", module) is not None


def _has_newer() -> bool:
    """Whether the installed Ultralytics may have modules that the table does not."""
    try:
        return tuple(int(part) for part in metadata.version("ultralytics").split(".")[:3]) > CHECKED
    except (metadata.PackageNotFoundError, ValueError):
        return False


def _is_row(row: Any) -> bool:
    return (
        isinstance(row, yaml.SequenceNode)
        and len(row.value) == 4
        and isinstance(row.value[2], yaml.ScalarNode)
        and isinstance(row.value[3], yaml.SequenceNode)
    )


def _tagged(node: Any, *kinds: str) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag in {f"tag:yaml.org,2002:{kind}" for kind in kinds}


def _integer(node: Any) -> int | None:
    return int(node.value) if _tagged(node, "int") and re.fullmatch(r"[+-]?\d{1,9}", node.value) else None


def _shown(node: Any) -> str:
    return str(node.value)[:40] if isinstance(node, yaml.ScalarNode) else "a list or mapping"
