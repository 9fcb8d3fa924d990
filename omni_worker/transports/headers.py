"""Header blocks: written for publishing; reading one never fails.

Any program may publish any bytes as headers: a malformed block costs the headers, never the
message.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..errors import InvalidEvent

MESSAGE_ID = "Nats-Msg-Id"  # the server stores one message per id and duplicate window
_NAME = re.compile(r"[\x21-\x39\x3b-\x7e]+")  # visible ASCII, no colon
_WHITE = " \t\n\r\x0b\x0c"  # of ASCII only
_FIRST = b"NATS/1.0\r\n"
_ID_ALONE = _FIRST + MESSAGE_ID.encode()


def parse_headers(block: bytes | None) -> dict[str, list[str]]:
    """Return every header with its values in order; malformed lines are skipped."""
    headers: dict[str, list[str]] = {}
    if not block:
        return headers
    for line in block.decode("utf-8", "surrogateescape").split("\r\n")[1:]:
        name, colon, value = line.partition(":")
        if colon and (key := name.strip(_WHITE)):
            if key in headers:
                headers[key].append(value.strip(_WHITE))
            else:
                headers[key] = [value.strip(_WHITE)]
    return headers


def message_headers(id: str, headers: Mapping[str, str]) -> bytes:
    """Return the header block of a message to publish; empty if it has no id and no headers."""
    if not headers:
        if not id:
            return b""
        if id.isprintable():  # the usual case: no line break in the id
            return b"%b: %b\r\n\r\n" % (_ID_ALONE, id.encode("utf-8", "surrogateescape"))
    return format_headers({MESSAGE_ID: id, **headers} if id else headers)


def format_headers(headers: Mapping[str, str]) -> bytes:
    """Format a header block. Raises InvalidEvent for a header that would break the protocol."""
    lines = [_FIRST]
    for name, value in headers.items():
        check_header(name, value)
        lines.append(f"{name}: {value}\r\n".encode("utf-8", "surrogateescape"))
    return b"".join([*lines, b"\r\n"])


def check_header(name: str, value: str) -> None:
    """Refuse a header that would break the protocol. Raises InvalidEvent."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidEvent(f"header name {name!r}: expected ASCII without spaces and colons")
    if not isinstance(value, str):
        raise InvalidEvent(f"header {name}: expected a string, got {type(value).__name__}")
    if "\r" in value or "\n" in value or "\0" in value:
        raise InvalidEvent(f"header {name}: a value cannot hold line breaks or NUL")


def status_of(headers: bytes | None) -> int:
    """Return the status in a header block's first line, 0 if there is none."""
    if headers is None or not headers.startswith(b"NATS/1.0 "):
        return 0
    digits = headers[9:12]
    return int(digits) if digits.isdigit() else 0
