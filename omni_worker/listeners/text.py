"""Text: values as people read them, and text from elsewhere without what a terminal obeys. Pure."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any
from unicodedata import east_asian_width

NARROW = 80  # columns of a terminal that says nothing else
LONGEST_TEXT = 16_384  # characters of a message, a field or a traceback

# Characters that move a terminal's cursor, hide or reverse text, or cannot be written at all. A
# new line and a tab are allowed.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    """With escapes in the place of what a terminal would obey: ids and errors come from anybody."""
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def visible_json(value: Any, *, indent: int | None = None) -> str:
    """Return JSON for people and programs: characters stay as they are, unsafe ones are escaped."""
    text = json.dumps(value, ensure_ascii=False, indent=indent, default=str)
    return _UNSAFE.sub(lambda found: json.dumps(found[0])[1:-1], text)


def columns_of(char: str) -> int:
    """Return the columns a character takes on a terminal: two for a wide one (漢, an emoji)."""
    return 2 if east_asian_width(char) in "WF" else 1


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


def clock_time(milliseconds: int) -> str:
    """`12:03:04` in this machine's zone; with its date if it is another day's."""
    when = datetime.fromtimestamp(milliseconds / 1000)
    return f"{when:%H:%M:%S}" if when.date() == datetime.now().date() else f"{when:%F %H:%M:%S}"


def address(type: str, subject: str) -> str:
    """`message.received whatsapp/wa-001`."""
    channel, dot, instance = subject.removeprefix(type).removeprefix(".").partition(".")
    if not type or not subject.startswith(type) or not dot:
        return subject or type
    return f"{type} {channel}/{instance}"


def short_id(id: str) -> str:
    """Return the beginning of an id: enough for `omni-worker trace`."""
    return id if len(id) <= 12 else id[:8]


def indented(text: str, indent: str = "  ") -> str:
    """Indent every line: no line of a traceback looks like the beginning of a log line."""
    return "\n".join(indent + line for line in text.split("\n"))
