"""Commands about a project: init, schema."""

import os
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gpu_offload.orchestrator.cli.options import directory_option, json_option, show_answer

if TYPE_CHECKING:
    from gpu_offload.infra.github.checkout import Checkout
    from gpu_offload.orchestrator.github.workflows import WorkflowProject
    from gpu_offload.orchestrator.settings.load import Settings

WIDTH = 8


@click.command()
@click.argument("directory", type=click.Path(path_type=Path, exists=True, file_okay=False), default=Path())
@click.option("--print", "only_print", is_flag=True, help="Print the files instead of writing them.")
@click.option("--all", "everything", is_flag=True, help="Write every setting, most as a comment.")
@click.option(
    "--workflows/--no-workflows",
    default=None,
    help="Write GitHub workflows; by default if a remote is at GitHub.",
)
@click.option(
    "--action",
    metavar="OWNER/REPO@COMMIT[#VERSION]",
    help="The action to pin, such as your fork's; by default this release's.",
)
def init(
    directory: Path, *, only_print: bool, everything: bool, workflows: bool | None, action: str | None
) -> None:
    """Write a commented offload.toml for the dataset in DIRECTORY, and the workflows that train it.

    Run it again after an upgrade: pins move, and what you edited stays as you wrote it.
    """
    from gpu_offload.infra.github.checkout import checkout_of
    from gpu_offload.orchestrator.github.workflows import workflow_texts
    from gpu_offload.orchestrator.settings.scaffold import configuration_for, write_configuration

    root = directory.resolve()
    checkout = checkout_of(root)
    target, problem = _target(root, checkout, workflows=workflows, action=action)
    if only_print:
        files = {Path("offload.toml"): configuration_for(root, everything=everything)} | (
            workflow_texts(target) if target else {}
        )
        click.echo("\n".join(f"# ==> {path}\n{text}" for path, text in files.items()), nl=False)
        return
    configuration = write_configuration(root, everything=everything)
    name = (directory / configuration.path.name).as_posix()
    there_too = "" if root == Path.cwd().resolve() else f" -C {shlex.quote(str(directory))}"
    done, kept = ([name], []) if configuration.written else ([], [f"{name} as it is"])
    then = ""
    if target is not None and checkout is not None:
        # A configuration that was there says where the models go.
        target = replace(target, keep=_has_folder_store(root))
        _write_workflows(root, checkout, target, done, kept)
        then = _explained(target)
    there = bool(configuration.candidates) if configuration.written else _has_dataset(root)
    if configuration.candidates or not there:
        _line("Found", configuration.found)
    _line("Wrote", ", ".join(done))
    _line("Kept", ", ".join(kept))
    _line("Missing", problem)
    first = "" if there else f"correct dataset.path in {name}, then "
    _line("Next", f"{first}offload check{there_too}{then}")
    if target is not None and target.keep and checkout is not None:
        _warn_if_private(checkout)


def _target(
    root: Path, checkout: "Checkout | None", *, workflows: bool | None, action: str | None
) -> "tuple[WorkflowProject | None, str]":
    """Return what workflows are for, None where none are wanted; and why wanted ones are not possible."""
    from gpu_offload.orchestrator.github.pin import Pin, PinError, own_pin
    from gpu_offload.orchestrator.github.workflows import WorkflowProject

    asked = workflows or action is not None
    if checkout is None:
        if asked:
            raise click.UsageError(f"workflows need a git repository, and {root} is in none: run `git init`")
        if workflows is None:
            return (
                None,
                "the workflows: this is no git repository; make it one with a remote at GitHub, and run init again",
            )
    if checkout is None or workflows is False:
        return None, ""
    if not (asked or checkout.repository):
        return None, "the workflows: no remote is at GitHub; add it and run init again, or give --workflows"
    try:
        pin = Pin.of(action) if action else own_pin()
    except PinError as error:
        if asked:
            raise click.UsageError(str(error)) from error
        return None, f"the workflows: {error}"
    target = WorkflowProject(
        pin,
        checkout.branch,
        root.relative_to(checkout.root).as_posix(),
        keep=_has_folder_store(root),
        lfs=checkout.lfs,
        submodules=checkout.submodules,
    )
    return target, ""


def _write_workflows(
    root: Path, checkout: "Checkout", target: "WorkflowProject", done: list[str], kept: list[str]
) -> None:
    """Write the workflows, and the badge with the first of them; sort what happened into `done` and `kept`."""
    from gpu_offload.orchestrator.github.workflows import FOLDER, badge, with_badge, write_workflows

    by_state: dict[str, list[str]] = {}
    for one in write_workflows(checkout.root, target):
        by_state.setdefault(one.state, []).append(one.path.name)
    for state, names in by_state.items():
        listed = names[0] if len(names) == 1 else f"{len(names)} workflows"
        into = done if state in {"written", "updated"} else kept
        into.append(f"{listed} in {FOLDER}{STATES[state]}")
    readme = root / "README.md"
    # Only with new workflows: a badge that was removed stays removed.
    if "written" in by_state and checkout.repository and readme.is_file() and not readme.is_symlink():
        # Byte for byte: line ends and other encodings stay as they are.
        old = readme.read_bytes().decode("utf-8", "surrogateescape")
        new = with_badge(old, badge(checkout.repository, target))
        if new != old:
            readme.write_bytes(new.encode("utf-8", "surrogateescape"))
            done.append("a badge in README.md")


STATES = {
    "written": "",
    "updated": " (updated)",
    "unchanged": " as they are",
    "edited": " (edited by you)",
    "foreign": " (not written by offload init)",
}


def _explained(target: "WorkflowProject") -> str:
    """Say when the workflows train and where the models go."""
    where = "this repository's releases (the store is a folder)" if target.keep else "the store"
    return f"; then a push to {target.branch} trains, and the model goes to {where}"


def _warn_if_private(checkout: "Checkout") -> None:
    from gpu_offload.infra.github.repository import is_public

    if checkout.repository and is_public(checkout.repository, os.environ) is False:
        _line(
            "Warning",
            f"{checkout.repository} is private or does not exist yet. A private repository's releases cannot be read "
            "without credentials, so every push would train again: set store.url to a bucket, then offload init",
        )


def _settings_of(directory: Path, environment: Mapping[str, str]) -> "Settings | None":
    """Return the settings of a folder; None where they have faults, which `offload check` lists."""
    from gpu_offload.orchestrator.settings.load import SettingsError, load_settings

    try:
        return load_settings(directory, environment=environment)
    except SettingsError:
        return None


def _has_dataset(root: Path) -> bool:
    """Whether the dataset of the configuration exists, as far as can be said."""
    settings = _settings_of(root, {})
    return settings is None or settings.dataset_path.exists()


def _has_folder_store(root: Path) -> bool:
    """Whether the models of a project go into a folder, as they do by default."""
    # Without this shell's variables, which a workflow does not have.
    settings = _settings_of(root, {})
    return settings is None or settings.store.url.startswith("file:")


def _line(name: str, text: str) -> None:
    from gpu_offload.orchestrator.output.table import terminal_width, wrapped

    if text:
        hanging = " " * (WIDTH + 1)
        click.echo(wrapped(text, width=terminal_width(), indent=f"{name:{WIDTH}} ", hanging=hanging))


@click.command()
@json_option
def schema(*, as_json: bool) -> None:
    """Print the JSON schema of offload.toml, for editors."""
    del as_json  # it is JSON either way
    from gpu_offload.orchestrator.settings.json_schema import schema_text

    click.echo(schema_text(), nl=False)


@click.command()
@json_option
@directory_option
@click.option("--delete-gone", is_flag=True, help="Delete the state of projects whose folder is not there.")
@click.option(
    "--adopt",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Take over the state of the project that was at PATH.",
)
def state(directory: Path, adopt: Path | None, *, as_json: bool, delete_gone: bool) -> None:
    """List what this machine keeps of every project: models and runs of folder stores, caches."""
    from gpu_offload.orchestrator import project_states as states

    if adopt is not None:
        folder = states.adopt(_project(directory), adopt.absolute())
        click.echo(f"models, runs and caches of {adopt} are this project's now, in {folder}", err=as_json)
    if delete_gone:
        show_answer(states.delete_gone(), as_json=as_json)
    elif adopt is None or as_json:
        found = states.ProjectStates(states.with_sizes(states.project_states()))
        show_answer(found, as_json=as_json)


def _project(directory: Path) -> Path:
    """Return the project's folder: that of the configuration, here or above, else this one."""
    settings = _settings_of(directory.resolve(), os.environ)
    return settings.root if settings else directory.resolve()


COMMANDS = (init, schema, state)
