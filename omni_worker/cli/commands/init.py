"""`omni-worker init`: a small project that runs and passes its test as it is written."""

from __future__ import annotations

import json
import os
import re
import shlex
import sysconfig
from importlib.resources import files
from pathlib import Path

import click

from ...errors import ConfigError
from ...schemas import check_name
from .. import CALLED_WRONGLY, complain
from ..app_loader import USUAL_MODULES
from ..requirement import installed

# From the template's name to the project's: no dots there, so that packaging takes them along.
FILES = {
    "README.md.txt": "README.md",
    "app.py.txt": "app.py",
    "test_app.py.txt": "test_app.py",
    "hello.json.txt": "hello.json",
    "pyproject.toml.txt": "pyproject.toml",
    "Procfile.txt": "Procfile",
    "ecosystem.config.cjs.txt": "ecosystem.config.cjs",
    "gitignore.txt": ".gitignore",
}
WHAT = {
    "README.md": "how to install, write, test and run it",
    "app.py": "the app and its handler",
    "test_app.py": "its test, without a server",
    "hello.json": "the payload of a first event",
    "pyproject.toml": "what it needs",
    "Procfile": "for honcho, foreman, Heroku",
    "ecosystem.config.cjs": "for PM2",
    ".gitignore": "",
}

FIRST_EVENT = r"""omni-worker publish message.received --channel whatsapp \
      --instance wa-001 --data @hello.json"""


@click.command("init")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
def command(folder: Path) -> int:
    """Write a small project into DIR: a handler, its test, and how it is run.

    Its README.md says how to install it, and how to run it under honcho and PM2.

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
    words = {
        "{{name}}": name,
        "{{requirement}}": json.dumps(installed()),  # a string of TOML and of JSON alike
        "{{requirement for development}}": json.dumps(installed("server")),
        "{{programs}}": json.dumps(programs(folder)),
    }
    for template, target in FILES.items():
        text = files("omni_worker.cli").joinpath("template", template).read_text(encoding="utf-8")
        for word, meaning in words.items():
            text = text.replace(word, meaning)
        (folder / target).write_text(text, encoding="utf-8")
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


def programs(folder: Path) -> list[str]:
    """Return where PM2 looks for omni-worker: in the project's own environment, then in this one.

    An environment beside the project is named from there, so that both can be moved together.
    """
    here = Path(sysconfig.get_path("scripts"), "omni-worker")
    beside = here.is_relative_to(folder.resolve().parent)
    found = os.path.relpath(here, folder.resolve()) if beside else str(here)
    return [*dict.fromkeys([".venv/bin/omni-worker", found])]


def _say(folder: Path, name: str) -> None:
    click.echo(f"{name} in {folder}:")
    for target in FILES.values():
        click.echo(f"  {target:22}{WHAT[target]}".rstrip())
    here = folder.resolve() == Path.cwd()
    click.echo("Next, with a virtual environment active:")
    for line in [
        *([] if here else [f"cd {shlex.quote(str(folder))}"]),
        "pip install -e '.[dev]'",
        "python -m pytest",
        f"omni-worker dev {USUAL_MODULES[0]}",
    ]:
        click.echo(f"  {line}")
    click.echo("A first event, from another terminal, in the project's folder and environment:")
    click.echo(f"  {FIRST_EVENT}")
