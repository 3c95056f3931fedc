"""What a pull request changes in the dataset, against its base."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from gpu_offload.dataset.finding import counted
from gpu_offload.dataset.layout import is_image
from gpu_offload.dataset.snapshot import Snapshot
from gpu_offload.infra.git import git
from gpu_offload.orchestrator.github.event import WorkflowEvent


@dataclass(frozen=True, slots=True)
class DataChange:
    """Counts of changed images and labels; `objects` has the change in boxes, masks or images of each class."""

    added: Mapping[str, int] = field(default_factory=dict)
    """Images by split."""
    removed: int = 0
    replaced: int = 0
    labels: int = 0
    """Labels changed of images that were there before."""
    objects: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        count = sum(self.added.values())
        splits = ", ".join(f"{n} {split}" for split, n in self.added.items() if n)
        parts = [f"+{counted(count, 'image')}: {splits}"] if count else []
        parts += [f"-{counted(self.removed, 'image')}"] if self.removed else []
        parts += [f"{counted(self.replaced, 'image')} replaced"] if self.replaced else []
        changed = {name: n for name, n in self.objects.items() if n}
        if changed:
            parts.append("class " + ", ".join(f"{name} {n:+d}" for name, n in changed.items()))
        parts += [f"{counted(self.labels, 'label')} changed"] if self.labels else []
        return "; ".join(parts)


def base_of(event: WorkflowEvent, root: Path) -> str | None:
    """Return the commit that a pull request is compared with; None if it was not checked out."""
    request = event.payload.get("pull_request")
    base = request.get("base") if isinstance(request, dict) else None
    named = base.get("sha") if isinstance(base, dict) else None
    # For a pull request, GitHub checks out its merge with the base, whose first parent is the base.
    parents = git(root, "rev-parse", "HEAD^@")
    merged = parents.returncode == 0 and len(parents.stdout.split()) > 1
    for revision in ("HEAD^1" if merged else None, named):
        if isinstance(revision, str) and not revision.startswith("-"):
            found = git(root, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
            if found.returncode == 0:
                return found.stdout.strip()
    return None


def data_change(snapshot: Snapshot, base: str) -> DataChange | None:
    """Compare the dataset with what it was at a commit, by git; None where git cannot decide."""
    names = git(snapshot.root, "diff", "--no-renames", "--relative", "--name-status", "-z", base, "--", ".")
    lines = git(snapshot.root, "diff", "--no-renames", "--relative", "--unified=0", base, "--", "*.txt")
    if names.returncode or lines.returncode:
        return None
    words = names.stdout.split("\0")
    states = dict(zip(words[1::2], words[::2], strict=False))
    samples = {sample.image: sample for sample in snapshot.samples}
    by_label = {sample.label: sample for sample in samples.values() if sample.label}
    images = {name: state for name, state in states.items() if is_image(name)}
    added = [samples[name] for name, state in images.items() if state == "A" and name in samples]
    objects = Counter(dict.fromkeys(snapshot.classes, 0))
    for name, state in images.items():
        sample = samples.get(name)
        if sample is not None and sample.class_index is not None:
            objects[snapshot.classes[sample.class_index]] += state == "A"
        elif state == "D" and PurePosixPath(name).parent.name in objects:
            objects[PurePosixPath(name).parent.name] -= 1
    for index, sign in _label_lines(lines.stdout):
        if index < len(snapshot.classes):
            objects[snapshot.classes[index]] += sign
    fresh = {sample.image for sample in added}
    return DataChange(
        added=Counter(sample.split for sample in added),
        removed=sum(state == "D" for state in images.values()),
        replaced=sum(state == "M" for name, state in images.items() if name in samples),
        labels=sum(name in states and sample.image not in fresh for name, sample in by_label.items()),
        objects=dict(objects),
    )


def _label_lines(diff: str) -> Iterator[tuple[int, int]]:
    """Yield the class number of each label line that a diff adds or removes, with +1 or -1."""
    in_hunk = False
    for line in diff.splitlines():
        if line.startswith("@@"):
            in_hunk = True
        elif line.startswith("diff --git"):
            in_hunk = False
        elif in_hunk and line[:1] in "+-" and line:
            words = line[1:].split()
            # A label has a class and at least a point; a list of class names or files has not.
            if len(words) > 4 and words[0].isdecimal() and len(words[0]) < 8:
                yield int(words[0]), 1 if line[0] == "+" else -1
