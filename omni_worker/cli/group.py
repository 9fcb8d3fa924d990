"""Group: a table of commands, each imported when it is called. Wrong calls fit in 80 columns."""

from __future__ import annotations

import difflib
import signal
import sys
import textwrap
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click
from click.shell_completion import CompletionItem

from ..listeners.text import NARROW, visible
from .common_options import add_common_options, ahead_of_a_command


class Commands(click.Group):
    """A group that knows its commands' names and sentences, by section, and imports none of them.

    The command `dead-letters` is ``command`` in the module ``package.dead_letters``.
    """

    def __init__(
        self, *arguments: Any, package: str, sections: Mapping[str, Mapping[str, str]],
        **options: Any,
    ) -> None:  # fmt: skip
        super().__init__(*arguments, **options)
        self.params += ahead_of_a_command()
        self.sections = sections
        self._package = package
        self._sentences = {name: said for rows in sections.values() for name, said in rows.items()}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every name, in the order of the table."""
        return list(self._sentences)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command of this name; None where the table has none."""
        if cmd_name not in self._sentences:
            return None
        module = f"{self._package}.{cmd_name.replace('-', '_')}"
        found: click.Command = import_module(module).command
        add_common_options(found, module.partition(".commands.")[2])
        return found

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take the words of a call; an option ahead of its command is sent behind it."""
        words = list(args)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            called = next((one for one in words if one in self._sentences), None)
            if called is None:
                raise
            raise click.UsageError(
                f"{error.option_name} belongs behind the command:"
                f" {ctx.command_path} {called} {error.option_name}", ctx,
            ) from None  # fmt: skip

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; a misspelt one is refused with the one that was probably meant."""
        name = args[0]
        if name in self._sentences or name.startswith("-") or ctx.resilient_parsing:
            return super().resolve_command(ctx, args)
        near = difflib.get_close_matches(name.lower().replace("_", "-"), self._sentences, 3)
        meant = f"did you mean {' or '.join(near)}?" if near else f"{ctx.command_path} -h lists all"
        raise click.UsageError(f"No such command {name!r}; {meant}", ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write every command with its sentence, by section."""
        width = max(map(len, self._sentences))
        for title, sentences in self.sections.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), said) for name, said in sentences.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete a command's name from the table, without an import."""
        names = [
            CompletionItem(name, help=said)
            for name, said in self._sentences.items()
            if name.startswith(incomplete)
        ]
        return names + click.Command.shell_complete(self, ctx, incomplete)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Run as the program: a command returns its exit code, a wrong call is reported."""
        try:
            code = self.main(*arguments, **{**options, "standalone_mode": False})
        except click.ClickException as error:
            _show(error)
            sys.exit(error.exit_code)
        except click.Abort:
            click.echo("Aborted!", err=True)
            sys.exit(1)
        sys.exit(code if isinstance(code, int) else 0)


def take_interrupts() -> None:
    """Let Ctrl-C be a KeyboardInterrupt, which a command clears up after."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:  # as `omni_worker_program` left it
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _show(error: click.ClickException) -> None:
    if type(error).show not in (click.ClickException.show, click.UsageError.show):
        error.show()  # no arguments: click shows the help
        return
    context = getattr(error, "ctx", None)
    if context is not None:
        click.echo(context.get_usage(), err=True)
        click.echo(f"Try '{context.command_path} --help' for help.\n", err=True)
    text = visible(f"Error: {error.format_message()}")
    for line in text.splitlines():
        click.echo(textwrap.fill(line, NARROW, subsequent_indent="  ", break_long_words=False,
                                 break_on_hyphens=False), err=True)  # fmt: skip
