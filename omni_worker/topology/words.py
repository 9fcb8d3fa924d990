"""Words: what differs on a consumer, for people. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .streams import NANO


def changes_in_words(changes: Mapping[str, tuple[Any, Any]]) -> str:
    """Describe changes as field, value on the server, wanted value."""
    return "; ".join(
        f"{key} {_shown(key, has)}, wanted {_shown(key, want)}"
        for key, (has, want) in changes.items()
    )


def updates_in_words(changes: Mapping[str, tuple[Any, Any]]) -> str:
    """Describe changes that are made as field, value before, value after."""
    return "; ".join(
        f"{key} from {_shown(key, has)} to {_shown(key, want)}"
        for key, (has, want) in changes.items()
    )


def _shown(key: str, value: Any) -> str:
    if key in ("ack_wait", "inactive_threshold") and isinstance(value, int):
        return f"{value / NANO:g} s"
    if key == "backoff" and isinstance(value, list):
        return ", ".join(f"{one / NANO:g} s" for one in value)
    if isinstance(value, (tuple, list)):
        return ", ".join(str(one) for one in value) or "none"
    return str(value)
