"""Shells: what a `sh` block types, command by command, and whether it could be typed.

Commands of ours are parsed by click itself; of others is known which we name.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator

import click

from omni_worker.cli import main

from .blocks import ROOT

ASSIGNMENT = re.compile(r"\w+=.*", re.DOTALL)
EXTRA = re.compile(r"(?:\.|[\w/]*\bomni-worker)\[(\w+)\]")
# Programs of others: whether they take what we give them is not ours to know.
OTHERS = {"cd", "export", "honcho", "jq", "nats", "pm2"}


def check_script(script: str) -> None:
    """Raises when a command, an option or a value in it does not exist."""
    for words in commands(script):
        check_command(words)


def commands(script: str) -> Iterator[list[str]]:
    """The words of each command, without what leads its output elsewhere."""
    for line in logical_lines(script):
        words: list[str] = []
        for word in [*shlex.split(line, comments=True), ";"]:
            if word not in ("&&", "||", "|", ";", "&"):
                words.append(word)
            elif words:
                yield without_redirections(words)
                words = []


def logical_lines(script: str) -> Iterator[str]:
    """Lines with their continuations: after a backslash, and inside of quotes."""
    pending = ""
    for line in script.splitlines():
        pending += line + "\n"
        if line.endswith("\\"):
            continue
        try:
            shlex.split(pending, comments=True)
        except ValueError:  # a quotation is open
            continue
        yield pending.replace("\\\n", " ")
        pending = ""
    assert not pending, f"this has no end: {pending}"


def without_redirections(words: list[str]) -> list[str]:
    """`a > b` is `a`."""
    end = next((at for at, word in enumerate(words) if word in (">", ">>")), len(words))
    return words[:end]


def check_command(words: list[str]) -> None:
    """One command; raises AssertionError, or click's own error, when it could not be typed."""
    while words and ASSIGNMENT.fullmatch(words[0]):
        words = words[1:]
    match words:
        case ["omni-worker", *rest] | ["opentelemetry-instrument", "omni-worker", *rest]:
            check_ours(rest)
        case ["opentelemetry-instrument", *rest]:
            check_command(rest)
        case ["make", *targets]:
            rules = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
            assert set(targets) <= set(rules), f"make {targets}: there are {rules}"
        case ["pip", "install", *packages]:
            project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
            extras = {found[1] for one in packages if (found := EXTRA.fullmatch(one))}
            assert extras <= set(project["optional-dependencies"])
        case ["python3", "-m", "venv", ".venv"] | [".", ".venv/bin/activate"]:
            pass
        case ["python", "-m", "pytest", "-o", "asyncio_mode=auto", "test_greeter.py"]:
            pass  # saved by the reader of the README: the block above is its code
        case ["python" | ".venv/bin/python", "-m", "pytest", *paths]:
            assert all((ROOT / path).exists() for path in paths), f"{paths}: no such file"
        case [program, *_]:
            assert program in OTHERS, f"nobody here knows {shlex.join(words)}"


def check_ours(words: list[str]) -> None:
    """`omni-worker …`, read as it would be; nothing is run."""
    if words == ["--help"]:
        return
    command, rest = command_of(words)
    command.make_context(command.name, rest)


def command_of(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command these words lead to, and what is left for it."""
    command: click.Command = main
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        below = command.get_command(click.Context(command), words[0])
        assert below is not None, f"no command {words[0]!r} in {command.name}"
        command, words = below, words[1:]
    return command, words
