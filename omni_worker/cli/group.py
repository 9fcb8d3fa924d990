"""Commands: how a group of them is listed and how a wrong call is told, in eighty columns."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import click

from ..listeners.pretty import NARROW, visible


class Commands(click.Group):
    """A group whose commands are listed by what people come for, none of the words cut short."""

    def __init__(
        self, *arguments: Any, sections: Mapping[str, Sequence[str]] | None = None, **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self.sections = sections or {}

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Every command with its sentence."""
        named = [name for names in self.sections.values() for name in names]
        rest = [name for name in self.list_commands(ctx) if name not in named]
        width = max(map(len, self.commands))
        for title, names in (*self.sections.items(), ("Commands", rest)):
            rows = [(name.ljust(width), _sentence(self.commands[name])) for name in names]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Run as the program; what was called wrongly is told in lines that fit the terminal."""
        try:
            code = self.main(*arguments, **{**options, "standalone_mode": False})
        except click.ClickException as error:
            _show(error)
            sys.exit(error.exit_code)
        except click.Abort:
            click.echo("Aborted!", err=True)
            sys.exit(1)
        sys.exit(code if isinstance(code, int) else 0)


def _sentence(command: click.Command) -> str:
    return command.short_help or (command.help or "").partition("\n\n")[0].replace("\n", " ")


def _show(error: click.ClickException) -> None:
    if type(error).show not in (click.ClickException.show, click.UsageError.show):
        error.show()  # it is the help that was asked for by saying nothing
        return
    context = getattr(error, "ctx", None)
    if context is not None:
        click.echo(context.get_usage(), err=True)
        click.echo(f"Try '{context.command_path} --help' for help.\n", err=True)
    said = visible(f"Error: {error.format_message()}")
    for line in said.splitlines():
        click.echo(textwrap.fill(line, NARROW, subsequent_indent="  ", break_long_words=False,
                                 break_on_hyphens=False), err=True)  # fmt: skip
