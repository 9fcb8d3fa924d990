"""Limits: what a server or an account asks of a new stream, and a configuration within it. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ...errors import ApiError

NEEDS_MAX_BYTES = 10113  # the account's `max_bytes_required`
NO_ROOM = 10047  # in its storage, of which max_bytes is a reservation
TOO_MANY_STREAMS = 10027
INVALID = 10052

_WINDOW = re.compile(r"duplicates window can not be larger then server limit of (\S+)")
_PART = re.compile(r"([\d.]+)(h|ms|m|s)")
_NANOSECONDS = {"h": 3_600 * 10**9, "m": 60 * 10**9, "s": 10**9, "ms": 10**6}


def within_limits(
    config: Mapping[str, Any], error: ApiError, max_bytes: int | None
) -> dict[str, Any] | None:
    """Return a refused stream's configuration within the limit that the error names, if it can be.

    The server takes a shorter duplicate window; ids are then recognised for that long, and a
    publish ends its tries in time. How large a stream may become is the operator's to say.
    """
    if error.err_code == NEEDS_MAX_BYTES and max_bytes is not None:
        return {**config, "max_bytes": max_bytes}
    found = _WINDOW.search(str(error)) if error.err_code == INVALID else None
    if found is not None and (window := _nanoseconds(found.group(1))):
        return {**config, "duplicate_window": window}
    return None


def with_advice(error: ApiError) -> ApiError:
    """Add what to do to the refusal of a new stream."""
    advice = {
        NEEDS_MAX_BYTES: "OMNI_WORKER_MAX_BYTES sets it for every stream that we create",
        NO_ROOM: "the account has no room for it: raise its storage, or lower"
        " OMNI_WORKER_MAX_BYTES (an account reserves that much for each stream)",
        TOO_MANY_STREAMS: "the account's limit is max_streams: raise it, or remove streams",
    }.get(error.err_code)
    if advice is None:
        return error
    return ApiError(f"{error}; {advice}", code=error.code, err_code=error.err_code)


def _nanoseconds(text: str) -> int:
    return sum(int(float(count) * _NANOSECONDS[unit]) for count, unit in _PART.findall(text))
