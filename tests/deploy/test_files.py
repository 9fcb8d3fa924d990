"""The files people copy: every command in them exists, with every option it is given."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from omni_worker.cli import main

from .support import ROOT

FILES = sorted(
    [ROOT / "docs" / "deploy.md", ROOT / "Procfile", *(ROOT / "examples" / "deploy").iterdir()]
)
# `omni-worker run …` as shells have it, and ["omni-worker", "run", …] as JSON and YAML do.
COMMAND = re.compile(r"""omni-worker["']?[, ]+["']?(run|check|server)\b([^\n`#]*)""")
OPTION = re.compile(r"--[a-z][a-z-]*")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_option_exists(file: Path) -> None:
    commands = COMMAND.findall(file.read_text())

    assert commands
    for name, rest in commands:
        assert set(OPTION.findall(rest)) <= options_of(name)


def test_the_unit_waits_longer_than_the_grace() -> None:
    unit = (ROOT / "examples" / "deploy" / "omni-worker.service").read_text()

    grace, stop = (
        int(re.search(rf"{key}=(\d+)", unit)[1])  # type: ignore[index]
        for key in ("OMNI_WORKER_GRACE", "TimeoutStopSec")
    )
    assert stop >= grace + 5


def options_of(name: str) -> set[str]:
    """What a command takes."""
    assert isinstance(main, click.Group)
    command = main.get_command(click.Context(main), name)
    assert command is not None
    return {option for one in command.params for option in one.opts}
