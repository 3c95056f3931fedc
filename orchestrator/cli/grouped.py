"""`offload --help`: commands by workflow, each with its whole first sentence."""

import click

GROUPS = {
    "Start": ("init", "check", "plan", "train", "sweep"),
    "Models": ("models", "pull", "promote", "rollback", "yank", "usage", "prune", "site"),
    "Runs": ("status", "logs", "report", "stop", "attach", "estimate", "state"),
    "AWS account": ("bootstrap", "doctor", "tend"),
    "Try it without an account": ("demo", "simulate", "drill"),
    "For scripts": ("changed", "fingerprint", "schema"),
}
"""In the order in which a user needs them; a command that is in none comes last, under "More"."""


class GroupedCommands(click.Group):
    """A group whose help lists its commands by workflow."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands, group by group."""
        left = [
            name for name in self.list_commands(ctx) if not any(name in names for names in GROUPS.values())
        ]
        widest = max(map(len, self.list_commands(ctx)), default=0)
        for title, names in (*GROUPS.items(), ("More", tuple(left))):
            rows = []
            for name in names:
                command = self.get_command(ctx, name)
                if command is not None and not command.hidden:
                    # Not `get_short_help_str`, which cuts in the middle of a sentence.
                    text = (command.help or "").strip().partition("\n\n")[0].replace("\n", " ")
                    rows.append((name.ljust(widest), text))
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)
