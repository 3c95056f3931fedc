"""Workflow files and README badge that `offload init` writes into a repository."""

import hashlib
import json
import os
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gpu_offload.errors import UsageError
from gpu_offload.orchestrator.github.pin import Pin

FOLDER = Path(".github/workflows")
TEMPLATES = Path(__file__).with_name("templates")
NAMES = ("offload-plan", "offload-train", "offload", "offload-rollback", "offload-tend")
IN_RELEASE = {"offload-train": "offload-train-on-runner", "offload-rollback": "offload-rollback-in-release"}
"""Templates that replace others where models are kept in a release."""

MARK = "# Written by `offload init`"
"""The first line of a file that `offload init` may update."""

UNEDITED = "# unedited "
"""Begins the last line of a file, with a digest of the lines above it. After an edit the digest is wrong: the text is the
user's, and only the pins move."""

USES = re.compile(
    r"\S+/\.github/workflows/(plan|train-on-runner|train|keep|rollback-in-release|rollback|tend)\.yml@[0-9a-f]{40}( # \S+)?"
)
"""A call of one of our reusable workflows."""

BADGE = re.compile(
    r"^\[!\[[^\]\n]*\]\(\S+/actions/workflows/(offload-train[^/\s]*\.yml)/badge\.svg\S*\)\]\(\S+\)$",
    re.MULTILINE,
)

GERMAN = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue", "ß": "ss"})
"""Letters that lose more than their dots in ASCII."""

State = Literal["written", "updated", "unchanged", "edited", "foreign"]


@dataclass(frozen=True, slots=True)
class WorkflowProject:
    """The project that workflows are for."""

    pin: Pin
    branch: str = "main"
    """The default branch: a push to it trains."""
    directory: str = "."
    """The folder of the configuration, relative to the repository's root."""
    keep: bool = False
    """Whether models are kept in a release, because the store is a folder."""
    lfs: bool = False
    submodules: bool = False

    def path(self, name: str) -> Path:
        """Return the path of a workflow; projects in one repository do not share one."""
        return FOLDER / f"{name}{self._suffix('-', slug(self.directory))}.yml"

    def title(self, name: str) -> str:
        """Return the name that GitHub shows."""
        return f"{name}{self._suffix(' ', self.directory)}"

    def _suffix(self, separator: str, text: str) -> str:
        return "" if self.directory == "." else separator + text


@dataclass(frozen=True, slots=True)
class Written:
    """The outcome for one file: `edited` keeps the user's text and moves pins at most, `foreign` is left alone."""

    path: Path
    state: State


def slug(directory: str) -> str:
    """Return a folder's path as one word for file names and tags; two paths never share one.

    Other letters than ASCII's are transliterated, and a digest distinguishes such paths.
    """
    if re.fullmatch(r"[A-Za-z0-9./_-]+", directory):
        return "".join({"/": "-", "-": "_", "_": "__"}.get(c, c) for c in directory)
    plain = (
        unicodedata.normalize("NFKD", unicodedata.normalize("NFC", directory).translate(GERMAN))
        .encode("ascii", "ignore")
        .decode()
    )
    words = re.sub(r"[^A-Za-z0-9.]+", "-", plain).strip("-.")
    return "-".join([*([words] if words else []), hashlib.sha256(os.fsencode(directory)).hexdigest()[:8]])


def workflow_texts(target: WorkflowProject) -> dict[Path, str]:
    """Return the workflows of a project by their path in the repository."""
    return {target.path(name): _text(name, target) for name in NAMES}


def write_workflows(root: Path, target: WorkflowProject) -> tuple[Written, ...]:
    """Write or update the workflows of a project below the repository's root. Raises OSError."""
    return tuple(_write(root, path, text, target.pin) for path, text in workflow_texts(target).items())


def badge(repository: str, target: WorkflowProject) -> str:
    """Return the README's badge: whether the newest training succeeded."""
    page = f"https://github.com/{repository}/actions/workflows/{target.path('offload-train').name}"
    return f"[![{target.title('train')}]({page}/badge.svg)]({page})"


def with_badge(readme: str, line: str) -> str:
    """Return a README with the badge below its title, in place of an older badge of the same workflow."""
    if BADGE.search(readme):
        # A function, because backslashes in a replacement text would be read as groups.
        return BADGE.sub(lambda _: line, readme, count=1)
    title, newline, rest = readme.partition("\n")
    if title.startswith("# "):
        return f"{title}\n\n{line}\n{newline and rest}"
    return f"{line}\n\n{readme}"


def _text(name: str, target: WorkflowProject) -> str:
    """Fill in a template. Each is a workflow that linters can read, so its places hold example values."""
    template = IN_RELEASE.get(name, name) if target.keep else name
    text = (TEMPLATES / f"{template}.yml").read_text("utf-8")
    text = re.sub(r"(?m)^name: (\w+)$", lambda m: f"name: {_quoted(target.title(m[1]))}", text, count=1)
    # GitHub reads the filter as a pattern: of a branch `c++`, the `+` would mean a repetition.
    branch = re.sub(r"[]*?+!\\[]", r"\\\g<0>", target.branch)
    text = text.replace("branches: [main]", f"branches: [{_quoted(branch)}]")
    directory = f"      directory: {_quoted(target.directory)}"
    fetched = [name for name, used in (("lfs", target.lfs), ("submodules", target.submodules)) if used]
    inputs = [directory, *(f"      {each}: true" for each in fetched if name != "offload-tend")]
    # The job `keep` checks out none of the repository, so it gets neither `lfs` nor `submodules`.
    jobs, keep, kept = text.partition("\n  keep:")
    jobs = jobs.replace("      directory: .", "\n".join(inputs))
    text = jobs + keep + kept.replace("      directory: .", directory)
    return _sealed(_pinned(text, target.pin))


def _quoted(text: str) -> str:
    """Return a text as YAML in double quotes, with its letters as they are."""
    return json.dumps(text, ensure_ascii=not text.isprintable())


def _pinned(text: str, pin: Pin) -> str:
    return USES.sub(lambda match: pin.uses(match[1]), text)


def _sealed(text: str) -> str:
    body = text.rstrip("\n") + "\n"
    return f"{body}{UNEDITED}{_digest(body)}: edit freely, then `offload init` moves only the pins\n"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _is_unedited(text: str) -> bool:
    body, found, line = text.rpartition(UNEDITED)
    return bool(found) and line.partition(":")[0] == _digest(body)


def _write(root: Path, path: Path, text: str, pin: Pin) -> Written:
    file = root / path
    for part in (file, *(root / parent for parent in path.parents)):
        if part != root and part.is_symlink():
            raise UsageError(f"{part} is a symlink; put the real file or folder there, then run this again")
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return Written(path, "written")
    # An edited file is the user's: bytes that are not UTF-8 survive the update.
    old = file.read_bytes().decode("utf-8", errors="surrogateescape")
    if not old.startswith(MARK):
        return Written(path, "foreign")
    new = text if _is_unedited(old) else _pinned(old, pin)
    if new == old:
        return Written(path, "unchanged" if _is_unedited(old) else "edited")
    file.write_bytes(new.encode("utf-8", errors="surrogateescape"))
    return Written(path, "updated")
