"""A click group that lists its commands in whole sentences and names the place of a misplaced option."""

from collections.abc import Mapping
from typing import Any, ClassVar

import click


class CommandGroup(click.Group):
    """Lists its commands below the headings of `sections`, each with the whole first sentence of its help."""

    sections: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Names of commands by heading. Commands that are in none come last."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands, heading by heading."""
        names = self.list_commands(ctx)
        left = tuple(name for name in names if not any(name in listed for listed in self.sections.values()))
        widest = max(map(len, names), default=0)
        for title, listed in (*self.sections.items(), ("More" if self.sections else "Commands", left)):
            rows = []
            for name in listed:
                command = self.get_command(ctx, name)
                if command is not None and not command.hidden:
                    # Not `get_short_help_str`, which cuts in the middle of a sentence.
                    text = (command.help or "").strip().partition("\n\n")[0].replace("\n", " ")
                    rows.append((name.ljust(widest), text))
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a usage error that it raises itself is one of its own, so that its help is named."""
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            name = ctx.invoked_subcommand or ""
            if error.ctx is None and (command := self.get_command(ctx, name)) is not None:
                error.ctx = click.Context(command, parent=ctx, info_name=name)
            raise

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the group's own options; an option of its commands is refused with its right place."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            of_commands = {
                name for command in self.commands.values() for each in command.params for name in each.opts
            }
            if error.option_name not in of_commands:
                raise
            raise click.UsageError(
                f"option '{error.option_name}' comes after the command: {ctx.command_path} COMMAND {error.option_name}",
                ctx,
            ) from error
