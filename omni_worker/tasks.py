"""Tasks: the names of our own tasks and threads. No other file makes or reads such a name."""

from __future__ import annotations

_OURS = "omni-worker "
_HANDLER = f"{_OURS}handler "
_BATCH = f"{_OURS}batch "


def own(purpose: str) -> str:
    """Return the name of a task or thread of the framework."""
    return _OURS + purpose


def of_handler(handler: str) -> str:
    """Return the name of a task or thread that runs a handler's events."""
    return _HANDLER + handler


def of_batch(handler: str) -> str:
    """Return the name of a task that runs a batch: user's code, though the task is ours."""
    return _BATCH + handler


def is_batch(name: str) -> bool:
    """Return True if a task of that name runs a batch."""
    return name.startswith(_BATCH)


def is_own(name: str) -> bool:
    """Return True if a task or thread of that name belongs to the framework."""
    return name.startswith(_OURS)


def shown(name: str) -> str:
    """Return a name for people: `handler r1` for a handler's, any other unchanged."""
    return name.removeprefix(_OURS) if name.startswith(_HANDLER) else name


KEEPER = own("bus")  # checks the state of the bus every few seconds
