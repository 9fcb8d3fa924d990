"""Messages: lines of the parent of `dev`, in the form of the log lines around them."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import click

from ...listeners.pretty import pretty


class Messages:
    """Lines on standard error; coloured on a terminal."""

    def __init__(self) -> None:
        self._colour = sys.stderr.isatty() and "NO_COLOR" not in os.environ

    def say(self, text: str) -> None:
        """Print what happened."""
        self._line("INFO", text)

    def warn(self, text: str) -> None:
        """Print a warning."""
        self._line("WARNING", text)

    def watching(self, folders: tuple[Path, ...]) -> None:
        """Print which folders are watched."""
        shown = ", ".join(relative(folder) for folder in folders)
        self.say(f"watching {shown} for changes; Ctrl-C stops")

    def changed(self, paths: Iterable[Path]) -> None:
        """Print which files were saved."""
        self.say(f"changed: {_shown(paths)}")

    def loops(self, paths: Iterable[Path]) -> None:
        """Print which files change at each reload."""
        self.warn(
            f"{_shown(paths)} changes at every reload: does your code write it when it is loaded?"
            " Write it elsewhere, or name it in .gitignore. Until then reloads pause for some"
            " seconds"
        )

    def unreported(self, cause: str) -> None:
        """Print that the system does not report what is saved."""
        self.warn(
            f"the system cannot report what is saved ({cause}): files are looked at once a second."
            " On Linux raise fs.inotify.max_user_watches and max_user_instances"
        )

    def ended(self, code: int) -> None:
        """Print how the child ended by itself."""
        if code == 2:  # it has printed what it could not load
            self.warn("waiting for the next save")
            return
        how = f"exit code {code}"
        if code < 0:
            try:
                how = signal.Signals(-code).name
            except ValueError:
                how = f"signal {-code}"
        self.warn(f"the worker ended by itself ({how}); waiting for the next save")

    def _line(self, level: str, text: str) -> None:
        at = time.strftime("%H:%M:%S")
        click.echo(
            pretty(at, level, text, {}, ours=True, colour=self._colour),
            err=True,
            color=self._colour,
        )


def _shown(paths: Iterable[Path]) -> str:
    first, *rest = sorted(relative(path) for path in paths)
    more = f" and {len(rest)} more" if rest else ""
    return f"{first}{more}"


def relative(path: Path) -> str:
    """Shorten a path below the current directory."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
