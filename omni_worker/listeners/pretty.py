"""Pretty: one log line as a person reads it, in the width of the terminal. Pure text."""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from ..events import names_of
from ..masking import bounded
from ..outcomes import DONE
from ..signals import (
    BatchFailed,
    EventSignal,
    PublishConfirmed,
    Ready,
    Retried,
    RunFinished,
    RunStarted,
    Signal,
)
from .text import LONGEST_TEXT, NARROW, address, clock_time, human_time, short_id, visible

INDENT = 11  # columns before the text: the time, a mark, two blanks
WIDE = 120  # beyond it lines get harder to read, not easier

_GREEN, _YELLOW, _RED, _DIM = "32", "33", "31", "2"
_MARKS = {"DEBUG": ("·", _DIM), "INFO": (" ", ""), "WARNING": ("!", _YELLOW)}
_ERROR_MARK = ("✗", _RED)

Fields = Mapping[str, Any]


def pretty(
    at: str,
    level: str,
    message: str,
    fields: Fields,
    *,
    ours: bool,
    signal: Signal | None = None,
    facts: Sequence[str] = (),
    trace: str = "",
    colour: bool = False,
) -> str:
    """The line, or the few lines, for one log record; ``ours`` for one this framework wrote.

    Below it are ``facts``, or the ``fields``. Some kinds of ``signal`` have a form of their own.
    """
    shape = _shape_of(signal, fields)
    if shape is not None:
        mark, tint, text, below = shape
    else:
        mark, tint = _MARKS.get(level, _ERROR_MARK)
        mark = "↻" if isinstance(signal, Retried | BatchFailed) else mark
        text, below = message, "\n".join(facts) or _facts(fields)
    text, below = bounded(text, LONGEST_TEXT), bounded(below, LONGEST_TEXT)
    text, below, trace = visible(text), visible(below), visible(trace)
    paint = _paint if colour else _plain
    width = terminal_width()
    first, *rest = _body(text, width) if ours else text.split("\n")
    lines = [first, *(" " * INDENT + line for line in rest)]
    shown = [paint(line, tint if tint != _DIM else "") for line in lines]
    if colour and mark == "→":
        for sign, hue in (("✓", _GREEN), ("✗", _RED)):
            shown = [line.replace(f"  {sign} ", f"  {_paint(sign, hue)} ") for line in shown]
    fits = len(lines) == 1 and INDENT + len(lines[-1]) + 2 + len(below) <= width
    if below and fits and "\n" not in below:
        shown[-1] += "  " + paint(below, _DIM)
    elif below:
        shown += [paint(line, _DIM) for line in _wrapped(below, width)]
    if trace:
        shown += [paint((" " * INDENT + line).rstrip(), _DIM) for line in trace.split("\n")]
    return f"{paint(at, _DIM)} {paint(mark, tint)} " + "\n".join(shown)


def terminal_width() -> int:
    """Return the width of the terminal within limits; 80 if there is no terminal."""
    return min(max(shutil.get_terminal_size((NARROW, 24)).columns, NARROW), WIDE)


# --- what happens to events --------------------------------------------------------------------

Shape = tuple[str, str, str, str]  # mark, colour, text, and the facts below it


def _shape_of(signal: Signal | None, fields: Fields) -> Shape | None:
    match signal:
        case RunStarted():
            return "→", _DIM, f"{_address(signal)}  … {signal.handler.short}", _tries(signal)
        case RunFinished(outcome=outcome, seconds=seconds):
            sign = "✓" if outcome is DONE else "✗"
            run = f"{sign} {signal.handler.short} {human_time(seconds)}"
            return "→", _DIM, f"{_address(signal)}  {run}", _tries(signal)
        case PublishConfirmed(stream=stream, sequence=sequence):
            to = f" {signal.channel}/{signal.instance}" if signal.channel else ""
            by = fields.get("function")  # of the run it was published in
            if signal.due is not None:
                before = "before" if signal.duplicate else f"for {clock_time(signal.due)}"
                by_whom = f"by {by}" if by else ""
                return "←", _DIM, f"{signal.type}{to} scheduled {before}", by_whom
            same = "stored before, as " if signal.duplicate else ""
            below = f"{same}{stream} #{sequence}" + (f", by {by}" if by else "")
            return "←", _DIM, f"{signal.type}{to}", below
        case Ready(handlers=count):
            handlers = f"{count} handler" if count == 1 else f"{count} handlers"
            own = ("handlers", "pid", "consumers")
            rest = {key: value for key, value in fields.items() if key not in own}
            return " ", "", f"ready: {handlers}, pid {signal.pid}", _facts(rest)
    return None


def _address(signal: EventSignal) -> str:
    event = signal.event
    return address("" if event is None else names_of(event)["type"], signal.subject)


def _tries(signal: RunStarted | RunFinished) -> str:
    return f"attempt {signal.attempt}" if signal.attempt > 1 else ""


# --- any other line ---------------------------------------------------------------------------


def _facts(fields: Fields) -> str:
    """`key=value` for the fields; of ids the beginning, and only once."""
    said: set[object] = set()
    words = []
    for key, value in fields.items():
        if key in ("event", "correlation", "trace"):
            if value in said:
                continue
            said.add(value)
            value = short_id(str(value))
        if key == "attempt" and value == 1:
            continue
        words.append(f"{key}={_word(value)}")
    return " ".join(words)


def _word(value: object) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if " " in text or not text else text


# --- lines and colours ------------------------------------------------------------------------


def _body(text: str, width: int) -> list[str]:
    room = width - INDENT
    return [
        line
        for part in text.split("\n")
        for line in textwrap.wrap(part, room, break_on_hyphens=False, break_long_words=False)
        or [""]
    ]


def _wrapped(facts: str, width: int) -> list[str]:
    return [" " * INDENT + line for line in _body(facts, width)]


def _paint(text: str, tint: str) -> str:
    return f"\x1b[{tint}m{text}\x1b[0m" if tint and text.strip() else text


def _plain(text: str, tint: str) -> str:
    return text
