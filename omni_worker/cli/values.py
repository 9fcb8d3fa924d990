"""Values: moments, durations and rates as people type them, and options of several commands."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|sec|m|min|h|d|w)")
_SECONDS = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}
_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*/\s*(s|m|h)")


class Moment(click.ParamType):  # type: ignore[type-arg]  # generic in newer click only
    """Moment: `2h` ago, or an ISO 8601 time, in this machine's zone unless it has one."""

    name = "when"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        """Convert to an aware datetime."""
        if isinstance(value, datetime):
            return value
        text = str(value).strip()
        if found := _DURATION.fullmatch(text.lower()):
            ago = timedelta(seconds=float(found[1]) * _SECONDS[found[2]])
            return datetime.now(UTC) - ago
        try:
            return datetime.fromisoformat(text).astimezone(UTC)
        except (ValueError, OverflowError):
            self.fail(f"{text!r}: expected 30s, 15m, 2h, 7d or 2026-01-31T12:00", param, ctx)


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic in newer click only
    """Duration: `30s`, `10m`, `2h`, `7d`."""

    name = "duration"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Convert to seconds, more than 0."""
        if isinstance(value, float):
            return value
        found = _DURATION.fullmatch(str(value).strip().lower())
        if found is None or not float(found[1]):
            self.fail(f"{value!r}: expected 30s, 10m, 2h or 7d", param, ctx)
        return float(found[1]) * _SECONDS[found[2]]


class Rate(click.ParamType):  # type: ignore[type-arg]  # generic in newer click only
    """Rate of events: `100/s`, `30/m`."""

    name = "rate"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Convert to events per second, more than 0."""
        if isinstance(value, float):
            return value
        found = _RATE.fullmatch(str(value).strip().lower())
        if found is None or not float(found[1]):
            self.fail(f"{value!r}: expected 100/s, 30/m or 600/h", param, ctx)
        return float(found[1]) / _SECONDS[found[2]]


def json_option(command: Command) -> Command:
    """Add `--json`, to every command whose answer is one JSON value."""
    return click.option("--json", is_flag=True, help="Print JSON, for programs.")(command)


def json_lines_option(command: Command) -> Command:
    """Add `--json`, to every command that answers with any number of JSON objects."""
    said = "Print JSON, for programs: one object a line."
    return click.option("--json", is_flag=True, help=said)(command)


def app_name_option(said: str) -> Callable[[Command], Command]:
    """Add `--app-name`: the name of an app on the server. `--app` is where an App is in code."""
    return click.option("--app-name", "app", metavar="NAME", help=said)


def verbose_option(command: Command) -> Command:
    """Add `--verbose`, to every command that shows a handler's two consumers as one."""
    said = "Show each consumer of a handler, those of bare subjects as well."
    return click.option("--verbose", is_flag=True, help=said)(command)


def yes_option(command: Command) -> Command:
    """Add `--yes`, to every command that asks."""
    return click.option("--yes", is_flag=True, help="Continue without asking.")(command)
