"""`--help` of every command reads like a manual page, and Tab completes what it lists."""

from __future__ import annotations

import os
import pkgutil
import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import click
import pytest

from omni_worker.cli import main
from omni_worker.cli.group import Commands
from tests.processes.support import PROGRAM, clean_environment

from .support import call, too_wide

BASH = shutil.which("bash") or "bash"


def subcommands(group: click.Group) -> dict[str, click.Command]:
    """Every command of a group, imported."""
    context = click.Context(group)
    found = {name: group.get_command(context, name) for name in group.list_commands(context)}
    return {name: command for name, command in found.items() if command is not None}


def commands(group: click.Group, path: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command with the words that call it."""
    for name, command in subcommands(group).items():
        yield f"{path}{name}", command
        if isinstance(command, click.Group):
            yield from commands(command, f"{path}{name} ")


EVERY = dict(commands(main))
OPERATORS = [
    "show", "plan", "status", "tail", "trace", "doctor", "replay", "dead-letters list",
    "dead-letters show", "dead-letters retry", "dead-letters discard", "schemas check",
    "audit", "consumers list", "consumers rm", "schedules list",
]  # fmt: skip


@pytest.mark.parametrize("command", list(EVERY))
def test_help_fits_the_terminal_and_explains_each_option(tmp_path: Path, command: str) -> None:
    said = call(*command.split(), "--help", folder=tmp_path)

    assert (said.code, said.err) == (0, "")
    assert said.out.startswith(f"Usage: omni-worker {command} ")
    assert too_wide(said.out) == []
    assert "\b" not in said.out
    assert "..." not in re.sub(r"\[(ARGS|LETTER|CONSUMER)\]\.\.\.", "", said.out)
    for parameter in EVERY[command].params:
        assert not isinstance(parameter, click.Option) or parameter.help, parameter.name


@pytest.mark.parametrize("command", OPERATORS)
def test_an_operator_s_command_has_examples_exit_codes_and_json(
    tmp_path: Path, command: str
) -> None:
    page = call(*command.split(), "--help", folder=tmp_path).out

    assert page.count(f"omni-worker {command} ") > 1
    assert "Exit codes: 0" in page
    assert "--json" in page


def test_the_list_has_every_command_once_with_its_whole_sentence(tmp_path: Path) -> None:
    page = call("--help", folder=tmp_path).out
    rows = page.partition("Write a worker:")[2].splitlines()

    listed = [line.split()[0] for line in rows if line.startswith("  ")]
    assert sorted(listed) == sorted(subcommands(main))
    assert [line for line in rows if line.startswith("  ") and not line.endswith(".")] == []
    assert [line for line in rows if line.endswith("...")] == []
    assert too_wide(page) == []
    assert call("-h", folder=tmp_path).out == page


def test_every_command_of_the_table_can_be_imported_under_its_name() -> None:
    for group in (main, EVERY["consumers"], EVERY["dead-letters"], EVERY["schemas"]):
        assert isinstance(group, Commands)
        names = [name for names in group.sections.values() for name in names]
        assert [command.name for command in subcommands(group).values()] == names


def test_every_module_of_a_command_is_in_the_table() -> None:
    for package, group in (
        ("commands", main),
        ("commands.consumers", EVERY["consumers"]),
        ("commands.dead_letters", EVERY["dead-letters"]),
        ("commands.schemas", EVERY["schemas"]),
    ):
        assert isinstance(group, click.Group)
        folder = import_module(f"omni_worker.cli.{package}")
        modules = {one.name for one in pkgutil.iter_modules(folder.__path__)}
        listed = {name.replace("-", "_") for name in subcommands(group)}
        assert modules - {"chosen"} == listed


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("statsu", "No such command 'statsu'"),
        ("status --jsn", "No such option '--jsn'"),
        ("replay a:b --since 1h", "Missing option '--handler'"),
        ("replay a:b --handler x --since yesterday",
         "'yesterday': expected 30s, 15m, 2h, 7d or 2026-01-31T12:00"),
        ("replay a:b --handler x --since 1h --rate fast", "expected 100/s, 30/m or 600/h"),
        ("replay a:b --handler x --since 1h --rate 0/s", "expected 100/s, 30/m or 600/h"),
        ("dead-letters list --limit -1", "-1 is not in the range x>=0"),
        ("completion tcsh", "'tcsh' is not one of 'bash', 'zsh', 'fish'"),
        ("trace", "Missing argument 'EVENT_ID'"),
    ],
)  # fmt: skip
def test_a_wrong_call_is_told_in_lines_that_fit(tmp_path: Path, arguments: str, said: str) -> None:
    ended = call(*arguments.split(), folder=tmp_path)

    assert ended.code == 2
    assert said in ended.line
    assert "--help' for help" in ended.line
    assert too_wide(ended.err) == []
    assert ended.out == ""


# --- completion ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("omni-worker dea", ["dead-letters"]),
        ("omni-worker dead-letters re", ["retry"]),
        ("omni-worker dead-letters list --er", ["--error"]),
        ("omni-worker completion z", ["zsh"]),
        ("omni-worker status --w", ["--watch"]),
    ],
)
def test_tab_completes_in_bash(tmp_path: Path, words: str, completed: list[str]) -> None:
    script = call("completion", "bash", folder=tmp_path).out
    typed = words.split()
    (tmp_path / "tab.sh").write_text(
        f"{script}\nCOMP_WORDS=({' '.join(typed)})\nCOMP_CWORD={len(typed) - 1}\n"
        "function=$(complete -p omni-worker | sed 's/.*-F \\([^ ]*\\).*/\\1/')\n"
        '"$function" omni-worker\nprintf "%s\\n" "${COMPREPLY[@]}"\n'
    )

    ended = subprocess.run(
        [BASH, "tab.sh"], cwd=tmp_path, capture_output=True, text=True, timeout=30, check=True,
        env=clean_environment() | {"PATH": f"{Path(PROGRAM).parent}:{os.environ['PATH']}"},
    )  # fmt: skip

    assert ended.stdout.split() == completed
    assert ended.stderr == ""


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_what_the_other_shells_ask_is_answered(tmp_path: Path, shell: str) -> None:
    script = call("completion", shell, folder=tmp_path)

    answered = call(
        folder=tmp_path, _OMNI_WORKER_COMPLETE=f"{shell}_complete",
        COMP_WORDS="omni-worker dead-letters re", COMP_CWORD="re" if shell == "fish" else "2",
    )  # fmt: skip

    assert script.code == 0
    assert f"_OMNI_WORKER_COMPLETE={shell}_complete" in script.out
    assert "retry" in answered.out
    assert "discard" not in answered.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("statsu", "No such command 'statsu'; did you mean status?"),
        ("dead_letters list", "No such command 'dead_letters'; did you mean dead-letters?"),
        ("dead-letters lsit", "No such command 'lsit'; did you mean list?"),
        ("schedules frob", "No such command 'frob'; omni-worker schedules -h lists all"),
        ("status --sever x", "No such option '--sever'. (Did you mean one of: '--server',"),
        ("--json status", "--json belongs behind the command: omni-worker status --json"),
        ("dead-letters --all list", "behind the command: omni-worker dead-letters list --all"),
    ],
)
def test_a_misspelt_call_is_refused_with_what_was_probably_meant(
    tmp_path: Path, words: str, said: str
) -> None:
    ended = call(*words.split(), folder=tmp_path)

    assert (ended.code, ended.out) == (2, "")
    assert said in ended.line
    assert too_wide(ended.err) == []
