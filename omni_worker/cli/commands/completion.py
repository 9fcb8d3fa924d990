"""`omni-worker completion`: a script for the shell."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from .. import main


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Write a script with which Tab completes commands and options in your shell.

    \b
    omni-worker completion bash >> ~/.bashrc
    omni-worker completion zsh >> ~/.zshrc
    omni-worker completion fish > ~/.config/fish/completions/omni-worker.fish

    It takes effect in the next shell you open.
    """
    made = get_completion_class(shell)
    assert made is not None
    click.echo(made(main, {}, "omni-worker", "_OMNI_WORKER_COMPLETE").source())
