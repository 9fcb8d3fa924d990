"""Call sites: the line of a user's file that calls a method of an app; errors name both."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import FrameType, TracebackType
from typing import Any, Self, TypeVar

from .errors import ConfigError
from .handlers import Handler
from .signatures import shown_place

Call = TypeVar("Call", bound=Callable[..., Any])


class CallSite:
    """Call of a method, made by the caller of the function that creates this.

    ``method`` has {} where the user's variable for ``app`` belongs. In a ``with`` block each
    ConfigError is raised again with the call, file and line.
    """

    def __init__(self, app: object, method: str, arguments: str = "") -> None:
        self._frame = sys._getframe(2)
        self._app = app
        self._method = method
        self._arguments = arguments
        self.where = shown_place(self._frame.f_code.co_filename, self._frame.f_lineno)

    @property
    def names(self) -> Mapping[str, Any]:
        """Local names around the call; annotations may refer to them."""
        return self._frame.f_locals

    @property
    def method(self) -> str:
        """Method as the user's code calls it."""
        return self._method.format(_variable(self._frame, self._app))

    def refuse_bare(self, given: Sequence[object], missing: str, example: str) -> None:
        """Refuse a decorator without parentheses: its first argument is the function."""
        if given and callable(given[0]):
            called = self.method
            raise ConfigError(f"{called}: {missing}; write {called}({example}) ({self.where})")

    def decorator(
        self, declared: Callable[[Callable[..., Any]], Handler], add: Callable[[Handler], None]
    ) -> Callable[[Call], Call]:
        """Return a decorator: ``declared`` makes a handler of a function, ``add`` keeps it."""

        def decorate(call: Call) -> Call:
            with self:
                add(replace(declared(call), where=self.where))
            return call

        return decorate

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, ConfigError):
            called = f"{self.method}{self._arguments}"
            raise ConfigError(f"{called}: {error} ({self.where})") from None


def shown_patterns(types: Sequence[str], subject: str | None) -> str:
    """Show what a declaration reads, as its arguments were written."""
    raw = [f"subject={subject!r}"] if subject else []
    return f"({', '.join([*map(repr, types), *raw])})"


def _variable(frame: FrameType, value: object) -> str:
    """Return the name by which the code of a frame calls a value; `app` if it has no variable."""
    for names in (frame.f_locals, frame.f_globals):
        for name, held in names.items():
            if held is value:
                return name
    return "app"
