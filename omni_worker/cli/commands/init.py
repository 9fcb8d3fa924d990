"""`omni-worker init`: a small project that runs and passes its test as it is written."""

from __future__ import annotations

import re
import shlex
from importlib.resources import files
from pathlib import Path

import click

from ...errors import ConfigError
from ...schemas import check_name
from .. import CALLED_WRONGLY, complain
from ..app_loader import USUAL_MODULES

# From the template's name to the project's: no dots there, so that packaging takes them along.
FILES = {
    "app.py.txt": "app.py",
    "test_app.py.txt": "test_app.py",
    "pyproject.toml.txt": "pyproject.toml",
    "Procfile.txt": "Procfile",
    "ecosystem.config.cjs.txt": "ecosystem.config.cjs",
    "gitignore.txt": ".gitignore",
}
WHAT = {
    "app.py": "the app and its handler",
    "test_app.py": "its test, without a server",
    "pyproject.toml": "what it needs",
    "Procfile": "for honcho, foreman, Heroku",
    "ecosystem.config.cjs": "for PM2",
    ".gitignore": "",
}


@click.command("init")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
def command(folder: Path) -> int:
    """Write a small project into DIR: a handler, its test, and how it is run.

    No existing file is overwritten.
    """
    if folder.exists() and not folder.is_dir():
        complain(f"{folder} is not a directory")
        return CALLED_WRONGLY
    taken = [name for name in FILES.values() if (folder / name).exists()]
    if taken:
        complain(f"{folder / taken[0]} exists already; nothing was written")
        return CALLED_WRONGLY
    name = app_name(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for template, target in FILES.items():
        text = files("omni_worker.cli").joinpath("template", template).read_text(encoding="utf-8")
        (folder / target).write_text(text.replace("{{name}}", name), encoding="utf-8")
    _say(folder, name)
    return 0


def app_name(folder: Path) -> str:
    """Turn the folder's name into a valid name of an app."""
    name = re.sub(r"[^a-z0-9]+", "-", folder.resolve().name.lower()).strip("-")
    try:
        check_name(name, "name")
    except ConfigError:
        return "worker"
    return name


def _say(folder: Path, name: str) -> None:
    click.echo(f"{name} in {folder}:")
    for target in FILES.values():
        click.echo(f"  {target:22}{WHAT[target]}".rstrip())
    here = folder.resolve() == Path.cwd()
    click.echo("Next:")
    for line in [
        *([] if here else [f"cd {shlex.quote(str(folder))}"]),
        "python -m pytest",
        f"omni-worker dev {USUAL_MODULES[0]}",
    ]:
        click.echo(f"  {line}")
