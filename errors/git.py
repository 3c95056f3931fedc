"""Git commands for a checkout that may be a stranger's: nothing that it contains or configures is run.

An archive can bring a `.git` with a configuration of its own, which names commands. The user's own configuration, such as
that of Git LFS, applies.
"""

import errno
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

ALWAYS = (
    "core.quotepath=off",
    "core.fsmonitor=false",
    "core.hooksPath=/dev/null",
    # A committed folder that looks like a bare repository brings no configuration of its own.
    "safe.bareRepository=explicit",
    # A file beside the commits that lists their parents. Git does not check it, so a forged one changes the history.
    "core.commitGraph=false",
)
PROTOCOLS = "file:git:http:https:ssh"
"""Protocols of `ls-remote`, the only command that asks a remote. Others (`ext:`) run a command in the address."""

RUNS = re.compile(
    r"filter\..*\.(?:clean|smudge|process)|core\.(?:sshcommand|gitproxy|askpass|alternaterefscommand|pager|editor)"
    r"|credential\.(?:.*\.)?helper|remote\..*\.(?:uploadpack|vcs)|lfs\.extension\..*",
    re.DOTALL,
)
"""Settings whose value is a command."""
DEEPEST = 8
"""Limit of submodules within submodules: a repository may name itself as its submodule."""
LFS = re.compile(r"git-lfs (?:(?:clean|smudge)(?: --skip)? -- %f|filter-process(?: --skip)?)")
"""What `git lfs install --local` configures; `actions/checkout` runs it."""
TIMEOUT_S = 60
"""Seconds for the list of settings, and for that of an index with millions of files."""
REPLACED = {"core.sshcommand": "ssh", "uploadpack": "git-upload-pack"}


def careful(folder: Path, *words: str) -> tuple[list[str], dict[str, str]]:
    """Return a git command in a folder, and its environment.

    Raises:
        FileNotFoundError: git is missing.
        OSError: git does not answer.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {
        "LC_ALL": "C",
        # An object that is missing in a partial clone is fetched from nowhere; git before 2.44 knows only the first.
        "GIT_ALLOW_PROTOCOL": PROTOCOLS if words[0] == "ls-remote" else "",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
        # Replacements and grafts of a repository would put other content or parents in the place of a commit's.
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_GRAFT_FILE": os.devnull,
    }
    base = ["git", "-C", str(folder), *(word for setting in ALWAYS for word in ("-c", setting))]
    if words[0] == "diff":
        words = ("diff", "--no-ext-diff", "--no-textconv", *words[1:])
    # A comparison runs git in submodules, whose configurations come with the repository.
    depth = DEEPEST if words[0] in {"diff", "status"} else 0
    # Not by `-c`, which splits at the first `=`: `filter.a=b.clean` is a valid name, too.
    settings = dict(_harmless(folder, base, environment, depth))
    for number, (key, value) in enumerate(settings.items()):
        environment |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return [*base, *words], environment | {"GIT_CONFIG_COUNT": str(len(settings))}


def _harmless(
    folder: Path, base: list[str], environment: Mapping[str, str], depth: int
) -> Iterator[tuple[str, str]]:
    """Yield settings that replace the commands which a repository and its submodules configure."""
    own: dict[str, str] = {}
    users: dict[str, str] = {}
    parts = _said([*base, "config", "--list", "-z", "--show-scope"], environment).split("\0")
    for scope, setting in zip(parts[::2], parts[1::2], strict=False):
        key, _, value = setting.partition("\n")
        (own if scope in {"local", "worktree"} else users)[key] = value
    # An extension of Git LFS is a command, too, which the harmless filter of Git LFS would run.
    is_extended = any(key.startswith("lfs.extension.") for key in own)
    for key, value in own.items():
        if not RUNS.fullmatch(key) or (LFS.fullmatch(value) and not is_extended):
            continue
        yield key, users.get(key, REPLACED.get(key, REPLACED.get(key.rpartition(".")[2], "")))
        if key.startswith("filter."):
            yield f"{key.rpartition('.')[0]}.required", "false"
        if key.startswith("credential."):
            yield "credential.helper", ""  # an empty one takes all before it back
    if not depth:
        return
    for line in _said([*base, "ls-files", "--stage", "-z"], environment).split("\0"):
        inner = folder / line.partition("\t")[2]
        if line.startswith("160000 ") and os.path.lexists(inner / ".git"):  # else it is not checked out
            yield from _harmless(inner, [*base[:2], str(inner), *base[3:]], environment, depth - 1)


def _said(command: list[str], environment: Mapping[str, str]) -> str:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=environment,
            encoding="utf-8",
            errors="surrogateescape",
            check=False,
            timeout=TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:  # a configuration may include a named pipe
        raise TimeoutError(errno.ETIMEDOUT, f"it does not answer within {TIMEOUT_S} s") from None
    return done.stdout if done.returncode == 0 else ""
