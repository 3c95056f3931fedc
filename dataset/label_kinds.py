"""What the labels of a dataset are for: the task that they teach, and the classes that they use."""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass

from gpu_offload.dataset.finding import Findings, error, some, warning
from gpu_offload.dataset.git import converts_line_ends
from gpu_offload.dataset.label import LabelFacts, unknown_classes
from gpu_offload.dataset.layout import DatasetFiles
from gpu_offload.dataset.samples import Samples
from gpu_offload.dataset.task import Task

_CORNERS = 9
"""Columns of an oriented box: a class and four corners."""


@dataclass(slots=True)
class LabelKinds:
    """Goes over the labels of one dataset and appends what it finds to `findings`."""

    listing: DatasetFiles
    samples: Samples
    shape: tuple[int, int] | None
    findings: Findings

    def task(self, given: Task | None) -> Task:
        """Settle what is to be learnt, and see that the labels are of that kind."""
        if self.listing.class_of is not None:
            if given not in (None, Task.CLASSIFY):
                message = f"class folders are for classification, not {given}; add labels or change the task"
                self.findings.append(error("", "wrong-task", message))
            self._class_sizes()
            return Task.CLASSIFY
        if given is Task.CLASSIFY:
            message = "classification needs one folder a class; make them or change the task"
            self.findings.append(error("", "wrong-task", message))
            return given
        if self.shape is not None:
            return self._with_keypoints(given)
        if given is Task.POSE:
            message = "pose needs the number of keypoints; write a data.yaml with kpt_shape: [number, 2 or 3]"
            self.findings.append(error("", "no-keypoints", message))
            return given
        return self._boxes_or_polygons(given)

    def _with_keypoints(self, given: Task | None) -> Task:
        if given not in (None, Task.POSE):
            message = (
                f"kpt_shape says that the labels hold keypoints, and {given} is asked for; remove dataset.task to "
                "learn the keypoints, or write labels without them and remove kpt_shape"
            )
            self.findings.append(error("", "wrong-task", message))
        return Task.POSE

    def _boxes_or_polygons(self, given: Task | None) -> Task:
        boxes, polygons = array("I"), array("I")
        like_keypoints = like_corners = True
        for label, facts in self._facts():
            (polygons if facts.max_columns > 6 else boxes).append(label)
            like_keypoints = like_keypoints and facts.like_keypoints
            like_corners = like_corners and facts.min_columns == facts.max_columns == _CORNERS
        said = any(finding.code == "no-keypoints" for finding in self.findings)
        if polygons and like_keypoints and given is not Task.SEGMENT and not said:
            message = (
                "every row looks like a box and keypoints; write a data.yaml with kpt_shape: [number, 2 or 3], "
                'or set dataset.task = "segment" if they are polygons'
            )
            self.findings.append(error("", "no-keypoints", message))
        if polygons and like_corners and given is None:
            message = "every row has four corners; as oriented boxes (OBB) they cannot be trained, they are read as polygons"
            self.findings.append(warning("", "four-corners", message))
        if given is Task.SEGMENT or (given is None and polygons and not boxes):
            for label in boxes:
                name = self.samples.inventory.names[label]
                message = (
                    "holds boxes, but segmentation learns from polygons; draw polygons or change the task"
                )
                self.findings.append(error(name, "wrong-task", message))
            return Task.SEGMENT
        # Within one file this is an error, because Ultralytics drops the image; across files it takes each polygon's box.
        if boxes and polygons and given is None:
            message = (
                f"{len(polygons)} labels hold polygons and {len(boxes)} boxes; detection is learnt, "
                "with each polygon's box; set the task to silence this"
            )
            self.findings.append(warning("", "mixed-labels", message))
        return given or Task.DETECT

    def _facts(self) -> Iterator[tuple[int, LabelFacts]]:
        """Yield the labels that hold rows, each once, by position in the inventory."""
        inventory = self.samples.inventory
        seen = bytearray(len(inventory.names))  # two images may share a label
        for _, label in self.samples.images():
            if label >= 0 and inventory.checked[label] and not seen[label]:
                seen[label] = 1
                facts = LabelFacts.unpacked(*inventory.facts[3 * label : 3 * label + 3])
                if facts.rows:
                    yield label, facts

    def line_ends(self) -> None:
        """Warn where git turned the labels' line ends into those of Windows: another checkout has other bytes."""
        label = next((label for label, facts in self._facts() if facts.crlf), None)
        if label is None or not converts_line_ends(
            self.listing.root, name := self.samples.inventory.names[label]
        ):
            return
        message = (
            f"git wrote {name} and perhaps others with the line ends of Windows, so that this checkout has another "
            "fingerprint than one on Linux; put `*.txt -text` into .gitattributes and check out again"
        )
        self.findings.append(warning("", "line-ends", message))

    def _class_sizes(self) -> None:
        """Warn of classes that training or validation never sees."""
        samples, classes = self.samples, self.listing.classes
        class_of = self.listing.class_of
        if class_of is None:
            return
        seen = {(class_of(samples.inventory.names[image]), split) for image, _, split in samples.columns()}
        for part in ("train", "val"):
            missing = [name for name in classes if (name, part) not in seen]
            if missing and len(missing) < len(classes):
                message = f"{part} has no image of class {some(missing, 10)}; add images"
                self.findings.append(warning("", "class-without-image", message))

    def classes(self, named: tuple[str, ...], task: Task, *, complete: bool) -> tuple[str, ...]:
        """See that every class index has a name; number the classes that have none.

        `complete` says whether everything that the dataset names was found; else classes may be missing from that.
        """
        if task is Task.CLASSIFY:
            if len(named) < 2 and complete:
                message = "classification needs at least two class folders; add the others"
                self.findings.append(error("", "no-classes", message))
            return named
        highest = {label: facts.max_class + 1 for label, facts in self._facts()}
        count = max(highest.values(), default=0)
        if not named and len(self.samples):
            if count > 10_000:
                message = f"class {count - 1} is used and no class is named; name the classes"
                self.findings.append(error("", "no-classes", message))
                return ()
            largest = f" (the highest, {count - 1}, is in this file)" if count else ""
            message = (
                f"the classes have no names and are called by their numbers{largest}; list the names in classes.txt, "
                "one a line, or in dataset.classes"
            )
            label = max(highest, key=lambda label: highest[label], default=None)
            path = self.samples.inventory.names[label] if label is not None else ""
            if complete:
                self.findings.append(warning(path, "no-classes", message))
            return tuple(str(number) for number in range(max(count, 1)))
        for label in [label for label, number in highest.items() if number > len(named)]:
            name = self.samples.inventory.names[label]
            if self.findings.is_full("error", "unknown-class"):
                self.findings.append(error(name, "unknown-class", "uses a class without a name"))
                continue
            data = self.listing.labels.get(name)
            content = (self.listing.root / name).read_bytes() if data is None else data
            self.findings += unknown_classes(name, content, len(named))
        return named
