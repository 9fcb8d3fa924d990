"""Pretty: one log line as a person reads it, in the width of the terminal. Pure text."""

from __future__ import annotations

import json
import re
import shutil
import textwrap
from collections.abc import Mapping
from typing import Any

from ..events import names_of
from ..letters.written import error_line
from ..masking import bounded
from ..outcomes import DONE
from ..signals import (
    DeadLetterDelayed,
    DeadLettered,
    EventSignal,
    Ready,
    Retried,
    RunFinished,
    RunStarted,
    Signal,
)

INDENT = 11  # columns before the text: the time, a mark, two blanks
NARROW = 80
WIDE = 120  # beyond it lines get harder to read, not easier
ERROR_LENGTH = 300  # what an error says at most; JSON has the whole of it
LONGEST_TEXT = 16_384  # characters of a message, a field or a traceback

_GREEN, _YELLOW, _RED, _DIM = "32", "33", "31", "2"
_MARKS = {"DEBUG": ("·", _DIM), "INFO": (" ", ""), "WARNING": ("!", _YELLOW)}
_ERROR_MARK = ("✗", _RED)

# Characters that move a terminal's cursor, hide or reverse text, or cannot be written at all. A
# new line and a tab are allowed.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\U000e0000-\U000e007f]"
)

Fields = Mapping[str, Any]


def pretty(
    at: str,
    level: str,
    message: str,
    fields: Fields,
    *,
    ours: bool,
    signal: Signal | None = None,
    trace: str = "",
    colour: bool = False,
) -> str:
    """The line, or the few lines, for one log record; ``ours`` for one this framework wrote.

    Some kinds of ``signal`` have a form of their own.
    """
    shape = _shape_of(signal, fields)
    if shape is not None:
        mark, tint, text, facts = shape
    else:
        mark, tint = _MARKS.get(level, _ERROR_MARK)
        text, facts = message, _facts(fields)
    text, facts = bounded(text, LONGEST_TEXT), bounded(facts, LONGEST_TEXT)
    text, facts, trace = visible(text), visible(facts), visible(trace)
    paint = _paint if colour else _plain
    width = terminal_width()
    first, *rest = _body(text, width) if ours else text.split("\n")
    lines = [first, *(" " * INDENT + line for line in rest)]
    shown = [paint(line, tint if tint != _DIM else "") for line in lines]
    if colour and mark == "→":
        for sign, hue in (("✓", _GREEN), ("✗", _RED)):
            shown = [line.replace(f"  {sign} ", f"  {_paint(sign, hue)} ") for line in shown]
    if facts and INDENT + len(lines[-1]) + 2 + len(facts) <= width and len(lines) == 1:
        shown[-1] += "  " + paint(facts, _DIM)
    elif facts:
        shown += [paint(line, _DIM) for line in _wrapped(facts, width)]
    if trace:
        shown += [paint(" " * INDENT + line, _DIM) for line in trace.split("\n")]
    return f"{paint(at, _DIM)} {paint(mark, tint)} " + "\n".join(shown)


def visible(text: str) -> str:
    """With escapes in the place of what a terminal would obey: ids and errors come from anybody."""
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def visible_json(value: Any, *, indent: int | None = None) -> str:
    """Return JSON for people and programs: characters stay as they are, unsafe ones are escaped."""
    text = json.dumps(value, ensure_ascii=False, indent=indent, default=str)
    return _UNSAFE.sub(lambda found: json.dumps(found[0])[1:-1], text)


def human_time(seconds: float) -> str:
    """`<1 ms`, `3 ms`, `2.0 s`, `4 min`, `2 h`."""
    if seconds < 0.0005:
        return "<1 ms" if seconds else "0 s"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5_970 else f"{seconds / 3600:.0f} h"


def address(type: str, subject: str) -> str:
    """`message.received whatsapp/wa-001`."""
    channel, dot, instance = subject.removeprefix(type).removeprefix(".").partition(".")
    if not type or not subject.startswith(type) or not dot:
        return subject or type
    return f"{type} {channel}/{instance}"


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
        case Retried(attempt=attempt, of=of, after=after):
            text = f"retry {attempt} of {of - 1} in {human_time(after)}: "
            return "↻", _YELLOW, text + _short(error_line(signal.error)), _origin(signal)
        case DeadLettered(attempts=count):
            tries = {0: "", 1: " after 1 attempt"}.get(count, f" after {count} attempts")
            return "✗", _RED, f"dead letter{tries}: {_short(signal.error)}", _origin(signal)
        case DeadLetterDelayed(after=seconds):
            text = f"dead letter not stored, next try in {human_time(seconds)}: "
            return "✗", _RED, text + _short(str(signal.cause)), _origin(signal)
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


def _origin(signal: EventSignal) -> str:
    """Name the event and its handler."""
    event = signal.event
    names = {} if event is None else names_of(event)
    parts = [
        address(names.get("type", ""), signal.subject),
        signal.handler.short,
        f"{signal.stream} #{signal.sequence}",
    ]
    return " · ".join(parts + [_short_id(id) for id in [names.get("event")] if id])


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= ERROR_LENGTH else text[: ERROR_LENGTH - 1] + "…"


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
            value = _short_id(str(value))
        if key == "attempt" and value == 1:
            continue
        words.append(f"{key}={_word(value)}")
    return " ".join(words)


def _short_id(id: str) -> str:
    return id if len(id) <= 12 else id[:8]


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
