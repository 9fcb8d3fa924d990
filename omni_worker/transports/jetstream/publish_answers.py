"""Publish answers: what a server says of a message that it was to store; pure."""

from __future__ import annotations

from pydantic_core import from_json

from ...errors import ApiError
from ..base import Stored


def read_answer(subject: str, body: bytes) -> Stored | ApiError | None:
    """Parse the server's answer to a publish; None for anything else."""
    try:
        said = from_json(body)
        if error := said.get("error"):
            return ApiError(
                f"{subject} was not stored: {error.get('description')} ({error.get('err_code')})",
                code=error.get("code", 0),
                err_code=error.get("err_code", 0),
            )
        return Stored(said["stream"], said["seq"], said.get("duplicate", False))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def is_usual(head: bytes, stream: str) -> bool:
    """True if this head, a sequence and a brace are a whole answer: stored, no duplicate."""
    try:
        said = from_json(head + b":0}")
    except ValueError:
        return False
    keys = said.keys() if isinstance(said, dict) else set()
    return {"stream", "seq"} <= keys <= {"stream", "domain", "seq"} and said["stream"] == stream


def other_domain(body: bytes, domain: str | None) -> str:
    """Return the JetStream domain of an answer, empty if it is the wanted one or none is wanted.

    A leaf node's own stream may store the same subjects: its answer comes first, and says nothing
    of the stream in the wanted domain.
    """
    if domain is None:
        return ""
    try:
        said = from_json(body)
    except ValueError:
        return ""
    found = said.get("domain", "") if isinstance(said, dict) else ""
    return "" if found == domain else str(found)
