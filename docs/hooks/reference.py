"""Reference: what the code knows about itself, as Markdown. Settings, commands, core events.

`make reference` writes it into the pages, between two marks; a test compares.
"""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import click
from pydantic import AliasChoices, SecretStr
from pydantic.fields import FieldInfo

from omni_worker import Settings
from omni_worker.cli import main
from omni_worker.options import DEFAULTS, OPTIONS
from omni_worker.payloads import CORE_PAYLOADS

PROGRAM = "omni-worker"
Row = tuple[str, ...]
REMARK = re.compile(rf"^({PROGRAM} .*\S {{2,}})(?=\w)")  # after a command, far from it
RANGE = re.compile(r"(\d+)<=x<=(\d+)")  # as click writes it

# --- settings ---------------------------------------------------------------------------------


def settings() -> str:
    """One table for each kind of setting, and one of what the commands read besides."""
    connection: list[Row] = []
    handlers: list[Row] = []
    rest: list[Row] = []
    for name, field in Settings.model_fields.items():
        named = variable(name, field)
        kind = connection if named.startswith("NATS_") else handlers if name in OPTIONS else rest
        kind.append((f"`{named}`", _value(field), _default(field), field.description or ""))
    head = ("variable", "value", "default", "meaning")
    return "\n\n".join((
        "## The connection", _table(head, connection),
        "## Every handler", "For handlers that do not say otherwise in `@app.on`.",
        _table(head, handlers),
        "## The process", _table(head, rest),
        "## Options of commands", "The same as the option, for every start.",
        _table(("variable", "option of", "meaning"), _of_commands()),
    ))  # fmt: skip


def variable(name: str, field: FieldInfo) -> str:
    """The environment variable of a field."""
    alias = field.validation_alias
    if isinstance(alias, AliasChoices):
        return str(alias.choices[0])
    return f"OMNI_WORKER_{name.upper()}"


def _value(field: FieldInfo) -> str:
    """What may be given: a kind, and its bounds where it has any."""
    kind: Any = field.annotation
    parts = [part for part in get_args(kind) if part is not type(None)]
    if get_origin(kind) is Union:  # a number within bounds, or a word
        (_, bounds), (word,) = map(get_args, parts)
        return f"number{_bounds(bounds)}, or `{word}`"
    if isinstance(kind, types.UnionType):
        kind = parts[0]
    if get_origin(kind) is Literal:
        return " or ".join(f"`{part}`" for part in parts)
    words = {int: "number", float: "seconds", Path: "file", SecretStr: "secret", str: "text"}
    return words.get(kind, "URLs") + _bounds(field)


def _bounds(field: FieldInfo) -> str:
    limits: dict[str, float] = {}
    for constraint in field.metadata:
        for limit in ("ge", "gt", "le"):
            if hasattr(constraint, limit):
                limits[limit] = getattr(constraint, limit)
    match limits:
        case {"ge": low, "le": high}:
            return f", {_number(low)} to {_number(high)}"
        case {"ge": low}:
            return f", {_number(low)} or more"
        case {"gt": low}:
            return f", more than {_number(low)}"
    return ""


def _default(field: FieldInfo) -> str:
    match field.default:
        case None:
            # `none` can be said where a number is asked for; elsewhere it is simply not set.
            return "`none`" if field.metadata else ""
        case tuple() as several:
            return f"`{','.join(several)}`"
        case float() as seconds:
            return f"`{seconds:.15g}`"
        case other:
            return f"`{other}`"


def _number(number: float) -> str:
    return f"{number:,.15g}".replace(",", "\u00a0")  # not broken at a line's end


def _of_commands() -> Iterator[Row]:
    users: dict[str, list[str]] = {}
    meanings: dict[str, str] = {}
    for path, command in walk(main):
        for option in command.params:
            if isinstance(option, click.Option) and isinstance(option.envvar, str):
                users.setdefault(option.envvar, []).append(f"`{path} {option.opts[0]}`")
                meanings[option.envvar] = option.help or ""
    return ((f"`{name}`", ", ".join(users[name]), meanings[name]) for name in users)


# --- commands ---------------------------------------------------------------------------------


def commands() -> str:
    """Every command as its ``--help`` has it, with headings to link to."""
    parts = []
    for path, command in walk(main):
        if command is main:
            continue
        level = "#" * len(path.split())
        usage = command.get_usage(_context(path, command)).removeprefix("Usage: ")
        parts += [f"{level} {path}", f"`{' '.join(usage.split())}`"]
        parts += [_paragraph(one) for one in _paragraphs(command.help or "")]
        if options := list(_options(path, command)):
            parts.append(_table(("option", "meaning"), options))
    return "\n\n".join(parts)


def walk(command: click.Command, path: str = PROGRAM) -> Iterator[tuple[str, click.Command]]:
    """A command and all below it, each with the words it is called by."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in sorted(command.list_commands(context)):
            below = command.get_command(context, name)
            assert below is not None
            yield from walk(below, f"{path} {name}")


def _context(path: str, command: click.Command) -> click.Context:
    return click.Context(command, info_name=path, max_content_width=1_000)


def _paragraphs(text: str) -> list[str]:
    return inspect.cleandoc(text).split("\n\n")


def _paragraph(text: str) -> str:
    """Text as it is; what click leaves unwrapped (`\\b`) is a list of words, or commands."""
    if not text.startswith("\b"):
        return text
    lines = text.removeprefix("\b").strip("\n").splitlines()
    if lines[0].startswith(PROGRAM):
        return "\n".join(("```sh", *(REMARK.sub(r"\1# ", line) for line in lines), "```"))
    return _table(("", ""), _words(lines))


def _words(lines: Iterable[str]) -> Iterator[Row]:
    """`word  meaning`, or `shell: what to type`; an indented line goes on with the one before."""
    for entry in re.split(r"\n(?=\S)", "\n".join(lines)):
        word, meaning = re.split(r"(?<=:)\s+|\s{2,}", entry, maxsplit=1)
        lines = re.split(r"\n\s+", meaning)
        typed = word.endswith(":")
        yield f"`{word}`", "<br>".join(f"`{line}`" if typed else line for line in lines)


def _options(path: str, command: click.Command) -> Iterator[Row]:
    context = _context(path, command)
    for option in command.params:
        record = option.get_help_record(context)
        if isinstance(option, click.Option) and record is not None:
            names, meaning = record
            meaning = RANGE.sub(r"\1 to \2", meaning)
            if isinstance(option.envvar, str):
                meaning += f" Or `{option.envvar}`."
            yield f"`{names}`", meaning


# --- events -----------------------------------------------------------------------------------


def core_events() -> str:
    """Every core type with its model: what is required first, what may be missing in brackets."""
    rows = []
    for type, model in CORE_PAYLOADS.items():
        keys = [
            f"`{field.alias}`" if field.is_required() else f"[`{field.alias}`]"
            for field in sorted(
                model.model_fields.values(), key=lambda field: not field.is_required()
            )
        ]
        rows.append((f"`{type}`", model.__doc__ or "", " ".join(keys)))
    return _table(("type", "means", "keys, [may be missing]"), rows)


# --- options of a handler ---------------------------------------------------------------------


# The arguments of `@app.on` that say for which events; the options say how.
ADDRESS = (
    ("types", "one or more; `*` is one token, `>` the rest: `message.*`, `custom.>`", ""),
    ("`subject`", "a raw subject pattern, instead of types", ""),
    ("`channel`", "only this channel, or a list of them", "all"),
    ("`instance`", "only this instance", "all"),
)


def options() -> str:
    """Make the rows of `@app.on`: from the table of options."""
    rows = [
        (f"`{name}`", option.meaning[0].lower() + option.meaning[1:].rstrip("."), _word(name))
        for name, option in OPTIONS.items()
    ]
    return _table(("option of `@app.on`", "meaning", "default"), [*ADDRESS, *rows])


def _word(name: str) -> str:
    """The default of an option."""
    match DEFAULTS[name]:
        case None | ():
            return OPTIONS[name].none
        case bool() as switch:
            return f"`{switch}`"
        case str() as word:
            return f'`"{word}"`'
        case number:
            return f"{number:g}"


# What stands in a page between `<!-- settings -->` and `<!-- end: settings -->`.
PARTS = {
    "settings": settings,
    "commands": commands,
    "core events": core_events,
    "options": options,
}

DOCS = Path(__file__).parents[1]
PART = re.compile(r"^<!-- ([a-z ]+) -->$(?:.*?^<!-- end: \1 -->$)?", re.MULTILINE | re.DOTALL)


def filled(page: str) -> str:
    """Return a page with its parts as the code has them now."""

    def part(found: re.Match[str]) -> str:
        name = found[1]
        return f"<!-- {name} -->\n\n{PARTS[name]()}\n\n<!-- end: {name} -->"

    return PART.sub(part, page)


def write_pages() -> None:
    """Write the parts into every page that has one."""
    for path in sorted(DOCS.glob("*.md")):
        before = path.read_text("utf-8")
        if (after := filled(before)) != before:
            path.write_text(after, "utf-8")
            click.echo(f"written: {path.relative_to(DOCS.parent)}")


# --- Markdown ---------------------------------------------------------------------------------


def _table(head: Row, rows: Iterable[Row]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(text: str) -> str:
    return re.sub(r"\s*\n\s*| {2,}", " ", text).replace("|", "\\|")


if __name__ == "__main__":
    write_pages()
