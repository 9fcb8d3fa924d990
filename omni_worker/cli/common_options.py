"""Common options: those that every command takes which talks to a server, or loads an app.

A command does not list them itself: `group` adds them when it is imported.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from ..errors import ConfigError

# Modules of commands that talk to no server. `check` asks a worker's port.
OFFLINE = frozenset(
    {"init", "server", "check", "show", "asyncapi", "schemas.dump", "completion", "version"}
)
TARGET = "target"  # the parameter that is MODULE:APP
USUAL_ENV_FILE = Path(".env")  # read by `dev` unasked

_KEY = f"{__name__}.given"


@dataclass(frozen=True, slots=True)
class EnvFile:
    """A file with variables, and the environment as it was without them."""

    path: Path
    real: Mapping[str, str]

    def read(self) -> dict[str, str]:
        """Return its variables. One that cannot be read has none, for it may just be written."""
        try:
            return read_env_file(self.path)
        except ConfigError:
            return {}


@dataclass(frozen=True, slots=True)
class Given:
    """The common options of a call."""

    server: str | None = None  # one URL or several, as NATS_URL has them
    app_dir: Path | None = None
    env_file: EnvFile | None = None

    def arguments(self) -> list[str]:
        """Return them for another process of ours; variables go by the environment."""
        found = []
        if self.server is not None:
            found += ["--server", self.server]
        if self.app_dir is not None:
            found += ["--app-dir", str(self.app_dir)]
        return found


def given() -> Given:
    """Return the common options of the command that runs."""
    context = click.get_current_context(silent=True)
    found = Given() if context is None else context.meta.get(_KEY, Given())
    assert isinstance(found, Given)
    return found


def add_common_options(command: click.Command, module: str) -> None:
    """Add the options that the command of a module should have, and has not yet."""
    if isinstance(command, click.Group):
        return
    talks = module not in OFFLINE
    loads = any(one.name == TARGET for one in command.params)
    wanted = [_SERVER] if talks else []
    wanted += [_APP_DIR] if loads else []
    wanted += [_ENV_FILE] if talks or loads else []
    command.params += [one for one in wanted if one not in command.params]


def ahead_of_a_command() -> list[click.Option]:
    """Make the common options once more, for a group: `omni-worker --server URL status`.

    Its help does not list them: they belong behind the command, and not every command has them.
    """
    found = [copy.copy(one) for one in (_SERVER, _APP_DIR, _ENV_FILE)]
    for one in found:
        one.hidden = True
    return found


def read_env_file(path: Path) -> dict[str, str]:
    """Return the variables of a file, as python-dotenv reads it. Raises ConfigError."""
    from dotenv import dotenv_values

    try:
        return {
            name: value
            for name, value in dotenv_values(path, encoding="utf-8").items()
            if value is not None
        }
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(f"{path} cannot be read: {why}") from None


def _take_env_file(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    """Set the variables that the environment does not have: what is set there wins."""
    path: Path | None = value
    is_given = context.meta.get(_KEY, Given()).env_file is not None  # ahead of the command
    if path is None and context.command.name == "dev" and not is_given:
        path = USUAL_ENV_FILE
    if path is None or context.resilient_parsing:
        return
    file = EnvFile(path, dict(os.environ))
    _give(context, env_file=file)
    if value is None and not path.is_file():  # it may be written later
        return
    try:
        values = read_env_file(path)
    except ConfigError as error:
        raise click.UsageError(str(error), context) from None
    for name, text in values.items():
        os.environ.setdefault(name, text)


def _take_server(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    if value is None or context.resilient_parsing:
        return
    from ..urls import EXPECTED, server_urls

    try:
        server_urls(value)
    except ValueError:  # the URL itself may hold a password
        raise click.BadParameter(f"expected {EXPECTED}", ctx=context, param=parameter) from None
    _give(context, server=value)


def _take_app_dir(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    if value is not None:
        _give(context, app_dir=value)


def _give(context: click.Context, **more: Any) -> None:
    context.meta[_KEY] = replace(context.meta.get(_KEY, Given()), **more)


_SERVER = click.Option(
    ["--server"], metavar="URL", expose_value=False, callback=_take_server,
    help="Use this server; NATS_URL and the app's settings do not count.",
)  # fmt: skip
_APP_DIR = click.Option(
    ["--app-dir"], metavar="DIR", expose_value=False, callback=_take_app_dir,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Look for MODULE in this directory, not in the current one.",
)  # fmt: skip
_ENV_FILE = click.Option(
    # Before every other option: the file may have the variable of one.
    ["--env-file"], metavar="FILE", expose_value=False, callback=_take_env_file, is_eager=True,
    type=click.Path(exists=True, path_type=Path),
    help="Set the variables of this file, except those that are set already.",
)  # fmt: skip
