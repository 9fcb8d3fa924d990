"""Answers: what Omni's API said, read. Pure: a status, headers and bytes become data or an error.

Anything may answer at an address: a proxy's page, a redirect, another program. None is believed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from .errors import NotOmni, OmniBusy, OmniError, OmniKeyRefused, OmniRefused, OmniUnavailable
from .target import KEY_VARIABLE, URL_VARIABLE, Target

LONGEST_BODY = 1 << 20  # bytes; Omni's own answers have hundreds
LONGEST_AFTER = 3_600.0  # seconds; an hour is as long as an answer may hold an event back
PASSING = (408, 425, 429)  # statuses below 500 that another try may change


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer over HTTP; ``body`` is None if it is longer than is read."""

    status: int
    headers: Mapping[str, str]  # names in small letters
    body: bytes | None


def is_success(answer: Answer) -> bool:
    """Return True if the request was done."""
    return 200 <= answer.status < 300


def may_pass(answer: Answer) -> bool:
    """Return True for a failure that another try may change."""
    return answer.status >= 500 or answer.status in PASSING


def data_of(call: str, answer: Answer, target: Target) -> dict[str, Any]:
    """Return what the answer of a request that was done says of it; {} if it says nothing.

    Raises NotOmni for what is no JSON object. A JSON object of another shape is believed: to
    call a message unsent that was sent would send it again.
    """
    if answer.status == 204 or answer.body == b"":
        return {}
    said = _json_of(answer.body)
    if not isinstance(said, dict):
        raise _not_omni(call, answer, target, f"answered {_kind(answer)}")
    data = said.get("data")
    return data if isinstance(data, dict) else {}


def error_of(call: str, answer: Answer, target: Target, now: float) -> OmniError:
    """Return the error of a request that was not done. ``now``: epoch seconds."""
    status = answer.status
    code, why = _reason(answer, target)
    said = f"{call}: {status}" + (f" {code}" if code else "") + (f": {why}" if why else "")
    if may_pass(answer):
        after = retry_after(answer.headers.get("retry-after"), now)
        if after is not None or status == 429:
            return OmniBusy(f"{said}; Omni asks to wait", after=after, status=status, code=code)
        return OmniUnavailable(
            f"{said}; Omni at {target.url} failed: see its log",
            status=status, code=code, may_be_sent=status >= 500,
        )  # fmt: skip
    if 300 <= status < 400:
        return _not_omni(call, answer, target, f"answered with a redirect to {_host(answer)}")
    if status in (401, 403):
        return OmniKeyRefused(
            f"{said}; Omni at {target.url} refuses the API key: set {KEY_VARIABLE} to one that"
            " may send by this instance",
            status=status, code=code,
        )  # fmt: skip
    if status != 413 and not isinstance(_json_of(answer.body), dict):
        return _not_omni(call, answer, target, f"answered {_kind(answer)}")
    return OmniRefused(
        f"{said}; the same request would be refused again: correct what the handler sends",
        status=status, code=code,
    )  # fmt: skip


def retry_after(value: str | None, now: float) -> float | None:
    """Return the seconds of a `Retry-After`, at most an hour; None without a readable one."""
    if value is None or len(value) > 64:
        return None
    value = value.strip()
    if value.isascii() and value.isdecimal():
        return min(float(value), LONGEST_AFTER)
    try:
        date = parsedate_to_datetime(value)
        at = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError, TypeError, IndexError):
        return None
    return min(max(0.0, at - now), LONGEST_AFTER)


def _not_omni(call: str, answer: Answer, target: Target, what: str) -> NotOmni:
    return NotOmni(
        f"{call}: {answer.status}: what is at {target.url} {what}, as Omni's API never does:"
        f" set {URL_VARIABLE} to the address of Omni's API",
        status=answer.status,
        may_be_sent=is_success(answer),
    )


def _reason(answer: Answer, target: Target) -> tuple[str, str]:
    """Return Omni's code and message of an error; both may be empty."""
    said = _json_of(answer.body)
    error = said.get("error") if isinstance(said, dict) else None
    if isinstance(error, str):
        return "", target.shown(error)
    if not isinstance(error, dict):
        return "", ""
    code, message = error.get("code"), error.get("message")
    return (
        target.shown(code, 64) if isinstance(code, str) else "",
        target.shown(message) if isinstance(message, str) else "",
    )


def _json_of(body: bytes | None) -> Any:
    try:
        return None if body is None else json.loads(body)
    except (ValueError, RecursionError):
        return None


def _kind(answer: Answer) -> str:
    """Describe a body that is no JSON object; none of it is repeated."""
    if answer.body is None:
        return f"more than {LONGEST_BODY >> 20} MiB"
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_name = (
        len(kind) <= 64 and kind.isascii() and kind.replace("/", "").replace("-", "").isalnum()
    )
    return f"{kind if is_name else 'bytes'} in place of a JSON object"


def _host(answer: Answer) -> str:
    """Return the host a redirect leads to: the rest of its URL may hold anything."""
    try:
        host = urlsplit(answer.headers.get("location", "")).hostname or ""
    except ValueError:
        host = ""
    is_name = host and len(host) <= 253 and host.isascii() and host.isprintable()
    return host if is_name else "another path"
