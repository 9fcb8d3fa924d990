"""Seen in code: whether handlers publish later, or all or none; they say it nowhere else.

The source of their modules is looked through; what other modules do for them is not seen.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterable, Iterator

from ..handlers import Handler
from ..signatures import function_of


def publishes_later(handlers: Iterable[Handler]) -> bool:
    """Return True if an event is published with ``after=`` or ``at=``."""
    return any(
        name == "publish" and any(one.arg in ("after", "at") for one in call.keywords)
        for name, call in _calls(handlers)
    )


def publishes_in_blocks(handlers: Iterable[Handler]) -> bool:
    """Return True if ``atomic()`` is called."""
    return any(name == "atomic" for name, _ in _calls(handlers))


def _calls(handlers: Iterable[Handler]) -> Iterator[tuple[str, ast.Call]]:
    """Yield each call of a method in the modules of handlers, with the method's name."""
    for name in sorted({getattr(function_of(one.call), "__module__", "") for one in handlers}):
        try:
            tree = ast.parse(inspect.getsource(sys.modules[name]))
        except (KeyError, OSError, TypeError, SyntaxError, ValueError):  # no source of it
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                yield node.func.attr, node
