"""Traces that once came out differently on the two servers, and what it was."""

from __future__ import annotations

from .traces import Shape, Trace

ONCE_DIFFERENT: list[Trace] = [
    Trace((Shape(),), (("publish", "a", ""), ("pull", 0, 0, 3), ("wait", 3))),
]
